"""Locations in file systems, written as `fsx://fs-ID/path` and `efs://fs-ID/path` beside `s3://bucket/prefix`.

The path is SageMaker's DirectoryPath: of Lustre it begins with the file system's mount name
(`fsx://fs-0123456789abcdef0/fsx/flights`), of EFS with its root.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from airflow_dlaws.errors import SpecificationError

_LOCATION = re.compile(r"(fsx|efs)://(fs-[0-9a-f]{8,18})(/.*)?")


class FileSystemType(enum.StrEnum):
    """SageMaker's FileSystemType."""

    LUSTRE = "FSxLustre"
    EFS = "EFS"


class Access(enum.StrEnum):
    """SageMaker's FileSystemAccessMode."""

    READ_ONLY = "ro"
    READ_WRITE = "rw"


_TYPES = {"fsx": FileSystemType.LUSTRE, "efs": FileSystemType.EFS}


@dataclass(frozen=True, kw_only=True)
class Directory:
    """A directory of a file system."""

    type: FileSystemType
    file_system_id: str
    path: str


def is_directory(location: str) -> bool:
    """Tell whether a location means a file system."""
    return location.startswith(("fsx:", "efs:"))


def parse_directory(field: str, location: str) -> Directory:
    """Read a location.

    :raises SpecificationError: it is none, or names a whole Lustre file system.
    """
    match = _LOCATION.fullmatch(location)
    if match is None:
        raise SpecificationError(
            f"{field}={location!r} is no directory of a file system: write fsx://fs-ID/MOUNTNAME/path (FSx for Lustre) "
            "or efs://fs-ID/path"
        )
    kind, path = _TYPES[match.group(1)], (match.group(3) or "/")
    if ".." in path.split("/"):
        raise SpecificationError(f"{field}={location!r}: write the path without '..'")
    if kind is FileSystemType.LUSTRE and path == "/":
        raise SpecificationError(
            f"{field}={location!r}: the path of Lustre begins with the file system's mount name, as in "
            f"fsx://{match.group(2)}/fsx/data (FSx console, DescribeFileSystems: MountName)"
        )
    return Directory(type=kind, file_system_id=match.group(2), path=path)
