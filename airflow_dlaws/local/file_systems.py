"""File systems of FSx for Lustre and EFS, each a folder of this machine: `--file-system fs-0123456789abcdef0=FOLDER`.

The folder stands for the root of the file system: fs-ID and DirectoryPath /fsx/data mean FOLDER/fsx/data. Where
programs are isolated the directory is mounted into each host, read-only unless the channel asks for "rw"; elsewhere it
is linked to, and "ro" keeps nobody from writing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow_dlaws.local.errors import validation_error
from airflow_dlaws.local.isolation import OPT_ML, Mount, available


class DirectoryMissing(Exception):
    """The directory is not there; the text is the job's FailureReason."""


def check(request: Mapping[str, Any], file_systems: Mapping[str, Path]) -> None:
    """Refuse file systems without a VPC, and those that nobody has named. The texts are assumed.

    :raises ServiceError: ValidationException.
    """
    for channel in request.get("InputDataConfig", []):
        source = channel["DataSource"].get("FileSystemDataSource")
        if source is None:
            continue
        name = channel["ChannelName"]
        if "VpcConfig" not in request:
            raise validation_error(f"VpcConfig is required for the file system of channel {name!r}.")
        if channel.get("InputMode", "File") != "File":
            raise validation_error(f"InputMode must be File for the file system of channel {name!r}.")
        if not source["DirectoryPath"].startswith("/") or ".." in source["DirectoryPath"].split("/"):
            raise validation_error(f"DirectoryPath {source['DirectoryPath']!r} of channel {name!r} is not absolute.")
        if source["FileSystemId"] not in file_systems:
            raise validation_error(
                f"The file system ID {source['FileSystemId']!r} does not exist. (The local AWS knows "
                f"{sorted(file_systems)}: name a folder for it with --file-system {source['FileSystemId']}=FOLDER.)"
            )


def link_where_not_mounted(mounts: Sequence[Mount], folders: Sequence[Path]) -> None:
    """Link to the directories from the folders of hosts that are not isolated."""
    if available().isolates:
        return
    for folder in folders:
        for mount in mounts:
            link = folder / mount.target.removeprefix(f"{OPT_ML}/")
            link.symlink_to(mount.source, target_is_directory=True)


def mounts_of(request: Mapping[str, Any], file_systems: Mapping[str, Path]) -> tuple[Mount, ...]:
    """Return what is mounted into every host of a job.

    :raises DirectoryMissing: a file system has no such directory.
    """
    found = []
    for channel in request.get("InputDataConfig", []):
        source = channel["DataSource"].get("FileSystemDataSource")
        if source is None:
            continue
        folder = file_systems[source["FileSystemId"]] / source["DirectoryPath"].lstrip("/")
        if not folder.is_dir():
            raise DirectoryMissing(
                f"ClientError: Unable to mount file system: {source['FileSystemId']} directory path: "
                f"{source['DirectoryPath']}. The path does not exist."
            )
        target = f"{OPT_ML}/input/data/{channel['ChannelName']}"
        found.append(Mount(source=folder, target=target, read_only=source["FileSystemAccessMode"] == "ro"))
    return tuple(found)
