"""Between this package's words and SageMaker's: the CreateTrainingJob request, and the DescribeTrainingJob answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_dlaws.jobs.failure import INTERRUPTED, MAX_PENDING_TIME
from airflow_dlaws.jobs.metric_line import metric_regex
from airflow_dlaws.jobs.phase import SAGEMAKER_PHASES
from airflow_dlaws.jobs.reference import JobStatus
from airflow_dlaws.jobs.spec import Channel, TrainingSpec
from airflow_dlaws.launchers.source import ENTRY_PROGRAM
from airflow_dlaws.storage import S3Uri

_CODE_CHANNEL = "code"


def training_request(spec: TrainingSpec, code: S3Uri) -> dict[str, Any]:
    """Return the CreateTrainingJob request, without the name and tags that tell one task from another."""
    request: dict[str, Any] = {
        "AlgorithmSpecification": _algorithm(spec),
        "RoleArn": spec.role_arn,
        "HyperParameters": dict(spec.hyperparameters),
        "InputDataConfig": [_code_channel(code), *(_data_channel(channel) for channel in spec.channels)],
        "OutputDataConfig": {"S3OutputPath": spec.output_s3_uri, **_key("KmsKeyId", spec.kms_key_id)},
        "ResourceConfig": {
            "InstanceType": spec.instance_type,
            "InstanceCount": spec.instance_count,
            "VolumeSizeInGB": spec.volume_size_gb,
            **_key("VolumeKmsKeyId", spec.kms_key_id),
        },
        "StoppingCondition": {
            "MaxRuntimeInSeconds": spec.max_runtime_s,
            **_key("MaxWaitTimeInSeconds", spec.max_wait_s),
        },
        "EnableManagedSpotTraining": spec.spot,
        "Environment": dict(spec.environment),
    }
    if spec.checkpoint_s3_uri:
        request["CheckpointConfig"] = {"S3Uri": spec.checkpoint_s3_uri}
    if spec.subnets:
        request["VpcConfig"] = {"Subnets": list(spec.subnets), "SecurityGroupIds": list(spec.security_group_ids)}
    return request


def job_status(answer: Mapping[str, Any]) -> JobStatus:
    """Read DescribeTrainingJob's answer."""
    output = answer.get("OutputDataConfig", {}).get("S3OutputPath", "").rstrip("/")
    states = [row["Status"] for row in answer.get("SecondaryStatusTransitions", [])]
    return JobStatus(
        phase=SAGEMAKER_PHASES[answer["TrainingJobStatus"]],
        reason=answer.get("FailureReason", ""),
        detail=MAX_PENDING_TIME if _pended_too_long(answer) else answer.get("SecondaryStatus", ""),
        created_at=answer.get("CreationTime"),
        started_at=answer.get("TrainingStartTime"),
        ended_at=answer.get("TrainingEndTime"),
        billable_seconds=int(answer.get("BillableTimeInSeconds", 0)),
        training_seconds=int(answer.get("TrainingTimeInSeconds", 0)),
        artifact_uri=answer.get("ModelArtifacts", {}).get("S3ModelArtifacts") or None,
        output_uri=f"{output}/{answer['TrainingJobName']}/output/output.tar.gz",
        metrics={row["MetricName"]: float(row["Value"]) for row in answer.get("FinalMetricDataList", [])},
        interruptions=states.count(INTERRUPTED),
        restarts=states.count("Restarting"),
    )


def _pended_too_long(answer: Mapping[str, Any]) -> bool:
    """Tell whether a job was stopped for want of instances: AWS has no status of its own for that."""
    limit = answer.get("StoppingCondition", {}).get("MaxPendingTimeInSeconds")
    if answer["TrainingJobStatus"] != "Stopped" or answer.get("TrainingStartTime") or not limit:
        return False
    created, changed = answer.get("CreationTime"), answer.get("LastModifiedTime")
    return bool(created and changed and (changed - created).total_seconds() >= limit)


def _algorithm(spec: TrainingSpec) -> dict[str, Any]:
    workers = ["--nproc-per-node", str(spec.processes_per_instance)]
    return {
        "TrainingImage": spec.image,
        "TrainingInputMode": "File",
        "ContainerEntrypoint": ["python3", f"/opt/ml/input/data/{_CODE_CHANNEL}/{ENTRY_PROGRAM}"],
        "ContainerArguments": [*workers, spec.entry_point, *spec.arguments],
        "MetricDefinitions": [{"Name": name, "Regex": metric_regex(name)} for name in spec.metrics],
    }


def _code_channel(code: S3Uri) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": str(code), "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": _CODE_CHANNEL, "DataSource": {"S3DataSource": source}, "InputMode": "File"}


def _data_channel(channel: Channel) -> dict[str, Any]:
    source = {
        "S3DataType": channel.kind.value,
        "S3Uri": channel.uri,
        "S3DataDistributionType": channel.distribution.value,
    }
    return {
        "ChannelName": channel.name,
        "DataSource": {"S3DataSource": source},
        "InputMode": channel.input_mode.value,
        **_key("ContentType", channel.content_type),
    }


def _key(name: str, value: Any) -> dict[str, Any]:
    """Return the entry, or none where there is nothing to say: boto refuses None."""
    return {} if value is None else {name: value}
