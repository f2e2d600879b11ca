"""The request we send satisfies the service's own model, and the digest counts what the job does."""

from __future__ import annotations

import dataclasses
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.file_system import Access
from airflow_dlaws.jobs.identity import TaskIdentity, digest_of
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.spec import (
    CapacityPreference,
    Channel,
    ChannelKind,
    Distribution,
    InputMode,
    InstanceGroup,
    MlflowTracking,
    ModelPackageOutput,
    TrainingSpec,
)
from airflow_dlaws.launchers.job_tags import job_tags
from airflow_dlaws.launchers.sagemaker_request import job_status, training_request
from airflow_dlaws.storage import S3Uri

CODE = S3Uri("bucket", "models/code/0123/")
SPEC = TrainingSpec(
    image="123456789012.dkr.ecr.us-east-1.amazonaws.com/image:1",
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


def check_model(made: dict[str, Any]) -> None:
    """Hold a request to the service's own model."""
    shape = (
        botocore.session.get_session().get_service_model("sagemaker").operation_model("CreateTrainingJob").input_shape
    )
    tags = job_tags(SPEC.tags, IDENTITY, "d", 1)
    assert ParamValidator().validate({"TrainingJobName": "n", "Tags": tags, **made}, shape).generate_report() == ""


def test_the_request_satisfies_the_service_model() -> None:
    check_model(request())


PLAN = "arn:aws:sagemaker:us-east-1:123456789012:training-plan/march"
#: Each a specification, and what of the request it makes.
WISHES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"keep_alive_s": 600, "spot": False, "max_wait_s": None},
        {"ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 2, "KeepAlivePeriodInSeconds": 600}},
    ),
    (
        {"training_plan_arn": PLAN, "max_pending_s": 3600},
        {
            "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 2, "TrainingPlanArn": PLAN},
            "StoppingCondition": {
                "MaxRuntimeInSeconds": 86400, "MaxWaitTimeInSeconds": 90_000, "MaxPendingTimeInSeconds": 3600,
            },
        },
    ),
    (
        {
            "instance_type": None,
            "instance_count": 1,
            "processes_per_instance": None,
            "instance_groups": (
                InstanceGroup(name="trainers", instance_type="ml.p4d.24xlarge", instance_count=2),
                InstanceGroup(name="loaders", instance_type="ml.c5.xlarge"),
            ),
        },
        {
            "ResourceConfig": {
                "InstanceGroups": [
                    {"InstanceGroupName": "trainers", "InstanceType": "ml.p4d.24xlarge", "InstanceCount": 2},
                    {"InstanceGroupName": "loaders", "InstanceType": "ml.c5.xlarge", "InstanceCount": 1},
                ]
            }
        },
    ),
    (
        {
            "instance_type": None,
            "instance_count": 2,
            "spot": False,
            "max_wait_s": None,
            "capacity_preferences": (
                CapacityPreference(instance_type="ml.p5.48xlarge", training_plan_arn=PLAN),
                CapacityPreference(instance_type="ml.p4d.24xlarge"),
            ),
        },
        {
            "ResourceConfig": {
                "InstancePreferences": [
                    {"InstanceType": "ml.p5.48xlarge", "TrainingPlanArns": [PLAN]},
                    {"InstanceType": "ml.p4d.24xlarge"},
                ],
                "InstanceCount": 2,
            }
        },
    ),
    (
        {
            "instance_type": None,
            "instance_count": 1,
            "spot": False,
            "max_wait_s": None,
            "capacity_preferences": (CapacityPreference(instance_type="ml.p5.48xlarge", instance_count=2),),
        },
        {"ResourceConfig": {"InstancePreferences": [{"InstanceType": "ml.p5.48xlarge", "InstanceCount": 2}]}},
    ),
    ({"max_retry_attempts": 3}, {"RetryStrategy": {"MaximumRetryAttempts": 3}}),
    ({"network_isolation": True}, {"EnableNetworkIsolation": True}),
    ({"encrypt_traffic": True}, {"EnableInterContainerTrafficEncryption": True}),
    ({"infra_check": True}, {"InfraCheckConfig": {"EnableInfraCheck": True}}),
    ({"remote_debug": True}, {"RemoteDebugConfig": {"EnableRemoteDebug": True}}),
    (
        {"output_compression": "NONE"},
        {"OutputDataConfig": {"S3OutputPath": "s3://bucket/models", "KmsKeyId": "key", "CompressionType": "NONE"}},
    ),
    (
        {"mlflow": MlflowTracking(arn="arn:aws:sagemaker:us-east-1:123456789012:mlflow-app/app", run="r")},
        {
            "MlflowConfig": {
                "MlflowResourceArn": "arn:aws:sagemaker:us-east-1:123456789012:mlflow-app/app", "MlflowRunName": "r",
            }
        },
    ),
    (
        {
            "model_package": ModelPackageOutput(
                group_arn="arn:aws:sagemaker:us-east-1:123456789012:model-package-group/flights"
            )
        },
        {
            "ModelPackageConfig": {
                "ModelPackageGroupArn": "arn:aws:sagemaker:us-east-1:123456789012:model-package-group/flights"
            }
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(("change", "members"), WISHES, ids=[next(iter(change)) for change, _ in WISHES])
def test_each_wish_becomes_its_member_of_the_request(change: dict[str, Any], members: dict[str, Any]) -> None:
    made = request(dataclasses.replace(SPEC, **change))
    resources = {"VolumeSizeInGB": 30}
    for name, value in members.items():
        assert made[name] == ({**value, **resources} if name == "ResourceConfig" else value)
    check_model(made)


def test_a_request_says_nothing_that_was_not_asked_for() -> None:
    plain = {"retry", "infra", "remote", "mlflow", "modelpackage", "networkisolation", "traffic"}
    assert [name for name in request() if any(word in name.lower() for word in plain)] == []


def test_file_systems_become_channels_that_are_mounted() -> None:
    channels = (
        Channel(name="train", uri="fsx://fs-0123456789abcdef0/fsx/flights"),
        Channel(name="cache", uri="efs://fs-01234567/cache", access=Access.READ_WRITE),
    )
    made = request(dataclasses.replace(SPEC, channels=channels))
    check_model(made)
    assert [channel["DataSource"] for channel in made["InputDataConfig"][1:]] == [
        {
            "FileSystemDataSource": {
                "FileSystemId": "fs-0123456789abcdef0",
                "FileSystemAccessMode": "ro",
                "FileSystemType": "FSxLustre",
                "DirectoryPath": "/fsx/flights",
            }
        },
        {
            "FileSystemDataSource": {
                "FileSystemId": "fs-01234567",
                "FileSystemAccessMode": "rw",
                "FileSystemType": "EFS",
                "DirectoryPath": "/cache",
            }
        },
    ]


def test_a_channel_may_be_for_some_groups_of_hosts_only() -> None:
    groups = (
        InstanceGroup(name="a", instance_type="ml.g5.xlarge"),
        InstanceGroup(name="b", instance_type="ml.m5.large"),
    )
    channel = Channel(name="train", uri="s3://bucket/train", instance_groups=("a",))
    spec = dataclasses.replace(
        SPEC, instance_type=None, instance_count=1, processes_per_instance=None, instance_groups=groups,
        channels=(channel,),
    )  # fmt: skip
    source = request(spec)["InputDataConfig"][1]["DataSource"]["S3DataSource"]
    assert source["InstanceGroupNames"] == ["a"]
    assert request(spec)["AlgorithmSpecification"]["ContainerArguments"][:2] == ["--nproc-per-node", "1"]


def test_a_framework_must_have_become_an_image() -> None:
    spec = dataclasses.replace(SPEC, image=None, framework="pytorch", framework_version="2.13")
    with pytest.raises(SpecificationError, match="in_region"):
        request(spec)
    assert request(spec.in_region("us-east-1"))["AlgorithmSpecification"]["TrainingImage"].startswith(
        "763104351884.dkr"
    )


def test_what_the_service_has_chosen_is_read() -> None:
    answer = {
        "TrainingJobName": "n",
        "TrainingJobStatus": "InProgress",
        "ResourceConfig": {
            "InstancePreferences": [{"InstanceType": "ml.p5.48xlarge"}, {"InstanceType": "ml.p4d.24xlarge"}],
            "InstanceCount": 2,
            "SelectedInstanceType": "ml.p4d.24xlarge",
            "SelectedInstanceCount": 2,
        },
    }
    assert (job_status(answer).instance_type, job_status(answer).instance_count) == ("ml.p4d.24xlarge", 2)


@pytest.mark.parametrize("told", ["s3://bucket/models/n/output/model", "s3://bucket/models/n/output/model/"])
def test_a_model_stored_file_by_file_is_a_prefix_however_aws_tells_it(told: str) -> None:
    answer = {
        "TrainingJobName": "n",
        "TrainingJobStatus": "Completed",
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/models/", "CompressionType": "NONE"},
        "ModelArtifacts": {"S3ModelArtifacts": told},
    }
    status = job_status(answer)
    assert status.artifact_uri == "s3://bucket/models/n/output/model/"
    assert status.output_uri == "s3://bucket/models/n/output/"


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
    own = {"note": "two\nlines\tand a\u00a0space"}
    tags = {tag["Key"]: tag["Value"] for tag in job_tags(own, IDENTITY, "d", 2)}
    assert tags["note"] == "two_lines_and a\u00a0space"
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
