"""What CreateProcessingJob refuses beyond the service model: the rules of AWS's prose, and what this machine cannot do.

Accepted without effect, as one machine has neither: NetworkConfig, encryption keys, volume size.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

from airflow_dlaws.local.errors import unsupported, validation_error
from airflow_dlaws.local.training_request import check_input_bucket, check_output_bucket

#: Where every LocalPath must lie (ProcessingS3Input, LocalPath).
ROOT = "/opt/ml/processing"


def check(request: Mapping[str, Any], s3: Any, region: str) -> None:
    """Refuse what AWS refuses at creation, and what cannot be done here.

    :param s3: a client to look for the buckets with.
    :raises ServiceError: ValidationException.
    """
    if "ExperimentConfig" in request:
        raise unsupported("ExperimentConfig in CreateProcessingJob")
    if "ContainerEntrypoint" not in request["AppSpecification"]:
        raise unsupported(
            "a processing job without ContainerEntrypoint: its images are folders of programs, with no default one"
        )
    _check_cluster(request["ProcessingResources"]["ClusterConfig"])
    inputs, outputs = request.get("ProcessingInputs", []), _outputs(request)
    _check_names("InputName", inputs)
    _check_names("OutputName", outputs)
    for one in inputs:
        _check_input(one)
        check_input_bucket(one["S3Input"]["S3Uri"], s3, region, request["RoleArn"])
    for one in outputs:
        _check_output(one)
        check_output_bucket(f"output {one['OutputName']}", one["S3Output"]["S3Uri"], s3, region)


def _outputs(request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(request.get("ProcessingOutputConfig", {}).get("Outputs", []))


def _check_cluster(cluster: Mapping[str, Any]) -> None:
    for member in ("InstancePreferences", "SelectedInstanceType", "SelectedInstanceCount"):
        if member in cluster:
            raise unsupported(f"ClusterConfig.{member}")
    if "InstanceType" not in cluster:
        raise validation_error("ClusterConfig needs an InstanceType.")


def _check_names(member: str, rows: list[Mapping[str, Any]]) -> None:
    names = [row[member] for row in rows]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise validation_error(f"{member} must be unique within a processing job; {twice} are used more than once.")


def _check_input(one: Mapping[str, Any]) -> None:
    name = one["InputName"]
    if one.get("AppManaged"):
        raise unsupported(f"AppManaged (input {name!r})")
    if "S3Input" not in one or "DatasetDefinition" in one:
        raise unsupported(f"an input without S3Input ({name!r}): DatasetDefinition")
    source = one["S3Input"]
    if source.get("S3InputMode", "File") != "File":
        raise unsupported(f"S3InputMode {source['S3InputMode']} (input {name!r}); use File")
    if source.get("S3CompressionType", "None") != "None":
        raise validation_error(f"S3CompressionType Gzip (input {name!r}) can only be used with S3InputMode Pipe.")
    _check_path(f"input {name!r}", source.get("LocalPath"))


def _check_output(one: Mapping[str, Any]) -> None:
    name = one["OutputName"]
    if one.get("AppManaged") or "FeatureStoreOutput" in one:
        raise unsupported(f"AppManaged and FeatureStoreOutput (output {name!r})")
    if "S3Output" not in one:
        raise validation_error(f"S3Output is required for output {name!r}.")
    _check_path(f"output {name!r}", one["S3Output"].get("LocalPath"))


def _check_path(what: str, path: str | None) -> None:
    if path is None:
        raise validation_error(f"LocalPath is required for {what}, which is not AppManaged.")
    if posixpath.normpath(path) != path.rstrip("/") or not path.startswith(f"{ROOT}/"):
        raise validation_error(f"LocalPath {path} of {what} must be an absolute path that begins with {ROOT}/.")
