"""The input side of /opt/ml: configuration files, channels from S3.

File and FastFile mode both copy the objects before training starts; FastFile's streaming makes no difference that a
program can see, but for time and memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from botocore.exceptions import ClientError

from airflow_dlaws.errors import ServiceRefused
from airflow_dlaws.local.training_hosts import TrainingHost
from airflow_dlaws.local.training_request import no_objects
from airflow_dlaws.storage import ObjectStore, S3Uri

#: The loopback interface of the job's own network; on AWS it is usually eth0.
_INTERFACE = "lo"


class InputFault(Exception):
    """The input cannot be had; the text is the job's FailureReason."""


def write_configuration(
    folder: Path, host: TrainingHost, hosts: Sequence[TrainingHost], request: Mapping[str, Any]
) -> None:
    """Write the three files under input/config for one host."""
    documents = {
        "hyperparameters.json": request.get("HyperParameters", {}),
        "inputdataconfig.json": {
            channel["ChannelName"]: _channel_configuration(channel, request)
            for channel in channels_for(host.group, request)
        },
        "resourceconfig.json": {
            "current_host": host.name,
            "current_instance_type": host.instance_type,
            "current_group_name": host.group,
            "hosts": [other.name for other in hosts],
            "network_interface_name": _INTERFACE,
            "instance_groups": _groups(hosts),
        },
    }
    configuration = folder / "input" / "config"
    configuration.mkdir(parents=True, exist_ok=True)
    for name, document in documents.items():
        (configuration / name).write_text(json.dumps(document, indent=1))


def _groups(hosts: Sequence[TrainingHost]) -> list[dict[str, Any]]:
    return [
        {
            "instance_group_name": name,
            "instance_type": next(host.instance_type for host in hosts if host.group == name),
            "hosts": [host.name for host in hosts if host.group == name],
        }
        for name in dict.fromkeys(host.group for host in hosts)
    ]


def channels_for(group: str, request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the channels that the hosts of a group get."""
    return [
        channel
        for channel in request.get("InputDataConfig", [])
        if group in channel["DataSource"].get("S3DataSource", {}).get("InstanceGroupNames", [group])
    ]


def _channel_configuration(channel: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    mode = channel.get("InputMode", request["AlgorithmSpecification"]["TrainingInputMode"])
    configuration = {
        "TrainingInputMode": mode,
        "S3DistributionType": channel["DataSource"]
        .get("S3DataSource", {})
        .get("S3DataDistributionType", "FullyReplicated"),
        "RecordWrapperType": "None",
    }
    if "ContentType" in channel:
        configuration["ContentType"] = channel["ContentType"]
    return configuration


class ChannelLoader:
    """Copies channels from S3 into the folders of hosts."""

    def __init__(self, s3: Any, request: Mapping[str, Any], region: str) -> None:
        self._request, self._objects = request, InputObjects(s3, region, request["RoleArn"])

    def load(self, hosts: Sequence[tuple[Path, str]]) -> None:
        """Fill input/data of every host, given its folder and its instance group, with what lies in S3.

        :raises InputFault: a prefix has no objects, a manifest cannot be read, an object is not there.
        """
        for channel in self._request.get("InputDataConfig", []):
            source = channel["DataSource"].get("S3DataSource")
            if source is None:
                continue
            inside = Path("input", "data", channel["ChannelName"])
            folders = [folder for folder, group in hosts if channel in channels_for(group, self._request)]
            self._objects.place(source, [folder / inside for folder in folders])


class InputObjects:
    """What an S3 data source of a job stands for: its objects, and where each belongs.

    :param role: of the job; AWS names it in the message about a prefix without objects.
    """

    def __init__(self, s3: Any, region: str, role: str) -> None:
        self._s3, self._region, self._role = s3, region, role

    def place(self, source: Mapping[str, Any], folders: Sequence[Path]) -> None:
        """Copy the objects of a data source into one folder for each host, all of them or a share.

        :raises InputFault: see `listed`; an object is not there.
        """
        objects = self.listed(source)
        sharded = source.get("S3DataDistributionType") == "ShardedByS3Key"
        for index, folder in enumerate(folders):
            folder.mkdir(parents=True, exist_ok=True)
            for uri, name in objects[index :: len(folders)] if sharded else objects:
                self.copy(uri, _inside(folder, name))

    def listed(self, source: Mapping[str, Any]) -> list[tuple[S3Uri, str]]:
        """Return (object, name relative to the source), in key order.

        :raises InputFault: a prefix has no objects, a manifest cannot be read.
        """
        uri = S3Uri.parse(source["S3Uri"])
        if source["S3DataType"] == "ManifestFile":
            return self._listed_in(uri)
        found = [
            (row.uri, _local_name(row.uri.key, uri.key))
            for row in ObjectStore(self._s3).list(uri)
            if not row.uri.key.endswith("/")
        ]
        if not found:
            raise InputFault(f"ClientError: Data download failed:{no_objects(str(uri), self._region, self._role)}")
        return found

    def copy(self, uri: S3Uri, path: Path) -> None:
        """Download one object.

        :raises InputFault: it is not there.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._s3.download_file(uri.bucket, uri.key, str(path))
        except ClientError as error:
            raise InputFault(f"ClientError: Data download failed:cannot read {uri}: {error}") from error

    def _listed_in(self, manifest: S3Uri) -> list[tuple[S3Uri, str]]:
        """Read [{"prefix": "s3://bucket/some/"}, "a.csv", "b.csv"]."""
        try:
            first, *names = ObjectStore(self._s3).read_json(manifest)
            prefix = str(first["prefix"])
            return [(S3Uri.parse(prefix + name), name) for name in sorted(names)]
        except ServiceRefused as error:
            raise InputFault(f"ClientError: Data download failed:{error}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise InputFault(
                f"ClientError: Data download failed:the manifest {manifest} is not a list of one "
                f'{{"prefix": "s3://..."}} and object names: {error!r}'
            ) from error


def _local_name(key: str, prefix: str) -> str:
    """Return where an object of a prefix lies in its channel: what follows the prefix, up to the last whole folder."""
    if prefix.endswith("/") or not prefix:
        return key[len(prefix) :]
    if key.startswith(f"{prefix}/"):
        return key[len(prefix) + 1 :]
    return key[len(prefix.rpartition("/")[0]) :].lstrip("/")


def _inside(folder: Path, name: str) -> Path:
    if ".." in PurePosixPath(name).parts or name.startswith("/"):
        raise InputFault(f"ClientError: Data download failed:the key {name!r} would lie outside its channel")
    return folder / name
