"""The inputs of a job: prefixes and manifests in S3, directories of file systems."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs import limits
from airflow_dlaws.jobs.file_system import Access, Directory, is_directory, parse_directory


class ChannelKind(enum.StrEnum):
    """What a channel's location names (SageMaker's S3DataType)."""

    PREFIX = "S3Prefix"
    MANIFEST = "ManifestFile"


class Distribution(enum.StrEnum):
    """Which hosts see which objects (SageMaker's S3DataDistributionType)."""

    REPLICATED = "FullyReplicated"
    SHARDED = "ShardedByS3Key"


class InputMode(enum.StrEnum):
    """Whether the data is copied before the start or read on demand. Pipe mode is legacy and left out."""

    FILE = "File"
    FAST_FILE = "FastFile"


@dataclass(frozen=True, kw_only=True)
class Channel:
    """One input of a job: the script finds it under SM_CHANNEL_<NAME>.

    :param uri: s3://bucket/prefix; or, mounted and not copied, fsx://fs-ID/MOUNTNAME/path or efs://fs-ID/path.
    :param access: of a file system: "ro", or "rw" for one that the script may write to.
    :param instance_groups: names of the job's instance groups that get the data; all of them if left out.
    """

    name: str
    uri: str
    kind: ChannelKind = ChannelKind.PREFIX
    distribution: Distribution = Distribution.REPLICATED
    input_mode: InputMode = InputMode.FILE
    content_type: str | None = None
    access: Access = Access.READ_ONLY
    instance_groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        limits.check_channel_name("channel name", self.name)
        if not self.uri:
            raise SpecificationError(
                f"channel {self.name!r} has no location: give it an s3://bucket/prefix, or leave it out"
            )
        for attribute, kind in _CHANNEL_CHOICES.items():
            object.__setattr__(
                self, attribute, member_of(kind, f"channel {self.name!r}: {attribute}", getattr(self, attribute))
            )
        object.__setattr__(self, "instance_groups", tuple(self.instance_groups))
        if self.directory is None:
            self._check_object_store()
        else:
            self._check_file_system()

    @property
    def directory(self) -> Directory | None:
        """The directory of a file system that the channel is; None for one in S3."""
        where = f"channel {self.name!r}"
        return parse_directory(where, self.uri) if is_directory(self.uri) else None

    def _check_object_store(self) -> None:
        limits.check_s3_uri(f"channel {self.name!r}", self.uri)
        if self.access is not Access.READ_ONLY:
            raise SpecificationError(f"channel {self.name!r}: access='rw' is for file systems: leave it out for S3")
        if self.kind is ChannelKind.MANIFEST and self.input_mode is InputMode.FAST_FILE:
            raise SpecificationError(
                f"channel {self.name!r}: input_mode='FastFile' with kind='ManifestFile': AWS streams prefixes only "
                "(developer guide, Access Training Data). Use input_mode='File', or give a prefix"
            )

    def _check_file_system(self) -> None:
        """Refuse what SageMaker offers for S3 only."""
        plain = Channel(name=self.name, uri="s3://aaa")
        for attribute in ("kind", "distribution", "input_mode", "instance_groups"):
            if getattr(self, attribute) != getattr(plain, attribute):
                raise SpecificationError(
                    f"channel {self.name!r}={self.uri!r}: {attribute}={getattr(self, attribute)!r} is for data in S3: "
                    "a file system is mounted on every host, whole. Leave it out, and let the script share the files"
                )


_CHANNEL_CHOICES: dict[str, type[enum.StrEnum]] = {
    "kind": ChannelKind,
    "distribution": Distribution,
    "input_mode": InputMode,
    "access": Access,
}


def member_of(kind: type[enum.StrEnum], name: str, value: str) -> enum.StrEnum:
    """Read a choice.

    :raises SpecificationError: it is none, with those there are.
    """
    try:
        return kind(value)
    except ValueError:
        raise SpecificationError(f"{name}={value!r} must be one of {[member.value for member in kind]}") from None
