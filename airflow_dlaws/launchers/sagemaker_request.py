"""Between this package's words and SageMaker's: the CreateTrainingJob request, and the DescribeTrainingJob answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.failure import INTERRUPTED, MAX_PENDING_TIME
from airflow_dlaws.jobs.metric_line import metric_regex
from airflow_dlaws.jobs.phase import SAGEMAKER_PHASES
from airflow_dlaws.jobs.reference import JobStatus
from airflow_dlaws.jobs.spec import CapacityPreference, Channel, OutputCompression, TrainingSpec
from airflow_dlaws.launchers.extra_request import merged
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
        "OutputDataConfig": _output(spec),
        "ResourceConfig": resource_config(spec),
        "StoppingCondition": {
            "MaxRuntimeInSeconds": spec.max_runtime_s,
            **_key("MaxWaitTimeInSeconds", spec.max_wait_s),
            **_key("MaxPendingTimeInSeconds", spec.max_pending_s),
        },
        "EnableManagedSpotTraining": spec.spot,
        "Environment": dict(spec.job_environment),
        **_options(spec),
    }
    if spec.checkpoint_s3_uri:
        request["CheckpointConfig"] = {"S3Uri": spec.checkpoint_s3_uri}
    if spec.subnets:
        request["VpcConfig"] = {"Subnets": list(spec.subnets), "SecurityGroupIds": list(spec.security_group_ids)}
    return merged(request, spec.extra_request) if spec.extra_request else request


def resource_config(spec: TrainingSpec) -> dict[str, Any]:
    """Return ResourceConfig: the machines."""
    resources: dict[str, Any] = {
        "VolumeSizeInGB": spec.volume_size_gb,
        **_key("VolumeKmsKeyId", spec.volume_key),
        **_key("KeepAlivePeriodInSeconds", spec.keep_alive_s),
        **_key("TrainingPlanArn", spec.training_plan_arn),
    }
    if spec.instance_groups:
        groups = [
            {"InstanceGroupName": one.name, "InstanceType": one.instance_type, "InstanceCount": one.instance_count}
            for one in spec.instance_groups
        ]
        return {"InstanceGroups": groups, **resources}
    if spec.capacity_preferences:
        counted = any(choice.instance_count for choice in spec.capacity_preferences)
        one_count = {} if counted else {"InstanceCount": spec.instance_count}
        choices = [_preference(choice) for choice in spec.capacity_preferences]
        return {"InstancePreferences": choices, **one_count, **resources}
    return {"InstanceType": spec.instance_type, "InstanceCount": spec.instance_count, **resources}


def _preference(choice: CapacityPreference) -> dict[str, Any]:
    plan = choice.training_plan_arn
    return {
        "InstanceType": choice.instance_type,
        **_key("InstanceCount", choice.instance_count),
        **_key("TrainingPlanArns", [plan] if plan else None),
    }


def _output(spec: TrainingSpec) -> dict[str, Any]:
    compression = None if spec.output_compression is OutputCompression.GZIP else spec.output_compression.value
    return {
        "S3OutputPath": spec.output_s3_uri,
        **_key("KmsKeyId", spec.kms_key_id),
        **_key("CompressionType", compression),
    }


def _options(spec: TrainingSpec) -> dict[str, Any]:
    """Return what is left out of the request unless it is asked for."""
    options: dict[str, Any] = {}
    if spec.network_isolation:
        options["EnableNetworkIsolation"] = True
    if spec.encrypt_traffic:
        options["EnableInterContainerTrafficEncryption"] = True
    if spec.max_retry_attempts:
        options["RetryStrategy"] = {"MaximumRetryAttempts": spec.max_retry_attempts}
    if spec.infra_check:
        options["InfraCheckConfig"] = {"EnableInfraCheck": True}
    if spec.remote_debug:
        options["RemoteDebugConfig"] = {"EnableRemoteDebug": True}
    if spec.mlflow:
        options["MlflowConfig"] = {
            "MlflowResourceArn": spec.mlflow.arn,
            **_key("MlflowExperimentName", spec.mlflow.experiment),
            **_key("MlflowRunName", spec.mlflow.run),
        }
    if spec.model_package:
        options["ModelPackageConfig"] = {
            "ModelPackageGroupArn": spec.model_package.group_arn,
            **_key("SourceModelPackageArn", spec.model_package.source_arn),
        }
    return options


def job_status(answer: Mapping[str, Any]) -> JobStatus:
    """Read DescribeTrainingJob's answer."""
    output = answer.get("OutputDataConfig", {})
    uncompressed = output.get("CompressionType") == OutputCompression.NONE.value
    folder = f"{output.get('S3OutputPath', '').rstrip('/')}/{answer['TrainingJobName']}/output"
    states = [row["Status"] for row in answer.get("SecondaryStatusTransitions", [])]
    resources = answer.get("ResourceConfig", {})
    return JobStatus(
        phase=SAGEMAKER_PHASES[answer["TrainingJobStatus"]],
        reason=answer.get("FailureReason", ""),
        detail=MAX_PENDING_TIME if _pended_too_long(answer) else answer.get("SecondaryStatus", ""),
        created_at=answer.get("CreationTime"),
        started_at=answer.get("TrainingStartTime"),
        ended_at=answer.get("TrainingEndTime"),
        billable_seconds=int(answer.get("BillableTimeInSeconds", 0)),
        training_seconds=int(answer.get("TrainingTimeInSeconds", 0)),
        artifact_uri=_location(answer.get("ModelArtifacts", {}).get("S3ModelArtifacts"), prefix=uncompressed),
        # File by file, AWS does not say in which folder of the job's output the other results lie.
        output_uri=f"{folder}/" if uncompressed else f"{folder}/output.tar.gz",
        metrics={row["MetricName"]: float(row["Value"]) for row in answer.get("FinalMetricDataList", [])},
        interruptions=states.count(INTERRUPTED),
        restarts=states.count("Restarting"),
        instance_type=resources.get("SelectedInstanceType") or resources.get("InstanceType"),
        instance_count=resources.get("SelectedInstanceCount") or resources.get("InstanceCount"),
    )


