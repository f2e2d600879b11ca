"""The request we send satisfies the service's own model, and the digest counts what the job does."""

from __future__ import annotations

import dataclasses
from typing import Any

import botocore.session
from botocore.validate import ParamValidator

from airflow_dlaws.jobs.identity import TaskIdentity, digest_of
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.spec import Channel, ChannelKind, Distribution, InputMode, TrainingSpec
from airflow_dlaws.launchers.job_tags import job_tags
from airflow_dlaws.launchers.sagemaker_request import job_status, training_request
from airflow_dlaws.storage import S3Uri

CODE = S3Uri("bucket", "models/code/0123/")
SPEC = TrainingSpec(
    image="image:1",
    source="/code",
    entry_point="train.py",
    output_s3_uri="s3://bucket/models",
    role_arn="arn:aws:iam::123456789012:role/dlaws",
    instance_type="ml.g5.xlarge",
    instance_count=2,
    processes_per_instance=4,
    arguments=("--resume",),
    hyperparameters={"epochs": "3"},
    channels=(
        Channel(
            name="train", uri="s3://bucket/train", distribution=Distribution.SHARDED, input_mode=InputMode.FAST_FILE
        ),
        Channel(name="test", uri="s3://bucket/test.manifest", kind=ChannelKind.MANIFEST, content_type="text/csv"),
    ),
    spot=True,
    max_wait_s=90_000,
    checkpoint_s3_uri="s3://bucket/checkpoints",
    environment={"NCCL_DEBUG": "INFO"},
    metrics=("validation:loss",),
    subnets=("subnet-1",),
    security_group_ids=("sg-1",),
    kms_key_id="key",
)
IDENTITY = TaskIdentity(dag_id="retrain", run_id="manual__2026-11-23T00:00:00+00:00", task_id="train[ü]#")


def request(spec: TrainingSpec = SPEC) -> dict[str, Any]:
    return training_request(spec, CODE)


def test_the_request_satisfies_the_service_model() -> None:
    shape = (
        botocore.session.get_session().get_service_model("sagemaker").operation_model("CreateTrainingJob").input_shape
    )
    tags = job_tags(SPEC.tags, IDENTITY, "d", 1)
    assert ParamValidator().validate({"TrainingJobName": "n", "Tags": tags, **request()}, shape).generate_report() == ""


def test_the_container_starts_the_entry_program_with_the_processes_of_a_host() -> None:
    algorithm = request()["AlgorithmSpecification"]
    assert algorithm["ContainerEntrypoint"] == ["python3", "/opt/ml/input/data/code/dlaws_entry.py"]
    assert algorithm["ContainerArguments"] == ["--nproc-per-node", "4", "train.py", "--resume"]


def test_the_code_travels_as_the_first_channel() -> None:
    names = [channel["ChannelName"] for channel in request()["InputDataConfig"]]
    assert names == ["code", "train", "test"]


def test_a_job_always_has_a_limit() -> None:
    assert request()["StoppingCondition"] == {"MaxRuntimeInSeconds": 86400, "MaxWaitTimeInSeconds": 90_000}


def test_the_digest_counts_what_the_job_does_and_nothing_else() -> None:
    digest = digest_of(request())
    assert digest_of(request(dataclasses.replace(SPEC, tags={"team": "a"}))) == digest
    assert digest_of(request(dataclasses.replace(SPEC, hyperparameters={"epochs": "4"}))) != digest
    assert digest_of(training_request(SPEC, S3Uri("bucket", "models/code/4567/"))) != digest


def test_tags_find_the_job_and_hold_only_what_aws_allows() -> None:
    tags = {tag["Key"]: tag["Value"] for tag in job_tags(SPEC.tags, IDENTITY, "d", 2)}
    assert tags["dlaws:dag"] == "retrain"
    assert tags["dlaws:run"] == "manual__2026-11-23T00:00:00+00:00"
    assert tags["dlaws:task"] == "train_ü__"
    assert (tags["dlaws:digest"], tags["dlaws:attempt"]) == ("d", "2")


def test_an_answer_without_the_late_fields_is_read() -> None:
    status = job_status(
        {
            "TrainingJobName": "n",
            "TrainingJobStatus": "InProgress",
            "SecondaryStatus": "Starting",
            "OutputDataConfig": {"S3OutputPath": "s3://bucket/models/"},
        }
    )
    assert (status.phase, status.detail, status.artifact_uri) == (JobPhase.RUNNING, "Starting", None)
    assert status.output_uri == "s3://bucket/models/n/output/output.tar.gz"
