"""Between this package's words and SageMaker's: the CreateTransformJob request, and the DescribeTransformJob answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_dlaws.jobs.phase import SAGEMAKER_PHASES
from airflow_dlaws.jobs.reference import JobStatus
from airflow_dlaws.jobs.spec import Channel, ChannelKind
from airflow_dlaws.jobs.transform import ScoringModel, TransformSpec


def transform_request(spec: TransformSpec, model_name: str) -> dict[str, Any]:
    """Return the CreateTransformJob request, without the name and tags that tell one task from another."""
    source = {"S3DataType": spec.data.kind.value, "S3Uri": spec.data.uri}
    # With a line end behind each answer no two records can run into one, whatever the container ends its answers with.
    assembled = "Line" if spec.split == "Line" else "None"
    request: dict[str, Any] = {
        "ModelName": model_name,
        "TransformInput": {
            "DataSource": {"S3DataSource": source},
            "ContentType": spec.content_type,
            "SplitType": spec.split,
            "CompressionType": "None",
        },
        "TransformOutput": {
            "S3OutputPath": spec.output_s3_uri,
            "AssembleWith": assembled,
            **_given(Accept=spec.accept, KmsKeyId=spec.kms_key_id),
        },
        "TransformResources": {
            "InstanceType": spec.instance_type,
            "InstanceCount": spec.instance_count,
            **_given(VolumeKmsKeyId=spec.kms_key_id),
        },
        "MaxPayloadInMB": spec.max_payload_mb,
        "ModelClientConfig": {
            "InvocationsTimeoutInSeconds": spec.invocation_timeout_s,
            "InvocationsMaxRetries": spec.invocation_retries,
        },
        **_given(MaxConcurrentTransforms=spec.max_concurrent, Environment=dict(spec.environment) or None),
    }
    if spec.split == "Line":  # "To enable the batch strategy, you must set the SplitType property"
        request["BatchStrategy"] = spec.strategy
    processing = {
        "InputFilter": spec.input_filter,
        "OutputFilter": spec.output_filter,
        "JoinSource": "Input" if spec.join_input else "None",
    }
    if processing != {"InputFilter": "$", "OutputFilter": "$", "JoinSource": "None"}:
        request["DataProcessing"] = processing
    return request


def container(model: ScoringModel) -> dict[str, Any]:
    """Return the container of a model that is made here."""
    if model.model_package_arn:
        return {"ModelPackageName": model.model_package_arn}
    return {"Image": model.image, "ModelDataUrl": model.artifact_uri}


def transform_status(answer: Mapping[str, Any]) -> JobStatus:
    """Read DescribeTransformJob's answer; instances are billed from the job's start to its end."""
    started, ended = answer.get("TransformStartTime"), answer.get("TransformEndTime")
    seconds = round((ended - started).total_seconds()) if started and ended else 0
    return JobStatus(
        phase=SAGEMAKER_PHASES[answer["TransformJobStatus"]],
        reason=answer.get("FailureReason", ""),
        created_at=answer.get("CreationTime"),
        started_at=started,
        ended_at=ended,
        billable_seconds=seconds,
        output_uri=answer.get("TransformOutput", {}).get("S3OutputPath"),
    )


def data_of(answer: Mapping[str, Any]) -> Channel:
    """Return the data that a described job reads."""
    source = answer["TransformInput"]["DataSource"]["S3DataSource"]
    return Channel(name="data", uri=source["S3Uri"], kind=ChannelKind(source["S3DataType"]))


def _given(**members: Any) -> dict[str, Any]:
    """Return the members that have something to say: boto refuses None."""
    return {name: value for name, value in members.items() if value is not None}
