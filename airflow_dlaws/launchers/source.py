"""Publishes the code of a job in S3 under the digest of its content, with the entry program beside it.

The same code gives the same location, so a retry uploads nothing, and two versions never mix.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs import container_entry
from airflow_dlaws.jobs.spec import folder_name
from airflow_dlaws.launchers.aws_errors import service_errors
from airflow_dlaws.storage import ObjectStore, S3Uri, StoredObject

ENTRY_PROGRAM = "dlaws_entry.py"
#: Code is small; what is larger is data, and belongs in a channel.
SIZE_LIMIT = 64 * 1024 * 1024
_SKIPPED = frozenset(
    {"__pycache__", ".git", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".ipynb_checkpoints"}
)


class SourceBundle(Protocol):
    """The code of a job, read and digested, not yet published."""

    @property
    def digest(self) -> str:
        """Of the user's code alone, without the entry program, which changes with this package."""

    def location(self, destination: S3Uri) -> S3Uri:
        """Return the prefix where this code lies once it is published."""

    def publish(self, s3: Any, destination: S3Uri) -> None:
        """Put the code at its location unless it is there already."""


def read_source(s3: Any, *, source: str, entry_point: str, dependencies: Sequence[str] = ()) -> SourceBundle:
    """Read the code; nothing is written.

    :param s3: boto3 S3 client.
    :param source: local folder, or an s3://bucket/prefix, which will be copied inside S3.
    :param dependencies: further folders, as `source`; each lies beside the code under its own name.
    :raises SpecificationError: no such folder, no entry point in it, too large, or two things of one name.
    """
    code = _read(s3, "source", source)
    _check_entry_point(source, entry_point, code.names)
    for folder in dependencies:
        name = folder_name(folder)
        taken = sorted(each for each in code.names if each == name or each.startswith(f"{name}/"))
        if taken:
            raise SpecificationError(
                f"dependencies: {folder!r} would lie beside the code as {name!r}, where {taken[0]!r} is already: "
                "rename one of them"
            )
        code = code.beside(_read(s3, "dependencies", folder).below(name))
    _check_size([source, *dependencies], code.size)
    return code


@dataclass(frozen=True)
class _Code:
    """Code by its names in the container: content from the machine that submits, or objects that are in S3 already.

    Objects are copied, because a prefix can change under a job.
    """

    files: Mapping[str, bytes]
    objects: Mapping[str, StoredObject]

    @property
    def names(self) -> Collection[str]:
        return self.files.keys() | self.objects.keys()

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(map(len, self.files.values())) + sum(row.size for row in self.objects.values())

    def below(self, name: str) -> _Code:
        """Return the same code in a folder."""
        return _Code(
            {f"{name}/{inside}": body for inside, body in self.files.items()},
            {f"{name}/{inside}": row for inside, row in self.objects.items()},
        )

    def beside(self, other: _Code) -> _Code:
        """Return this code and another together."""
        return _Code({**self.files, **other.files}, {**self.objects, **other.objects})

    @property
    def digest(self) -> str:
        return _digest(self._content)

    @property
    def _content(self) -> dict[str, bytes]:
        return {**{name: row.etag.encode() for name, row in self.objects.items()}, **self.files}

    def location(self, destination: S3Uri) -> S3Uri:
        return destination / f"{_digest({**self._content, ENTRY_PROGRAM: entry_program()})}/"

    def publish(self, s3: Any, destination: S3Uri) -> None:
        prefix, store = self.location(destination), ObjectStore(s3)
        present = {row.uri.key.removeprefix(prefix.key): row.size for row in store.list(prefix)}
        for name, body in {**self.files, ENTRY_PROGRAM: entry_program()}.items():
            if present.get(name) != len(body):
                target = S3Uri(prefix.bucket, prefix.key + name)
                with service_errors(f"upload the code to {target}"):
                    store.write(target, body, content_type="text/x-python")
        for name, row in self.objects.items():
            if present.get(name) != row.size:
                with service_errors(f"copy the code from {row.uri} to {prefix}"):
                    copied = {"Bucket": row.uri.bucket, "Key": row.uri.key}
                    s3.copy_object(Bucket=prefix.bucket, Key=prefix.key + name, CopySource=copied)


def entry_program() -> bytes:
    """Return the program that starts the script in the container."""
    return Path(container_entry.__file__).read_bytes()


def _read(s3: Any, parameter: str, location: str) -> _Code:
    """Read one folder. What is at fault is told by the parameter's name."""
    if location.startswith("s3://"):
        return _Code({}, _objects(s3, parameter, S3Uri.parse(location)))
    folder = Path(location)
    if not folder.is_dir():
        raise SpecificationError(f"{parameter}={location!r} is no folder: give a folder with code")
    paths = list(_code_files(folder))
    _check_size([location], sum(path.stat().st_size for path in paths))
    return _Code({path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}, {})


def _objects(s3: Any, parameter: str, origin: S3Uri) -> dict[str, StoredObject]:
    base = origin.key.rstrip("/") + "/" if origin.key else ""
    rows = {row.uri.key.removeprefix(base): row for row in ObjectStore(s3).list(S3Uri(origin.bucket, base))}
    rows = {name: row for name, row in rows.items() if name and name != ENTRY_PROGRAM}
    if not rows and parameter == "dependencies":
        raise SpecificationError(f"{parameter}={str(origin)!r} holds nothing: give a prefix with code")
    return rows


def _check_size(locations: Sequence[str], size: int) -> None:
    if size > SIZE_LIMIT:
        raise SpecificationError(
            f"{list(locations)} hold {size / 2**20:.0f} MB, at most {SIZE_LIMIT / 2**20:.0f} MB are allowed: "
            "pass data as a channel, and keep only code in the source folder"
        )


def _check_entry_point(source: str, entry_point: str, names: Collection[str]) -> None:
    if entry_point not in names:
        scripts = sorted(name for name in names if name.endswith(".py"))
        raise SpecificationError(f"entry_point={entry_point!r} is not in source={source!r}, which has {scripts}")


def _code_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and path.suffix != ".pyc" and not _SKIPPED.intersection(parts):
            yield path


def _digest(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{len(files[name])}\0".encode() + files[name])
    return digest.hexdigest()[:16]
