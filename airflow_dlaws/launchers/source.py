"""Publishes the code of a job in S3 under the digest of its content, with the entry program beside it.

The same code gives the same location, so a retry uploads nothing, and two versions never mix.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs import container_entry
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

    def location(self, destination: S3Uri) -> S3Uri:
        """Return the prefix where this code lies once it is published."""

    def publish(self, s3: Any, destination: S3Uri) -> None:
        """Put the code at its location unless it is there already."""


def read_source(s3: Any, *, source: str, entry_point: str) -> SourceBundle:
    """Read the code; nothing is written.

    :param s3: boto3 S3 client.
    :param source: local folder, or an s3://bucket/prefix, which will be copied inside S3.
    :raises SpecificationError: no such folder, no entry point in it, or too large.
    """
    if source.startswith("s3://"):
        return _read_prefix(s3, S3Uri.parse(source), entry_point)
    return _read_folder(Path(source), entry_point)


@dataclass(frozen=True)
class _Folder:
    """Code from the machine that submits: relative name -> content."""

    files: Mapping[str, bytes]

    def location(self, destination: S3Uri) -> S3Uri:
        return destination / f"{_digest(self.files)}/"

    def publish(self, s3: Any, destination: S3Uri) -> None:
        prefix, store = self.location(destination), ObjectStore(s3)
        present = {stored.uri.key: stored.size for stored in store.list(prefix)}
        for name, body in self.files.items():
            target = S3Uri(prefix.bucket, prefix.key + name)
            if present.get(target.key) != len(body):
                with service_errors(f"upload the code to {target}"):
                    store.write(target, body, content_type="text/x-python")


@dataclass(frozen=True)
class _Prefix:
    """Code that is in S3 already, by relative name. Copied, because a prefix can change under a job."""

    origin: S3Uri
    objects: Mapping[str, StoredObject]

    def location(self, destination: S3Uri) -> S3Uri:
        listing = {name: row.etag.encode() for name, row in self.objects.items()}
        return destination / f"{_digest({**listing, ENTRY_PROGRAM: entry_program()})}/"

    def publish(self, s3: Any, destination: S3Uri) -> None:
        prefix, store = self.location(destination), ObjectStore(s3)
        present = {stored.uri.key for stored in store.list(prefix)}
        with service_errors(f"copy the code from {self.origin} to {prefix}"):
            for name, row in self.objects.items():
                if prefix.key + name not in present:
                    copied = {"Bucket": self.origin.bucket, "Key": row.uri.key}
                    s3.copy_object(Bucket=prefix.bucket, Key=prefix.key + name, CopySource=copied)
            store.write(S3Uri(prefix.bucket, prefix.key + ENTRY_PROGRAM), entry_program())


def entry_program() -> bytes:
    """Return the program that starts the script in the container."""
    return Path(container_entry.__file__).read_bytes()


def _read_folder(folder: Path, entry_point: str) -> _Folder:
    if not folder.is_dir():
        raise SpecificationError(f"source={str(folder)!r} is no folder: give the folder that holds {entry_point!r}")
    paths = list(_code_files(folder))
    _check_size(str(folder), sum(path.stat().st_size for path in paths))
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    _check_entry_point(str(folder), entry_point, files)
    return _Folder({**files, ENTRY_PROGRAM: entry_program()})


def _read_prefix(s3: Any, origin: S3Uri, entry_point: str) -> _Prefix:
    base = origin.key.rstrip("/") + "/" if origin.key else ""
    rows = {row.uri.key.removeprefix(base): row for row in ObjectStore(s3).list(S3Uri(origin.bucket, base))}
    rows = {name: row for name, row in rows.items() if name and name != ENTRY_PROGRAM}
    _check_size(str(origin), sum(row.size for row in rows.values()))
    _check_entry_point(str(origin), entry_point, rows)
    return _Prefix(origin, rows)


def _check_size(source: str, size: int) -> None:
    if size > SIZE_LIMIT:
        raise SpecificationError(
            f"source={source!r} holds {size / 2**20:.0f} MB, at most {SIZE_LIMIT / 2**20:.0f} MB are allowed: "
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
