"""What can be found out for nothing before a job is paid for: buckets, data, instance type."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.spec import Channel, ChannelKind, TrainingSpec
from airflow_dlaws.launchers.aws_errors import error_code, service_errors
from airflow_dlaws.storage import S3Uri

_MISSING = frozenset({"404", "NoSuchBucket", "NoSuchKey", "NotFound"})


def check_instance_type(sagemaker: Any, instance_type: str, kind: str = "Training") -> None:
    """Refuse an instance type that the installed service model does not know.

    :param kind: "Training" or "Transform": what it is for.
    :raises SpecificationError: with the closest names.
    """
    known = sagemaker.meta.service_model.shape_for(f"{kind}InstanceType").enum
    if instance_type in known:
        return
    close = difflib.get_close_matches(instance_type, known, n=3, cutoff=0.5)
    raise SpecificationError(
        f"instance_type={instance_type!r} is not known to SageMaker {kind.lower()}; "
        f"did you mean {' or '.join(close) or 'one of ml.m5.xlarge, ml.g5.xlarge'}? "
        "If it is new, upgrade botocore"
    )


def check_locations(s3: Any, spec: TrainingSpec) -> None:
    """Refuse a bucket that is missing and a channel without data; one call for each location, as a rule.

    :raises SpecificationError: names the location.
    """
    check_bucket(s3, "output_s3_uri", S3Uri.parse(spec.output_s3_uri))
    if spec.checkpoint_s3_uri:
        check_bucket(s3, "checkpoint_s3_uri", S3Uri.parse(spec.checkpoint_s3_uri))
    for channel in spec.channels:
        check_channel(s3, channel)


def check_channel(s3: Any, channel: Channel) -> None:
    """Refuse a channel without data; one call, or one for every thousand empty objects that stand before the first.

    :raises SpecificationError: names the location.
    """
    if channel.directory is not None:
        return  # reached from inside its VPC only: what is there, the job will see
    if channel.kind is ChannelKind.MANIFEST:
        _check_manifest(s3, channel)
    else:
        _check_prefix(s3, channel)


def check_bucket(s3: Any, field: str, uri: S3Uri) -> None:
    """Refuse a bucket that is missing.

    :raises SpecificationError: names the field.
    """
    with service_errors(f"reach {field}={uri}"):
        try:
            s3.head_bucket(Bucket=uri.bucket)
        except ClientError as error:
            if error_code(error) in _MISSING:
                raise _no_bucket(f"{field}={str(uri)!r}", uri) from error
            raise


def _check_prefix(s3: Any, channel: Channel) -> None:
    uri = S3Uri.parse(channel.uri)
    with service_errors(f"list {channel.uri} of channel {channel.name!r}"):
        try:
            pages = s3.get_paginator("list_objects_v2").paginate(Bucket=uri.bucket, Prefix=uri.key)
            found = any(_is_data(row) for page in pages for row in page.get("Contents", []))
        except ClientError as error:
            if error_code(error) in _MISSING:
                raise _no_bucket(f"channel {channel.name!r}={channel.uri!r}", uri) from error
            raise
    if not found:
        raise SpecificationError(
            f"channel {channel.name!r}={channel.uri!r} has no objects: "
            "correct the prefix, or make the task that writes the data come first"
        )


def _is_data(row: Mapping[str, Any]) -> bool:
    """Tell an object from the empty one by which S3's console marks a folder."""
    return bool(row["Size"]) or not str(row["Key"]).endswith("/")


def _check_manifest(s3: Any, channel: Channel) -> None:
    uri = S3Uri.parse(channel.uri)
    with service_errors(f"read the manifest {channel.uri} of channel {channel.name!r}"):
        try:
            s3.head_object(Bucket=uri.bucket, Key=uri.key)
        except ClientError as error:
            if error_code(error) in _MISSING:
                raise SpecificationError(
                    f"channel {channel.name!r}={channel.uri!r}: there is no such manifest object"
                ) from error
            raise


def _no_bucket(what: str, uri: S3Uri) -> SpecificationError:
    return SpecificationError(
        f"{what}: bucket {uri.bucket!r} does not exist (or belongs to another account): "
        "create it, or correct the location"
    )
