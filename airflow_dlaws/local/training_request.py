"""What CreateTrainingJob refuses beyond the service model: the rules of AWS's prose, and what this machine cannot do.

Accepted without effect, as one machine has neither: VpcConfig, encryption keys and flags, volume size, image
repository settings, time series of metrics, training plans, MLflow and model package configuration, remote debugging
and infrastructure checks. What is said of machines stands in `training_hosts`, of file systems in `file_systems`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.images import is_private_ecr
from airflow_dlaws.local import file_systems, training_hosts
from airflow_dlaws.local.errors import unsupported, validation_error
from airflow_dlaws.local.isolation import OPT_ML
from airflow_dlaws.local.tag_store import check_tags
from airflow_dlaws.storage import S3Uri

#: 28 days, the service quota for the run time of a training job.
LONGEST_RUN_SECONDS = 28 * 86_400
#: AWS's default for MaxRuntimeInSeconds.
DEFAULT_RUN_SECONDS = 86_400

_UNSUPPORTED = (
    "ServerlessJobConfig", "DebugHookConfig", "DebugRuleConfigurations",
    "TensorBoardOutputConfig", "ProfilerRuleConfigurations", "ExperimentConfig", "SessionChainingConfig",
)  # fmt: skip
_UNSUPPORTED_SOURCES = ("AttributeNames", "ModelAccessConfig", "HubAccessConfig")


def check(request: Mapping[str, Any], s3: Any, region: str, folders: Mapping[str, Path]) -> None:
    """Refuse what AWS refuses at creation, and what cannot be done here.

    :param s3: a client to look for the buckets with.
    :param folders: those that stand for file systems, by id.
    :raises ServiceError: ValidationException.
    """
    check_tags(request.get("Tags", []))
    _check_supported(request)
    _check_algorithm(request)
    training_hosts.check(request)
    _check_stopping(request)
    _check_checkpoints(request)
    for channel in request.get("InputDataConfig", []):
        _check_channel(channel, request["AlgorithmSpecification"]["TrainingInputMode"])
    _check_channel_names(request)
    file_systems.check(request, folders)
    _check_buckets(request, s3, region)


def s3_location(uri: str) -> S3Uri:
    """Read a location.

    :raises ServiceError: ValidationException where it is no s3:// URI.
    """
    try:
        return S3Uri.parse(uri)
    except SpecificationError as error:
        raise validation_error(str(error)) from error


def _check_supported(request: Mapping[str, Any]) -> None:
    for member in _UNSUPPORTED:
        if member in request:
            raise unsupported(f"{member} in CreateTrainingJob")
    if not request.get("ProfilerConfig", {"DisableProfiler": True}).get("DisableProfiler"):
        raise unsupported("ProfilerConfig in CreateTrainingJob, except DisableProfiler=True")


def _check_algorithm(request: Mapping[str, Any]) -> None:
    algorithm = request.get("AlgorithmSpecification")
    if algorithm is None:
        raise validation_error("AlgorithmSpecification is required for a training job that is not serverless.")
    if ("TrainingImage" in algorithm) == ("AlgorithmName" in algorithm):
        raise validation_error(
            "You must specify exactly one of TrainingImage and AlgorithmName in AlgorithmSpecification."
        )
    if "AlgorithmName" in algorithm:
        raise unsupported("AlgorithmName (algorithm resources and AWS Marketplace); give a TrainingImage")
    if algorithm["TrainingInputMode"] == "Pipe":
        raise unsupported("TrainingInputMode Pipe; use File or FastFile")
    for definition in algorithm.get("MetricDefinitions", []):
        try:
            re.compile(definition["Regex"])
        except re.error as error:
            raise validation_error(
                f"Metric {definition['Name']!r}: {definition['Regex']!r} is no regular expression: {error}."
            ) from error
    _check_registry(request, algorithm)


def _check_registry(request: Mapping[str, Any], algorithm: Mapping[str, Any]) -> None:
    in_vpc = algorithm.get("TrainingImageConfig", {}).get("TrainingRepositoryAccessMode") == "Vpc"
    if not is_private_ecr(algorithm["TrainingImage"]) and not in_vpc:
        raise validation_error(
            "TrainingImageConfig with TrainingRepositoryAccessMode set to VPC must be provided when using a training "
            "image from a private Docker registry. Please provide TrainingImageConfig and TrainingRepositoryAccessMode "
            "set to VPC when using a training image from a private Docker registry."
        )
    if in_vpc and "VpcConfig" not in request:
        raise validation_error("VpcConfig must be provided with TrainingRepositoryAccessMode set to VPC.")


def _check_stopping(request: Mapping[str, Any]) -> None:
    stopping = request.get("StoppingCondition", {})
    longest, wait = stopping.get("MaxRuntimeInSeconds", DEFAULT_RUN_SECONDS), stopping.get("MaxWaitTimeInSeconds")
    if longest > LONGEST_RUN_SECONDS:
        raise validation_error(f"MaxRuntimeInSeconds {longest} is over the limit of {LONGEST_RUN_SECONDS} (28 days).")
    if request.get("EnableManagedSpotTraining"):
        if wait is None or wait < longest:
            raise validation_error(
                "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds"
            )
    elif wait is not None:
        raise validation_error("MaxWaitTimeInSeconds can only be set with EnableManagedSpotTraining.")


def _check_checkpoints(request: Mapping[str, Any]) -> None:
    if "CheckpointConfig" not in request:
        return
    s3_location(request["CheckpointConfig"]["S3Uri"])
    path = request["CheckpointConfig"].get("LocalPath", f"{OPT_ML}/checkpoints")
    if not posixpath.normpath(path).startswith(f"{OPT_ML}/"):
        raise unsupported(f"the checkpoint path {path!r}; it must lie under {OPT_ML}/")


def _check_channel(channel: Mapping[str, Any], default_mode: str) -> None:
    name, source = channel["ChannelName"], channel["DataSource"]
    if len(source) != 1:
        raise validation_error(f"Channel {name!r} must have exactly one data source, not {sorted(source)}.")
    if "S3DataSource" not in source and "FileSystemDataSource" not in source:
        raise unsupported(f"{sorted(source)} as the source of channel {name!r}; use S3DataSource")
    data = source.get("S3DataSource", {"S3DataType": "S3Prefix", "S3Uri": "s3://none"})
    if data["S3DataType"] not in {"S3Prefix", "ManifestFile"}:
        raise unsupported(f"S3DataType {data['S3DataType']} (channel {name!r}); use S3Prefix or ManifestFile")
    if data["S3DataType"] == "ManifestFile" and channel.get("InputMode", default_mode) == "FastFile":
        raise validation_error(f"FastFile mode supports S3Prefix only (channel {name!r}).")
    for member in _UNSUPPORTED_SOURCES:
        if member in data:
            raise unsupported(f"S3DataSource.{member} (channel {name!r})")
    wishes = {
        "InputMode Pipe": channel.get("InputMode") == "Pipe",
        "CompressionType Gzip": channel.get("CompressionType") == "Gzip",
        "RecordWrapperType RecordIO": channel.get("RecordWrapperType") == "RecordIO",
        "ShuffleConfig": "ShuffleConfig" in channel,
    }
    for wish, asked in wishes.items():
        if asked:
            raise unsupported(f"{wish} (channel {name!r})")
    s3_location(data["S3Uri"])


def _check_channel_names(request: Mapping[str, Any]) -> None:
    names = [channel["ChannelName"] for channel in request.get("InputDataConfig", [])]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise validation_error(f"Channel names must be unique; {twice} are used more than once.")


def _check_buckets(request: Mapping[str, Any], s3: Any, region: str) -> None:
    for channel in request.get("InputDataConfig", []):
        if "S3DataSource" in channel["DataSource"]:
            check_input_bucket(channel["DataSource"]["S3DataSource"]["S3Uri"], s3, region, request["RoleArn"])
    check_output_bucket("OutputDataConfig.S3OutputPath", request["OutputDataConfig"]["S3OutputPath"], s3, region)
    if "CheckpointConfig" in request:
        check_output_bucket("CheckpointConfig.S3Uri", request["CheckpointConfig"]["S3Uri"], s3, region)


def check_input_bucket(uri: str, s3: Any, region: str, role: str) -> None:
    """Refuse an input location whose bucket does not exist.

    :raises ServiceError: ValidationException.
    """
    if not _bucket_exists(s3, s3_location(uri)):
        raise validation_error(no_objects(uri, region, role))


def check_output_bucket(member: str, uri: str, s3: Any, region: str) -> None:
    """Refuse an output location, given in `member` of the request, whose bucket does not exist.

    :raises ServiceError: ValidationException.
    """
    if not _bucket_exists(s3, s3_location(uri)):
        raise validation_error(
            f"The bucket of {member}={uri} does not exist. Please ensure that the bucket exists in the selected "
            f"region ({region})."
        )


def _bucket_exists(s3: Any, uri: S3Uri) -> bool:
    try:
        s3.head_bucket(Bucket=uri.bucket)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return False
        raise
    return True


def no_objects(uri: str, region: str, role: str) -> str:
    """AWS's sentence about an input location where it finds nothing."""
    return (
        f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure that the bucket exists '
        f'in the selected region ({region}), that objects exist under that S3 prefix, and that the role "{role}" has '
        f'"s3:ListBucket" permissions on bucket "{s3_location(uri).bucket}".'
    )
