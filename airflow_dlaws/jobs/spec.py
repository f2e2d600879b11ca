"""What a job should be, said once, whatever engine runs it. Checks itself when it is made."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs import limits
from airflow_dlaws.jobs.queue import BatchQueue

#: One day: SageMaker's own default, made explicit because a job without a limit is a bill without a limit.
DEFAULT_MAX_RUNTIME_S = 24 * 3600


class JobSpec(Protocol):
    """What every kind of specification says, whatever the job does."""

    @property
    def longest_s(self) -> int:
        """Seconds after which the service has ended the job by itself."""


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
    """One input of a job: the script finds it under SM_CHANNEL_<NAME>."""

    name: str
    uri: str
    kind: ChannelKind = ChannelKind.PREFIX
    distribution: Distribution = Distribution.REPLICATED
    input_mode: InputMode = InputMode.FILE
    content_type: str | None = None

    def __post_init__(self) -> None:
        limits.check_channel_name("channel name", self.name)
        if not self.uri:
            raise SpecificationError(
                f"channel {self.name!r} has no location: give it an s3://bucket/prefix, or leave it out"
            )
        limits.check_s3_uri(f"channel {self.name!r}", self.uri)
        for attribute, kind in (("kind", ChannelKind), ("distribution", Distribution), ("input_mode", InputMode)):
            object.__setattr__(
                self, attribute, _member(kind, f"channel {self.name!r}: {attribute}", getattr(self, attribute))
            )


@dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """One training job: image, code, data, machines, limits.

    :param source: folder with the code, on the machine that submits, or an s3://bucket/prefix.
    :param entry_point: script in that folder; gets the hyperparameters as `--name value`, then `arguments`.
    :param code_s3_uri: where the code is published, under its digest; `<output_s3_uri>/code` if left out.
    :param processes_per_instance: worker processes on each host, one per GPU; 1 on a CPU machine.
    :param max_runtime_s: seconds of running after which SageMaker itself stops the job.
    :param max_wait_s: seconds of waiting for spot machines plus running; at least `max_runtime_s`.
    :param job_queue: the AWS Batch queue it waits in, instead of asking SageMaker at once.
    :param metrics: names the script reports on its metric lines (`jobs/metric_line.py`).
    """

    image: str
    source: str
    entry_point: str
    output_s3_uri: str
    role_arn: str
    instance_type: str
    instance_count: int = 1
    processes_per_instance: int = 1
    arguments: tuple[str, ...] = ()
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    channels: tuple[Channel, ...] = ()
    code_s3_uri: str | None = None
    volume_size_gb: int = 30
    max_runtime_s: int = DEFAULT_MAX_RUNTIME_S
    spot: bool = False
    max_wait_s: int | None = None
    checkpoint_s3_uri: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    subnets: tuple[str, ...] = ()
    security_group_ids: tuple[str, ...] = ()
    kms_key_id: str | None = None
    job_queue: BatchQueue | None = None

    def __post_init__(self) -> None:
        for name, check in FIELD_CHECKS.items():
            check(name, getattr(self, name))
        self._check_channels()
        check_spot(
            spot=self.spot,
            max_runtime_s=self.max_runtime_s,
            max_wait_s=self.max_wait_s,
            checkpoint_s3_uri=self.checkpoint_s3_uri,
        )
        if bool(self.subnets) != bool(self.security_group_ids):
            raise SpecificationError("subnets and security_group_ids belong together: give both, or neither")
        as_text = {key: hyperparameter_text(value) for key, value in self.hyperparameters.items()}
        object.__setattr__(self, "hyperparameters", as_text)

    def _check_channels(self) -> None:
        names = [channel.name for channel in self.channels]
        if len(names) >= limits.CHANNEL_COUNT:
            raise SpecificationError(f"{len(names)} channels; at most {limits.CHANNEL_COUNT - 1} fit beside the code")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise SpecificationError(f"channels {twice} are named twice: each channel needs its own name")

    @property
    def longest_s(self) -> int:
        """Seconds after which the service has ended the job by itself."""
        return self.max_wait_s if self.spot and self.max_wait_s else self.max_runtime_s


def check_spot(*, spot: bool, max_runtime_s: Any, max_wait_s: Any, checkpoint_s3_uri: Any) -> None:
    """Refuse spot machines without checkpoints or waiting time, and waiting time without spot machines."""
    if not spot:
        if max_wait_s is not None:
            raise SpecificationError(f"max_wait_s={max_wait_s} is for spot machines: set spot=True, or leave it out")
        return
    if not checkpoint_s3_uri:
        raise SpecificationError(
            "spot=True without checkpoint_s3_uri: an interrupted job would start from zero each time. "
            "Give checkpoint_s3_uri=s3://bucket/prefix and let the script resume from SM_CHECKPOINT_DIR, "
            "or set spot=False"
        )
    if max_wait_s is None or (isinstance(max_runtime_s, int) and max_wait_s < max_runtime_s):
        raise SpecificationError(
            f"max_wait_s={max_wait_s!r} must be at least max_runtime_s={max_runtime_s} with spot=True"
        )


def _member(kind: type[enum.StrEnum], name: str, value: Any) -> enum.StrEnum:
    try:
        return kind(value)
    except ValueError:
        raise SpecificationError(f"{name}={value!r} must be one of {[member.value for member in kind]}") from None


def hyperparameter_text(value: Any) -> str:
    """Spell a hyperparameter; booleans as scripts expect them, not as Python prints them."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _optional(check: Callable[[str, Any], None]) -> Callable[[str, Any], None]:
    return lambda name, value: None if value is None else check(name, value)


def _between(low: int, high: int, unit: str = "") -> Callable[[str, Any], None]:
    return lambda name, value: limits.check_range(name, value, low, high, unit)


def _source(name: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise SpecificationError(f"{name}={value!r} must be a folder with the code, or an s3://bucket/prefix")
    if value.startswith("s3:"):
        limits.check_s3_uri(name, value)


#: One check a field, in the order of the request; the operator runs those whose value is known when a DAG is parsed.
FIELD_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "image": limits.check_image,
    "source": _source,
    "entry_point": limits.check_entry_point,
    "role_arn": limits.check_role_arn,
    "output_s3_uri": limits.check_s3_uri,
    "code_s3_uri": _optional(limits.check_s3_uri),
    "checkpoint_s3_uri": _optional(limits.check_s3_uri),
    "instance_type": limits.check_instance_type,
    "instance_count": _between(1, 1000),
    "processes_per_instance": _between(1, 128, "(one a GPU)"),
    "volume_size_gb": _between(1, 16384, "GB"),
    "max_runtime_s": _between(1, limits.MAX_RUNTIME_S, "seconds"),
    "max_wait_s": _optional(_between(1, limits.MAX_RUNTIME_S, "seconds")),
    "hyperparameters": limits.check_hyperparameters,
    "environment": limits.check_environment,
    "arguments": limits.check_arguments,
    "metrics": limits.check_metrics,
}
