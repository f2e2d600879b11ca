"""Processing jobs on SageMaker: a program over files. What all kinds of jobs share stands in `sagemaker_jobs`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from airflow_dlaws.jobs.channel import Channel
from airflow_dlaws.jobs.identity import TaskIdentity
from airflow_dlaws.jobs.phase import SAGEMAKER_PHASES
from airflow_dlaws.jobs.processing import INPUTS, OUTPUTS, ProcessingSpec
from airflow_dlaws.jobs.reference import JobStatus, Submission
from airflow_dlaws.launchers import preflight
from airflow_dlaws.launchers.listed_jobs import ListedJobs
from airflow_dlaws.launchers.protocol import Launcher
from airflow_dlaws.launchers.sagemaker_jobs import JobKind, JobOrder
from airflow_dlaws.storage import S3Uri

ENGINE = "sagemaker-processing"


def processing_status(answer: Mapping[str, Any]) -> JobStatus:
    """Read DescribeProcessingJob's answer; the machine is billed from the job's start to its end."""
    started, ended = answer.get("ProcessingStartTime"), answer.get("ProcessingEndTime")
    outputs = answer.get("ProcessingOutputConfig", {}).get("Outputs", [])
    # The service's reason names an exit code; what the program wrote to /opt/ml/output/message says why.
    reasons = filter(None, (answer.get("FailureReason"), answer.get("ExitMessage")))
    return JobStatus(
        phase=SAGEMAKER_PHASES[answer["ProcessingJobStatus"]],
        reason=" ".join(reasons),
        created_at=answer.get("CreationTime"),
        started_at=started,
        ended_at=ended,
        billable_seconds=round((ended - started).total_seconds()) if started and ended else 0,
        output_uri=outputs[0]["S3Output"]["S3Uri"] if outputs else None,
    )


PROCESSING = JobKind(
    engine=ENGINE,
    noun="processing job",
    method="processing_job",
    name_field="ProcessingJobName",
    arn_field="ProcessingJobArn",
    status=processing_status,
    missing=("Could not find requested job", "Could not find job to update"),
    log_group="/aws/sagemaker/ProcessingJobs",
    console="processing-jobs",
    list_method="list_processing_jobs",
    summaries="ProcessingJobSummaries",
)


class ProcessingLauncher(ListedJobs):
    """The processing jobs of one account and region."""

    kind = PROCESSING

    def submit(self, spec: ProcessingSpec, identity: TaskIdentity, *, stop_former: bool = True) -> Submission:
        """Start the task's job, or adopt the one an earlier try has started; see the protocol for what it raises."""
        preflight.check_instance_type(self._client("sagemaker"), spec.instance_type, "Processing")
        outputs = [S3Uri.parse(location) for location in spec.outputs.values()]
        order = JobOrder(request=processing_request(spec), identity=identity, tags=spec.tags, root=outputs[0].parent)
        if found := self.find(order):  # its data have been looked at; they may have gone since
            return found
        for output in outputs:
            preflight.check_bucket(self._client("s3"), "outputs", output)
        for channel in spec.inputs:
            preflight.check_channel(self._client("s3"), channel)
        return self.create_or_adopt(order, stop_former=stop_former)


def processing_request(spec: ProcessingSpec) -> dict[str, Any]:
    """Return the CreateProcessingJob request, without the name and tags that tell one task from another."""
    vpc = {"Subnets": list(spec.subnets), "SecurityGroupIds": list(spec.security_group_ids)}
    key = {"KmsKeyId": spec.kms_key_id} if spec.kms_key_id else {}
    outputs = [
        {
            "OutputName": name,
            "S3Output": {"S3Uri": location, "LocalPath": f"{OUTPUTS}/{name}", "S3UploadMode": "EndOfJob"},
        }
        for name, location in sorted(spec.outputs.items())
    ]
    cluster: dict[str, Any] = {
        "InstanceCount": 1,
        "InstanceType": spec.instance_type,
        "VolumeSizeInGB": spec.volume_size_gb,
    }
    if spec.kms_key_id:
        cluster["VolumeKmsKeyId"] = spec.kms_key_id
    return {
        "AppSpecification": {"ImageUri": spec.image, "ContainerEntrypoint": list(spec.command)},
        "Environment": dict(spec.environment),
        "NetworkConfig": {"EnableNetworkIsolation": spec.isolated, **({"VpcConfig": vpc} if spec.subnets else {})},
        "ProcessingInputs": [_input(channel) for channel in spec.inputs],
        "ProcessingOutputConfig": {"Outputs": outputs, **key},
        "ProcessingResources": {"ClusterConfig": cluster},
        "RoleArn": spec.role_arn,
        "StoppingCondition": {"MaxRuntimeInSeconds": spec.max_runtime_s},
    }


def _input(channel: Channel) -> dict[str, Any]:
    source = {
        "S3Uri": channel.uri,
        "LocalPath": f"{INPUTS}/{channel.name}",
        "S3DataType": channel.kind.value,
        "S3InputMode": "File",
        "S3DataDistributionType": "FullyReplicated",
    }
    return {"InputName": channel.name, "S3Input": source}


def _proof_of_conformance(client: Callable[[str], Any]) -> Launcher[ProcessingSpec]:
    """Have mypy check the protocol."""
    return ProcessingLauncher(client)