def _location(uri: str | None, *, prefix: bool) -> str | None:
    """Return where the model is; a prefix ends with a slash, with which AWS does not always tell it."""
    return f"{uri.rstrip('/')}/" if uri and prefix else uri or None


def _pended_too_long(answer: Mapping[str, Any]) -> bool:
    """Tell whether a job was stopped for want of instances: AWS has no status of its own for that."""
    limit = answer.get("StoppingCondition", {}).get("MaxPendingTimeInSeconds")
    if answer["TrainingJobStatus"] != "Stopped" or answer.get("TrainingStartTime") or not limit:
        return False
    created, changed = answer.get("CreationTime"), answer.get("LastModifiedTime")
    return bool(created and changed and (changed - created).total_seconds() >= limit)


def _algorithm(spec: TrainingSpec) -> dict[str, Any]:
    if spec.image is None:
        raise SpecificationError(f"framework={spec.framework!r} is to become an image first: TrainingSpec.in_region")
    workers = ["--nproc-per-node", spec.processes_text]
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
    return {
        "ChannelName": channel.name,
        "DataSource": _data_source(channel),
        "InputMode": channel.input_mode.value,
        **_key("ContentType", channel.content_type),
    }


def _data_source(channel: Channel) -> dict[str, Any]:
    directory = channel.directory
    if directory is not None:
        mounted = {
            "FileSystemId": directory.file_system_id,
            "FileSystemAccessMode": channel.access.value,
            "FileSystemType": directory.type.value,
            "DirectoryPath": directory.path,
        }
        return {"FileSystemDataSource": mounted}
    source = {
        "S3DataType": channel.kind.value,
        "S3Uri": channel.uri,
        "S3DataDistributionType": channel.distribution.value,
        **_key("InstanceGroupNames", list(channel.instance_groups) or None),
    }
    return {"S3DataSource": source}


def _key(name: str, value: Any) -> dict[str, Any]:
    """Return the entry, or none where there is nothing to say: boto refuses None."""
    return {} if value is None else {name: value}
