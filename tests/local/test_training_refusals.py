"""What CreateTrainingJob refuses before anything is paid for."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from trainer import Trainer, channel

BUCKET = "s3://BUCKET"

REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"TrainingJobName": "my_job"}, "Value 'my_job' at 'trainingJobName' failed to satisfy constraint"),
    ({"RoleArn": "dlaws-sagemaker-without-arn"}, "'roleArn' failed to satisfy constraint"),
    ({"ResourceConfig": {"InstanceType": "ml.z9.large", "InstanceCount": 1}}, "ml.z9.large"),
    ({"ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 0}}, "InstanceCount of at least 1"),
    (
        {"OutputDataConfig": {"S3OutputPath": "s3://no-such-bucket-here/out"}},
        "S3OutputPath=s3://no-such-bucket-here/out",
    ),
    ({"InputDataConfig": [channel("train", "s3://no-such-bucket-here/x")]}, "No S3 objects found under S3 URL"),
    (
        {"CheckpointConfig": {"S3Uri": "s3://no-such-bucket-here/x"}},
        "CheckpointConfig.S3Uri=s3://no-such-bucket-here/x",
    ),
    ({"CheckpointConfig": {"S3Uri": BUCKET, "LocalPath": "/data"}}, "checkpoint path '/data'"),
    ({"CheckpointConfig": {"S3Uri": BUCKET, "LocalPath": "/opt/ml/../../etc"}}, "checkpoint path"),
    ({"EnableManagedSpotTraining": True}, "Invalid MaxWaitTimeInSeconds"),
    (
        {
            "EnableManagedSpotTraining": True,
            "StoppingCondition": {"MaxRuntimeInSeconds": 600, "MaxWaitTimeInSeconds": 60},
        },
        "Invalid MaxWaitTimeInSeconds",
    ),
    (
        {"StoppingCondition": {"MaxRuntimeInSeconds": 600, "MaxWaitTimeInSeconds": 900}},
        "only be set with EnableManagedSp",
    ),
    ({"StoppingCondition": {"MaxRuntimeInSeconds": 3_000_000}}, "over the limit of 2419200"),
    ({"InputDataConfig": [channel("a", BUCKET), channel("a", BUCKET)]}, "Channel names must be unique; \\['a'\\]"),
    ({"InputDataConfig": [channel("a", BUCKET) | {"InputMode": "Pipe"}]}, "does not support InputMode Pipe"),
    ({"InputDataConfig": [channel("a", BUCKET, S3DataType="AugmentedManifestFile")]}, "use S3Prefix or ManifestFile"),
    (
        {"InputDataConfig": [channel("a", BUCKET, S3DataType="ManifestFile") | {"InputMode": "FastFile"}]},
        "FastFile mode supports S3Prefix only",
    ),
    (
        {
            "InputDataConfig": [
                {
                    "ChannelName": "a",
                    "DataSource": {
                        "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": BUCKET},
                        "FileSystemDataSource": {
                            "FileSystemId": "fs-01234567",
                            "FileSystemAccessMode": "ro",
                            "FileSystemType": "EFS",
                            "DirectoryPath": "/x",
                        },
                    },
                }
            ]
        },
        "exactly one data source",
    ),
    ({"Tags": [{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}]}, "Duplicate tag keys"),
    ({"Tags": [{"Key": "aws:team", "Value": "1"}]}, "reserved for AWS"),
    ({"DebugHookConfig": {"S3OutputPath": BUCKET}}, "does not support DebugHookConfig"),
    ({"ProfilerConfig": {"S3OutputPath": BUCKET}}, "does not support ProfilerConfig"),
]


@pytest.mark.parametrize(("change", "words"), REFUSALS, ids=[words[:40] for _, words in REFUSALS])
def test_a_request_aws_would_refuse_is_refused(trainer: Trainer, change: dict[str, Any], words: str) -> None:
    request = trainer.request(**change)
    with pytest.raises(ClientError, match=words) as refused:
        trainer.sagemaker.create_training_job(**_with_bucket(request, trainer.bucket))
    assert refused.value.response["Error"]["Code"] == "ValidationException"
    with pytest.raises(ClientError):
        trainer.describe(request["TrainingJobName"])


def _with_bucket(value: Any, bucket: str) -> Any:
    if isinstance(value, dict):
        return {key: _with_bucket(item, bucket) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_bucket(item, bucket) for item in value]
    return value.replace("BUCKET", bucket) if isinstance(value, str) else value


@pytest.mark.parametrize(
    ("algorithm", "words"),
    [
        ({"TrainingInputMode": "File"}, "exactly one of TrainingImage and AlgorithmName"),
        ({"TrainingInputMode": "File", "TrainingImage": "i", "AlgorithmName": "a"}, "exactly one of TrainingImage"),
        ({"TrainingInputMode": "File", "AlgorithmName": "a"}, "does not support AlgorithmName"),
        ({"TrainingInputMode": "Pipe", "TrainingImage": "i"}, "does not support TrainingInputMode Pipe"),
        (
            {"TrainingInputMode": "Fast", "TrainingImage": "i"},
            "Member must satisfy enum value set: \\[Pipe, File, Fast",
        ),
        (
            {"TrainingInputMode": "File", "TrainingImage": "i", "MetricDefinitions": [{"Name": "m", "Regex": "("}]},
            "Metric 'm': '\\(' is no regular expression",
        ),
        (
            {"TrainingInputMode": "File", "TrainingImage": "public.ecr.aws/deep-learning-containers/pytorch:2.12"},
            "TrainingImageConfig with TrainingRepositoryAccessMode set to VPC must be provided",
        ),
        (
            {
                "TrainingInputMode": "File",
                "TrainingImage": "ghcr.io/team/torch:1",
                "TrainingImageConfig": {"TrainingRepositoryAccessMode": "Vpc"},
            },
            "VpcConfig must be provided",
        ),
    ],
)
def test_an_algorithm_that_cannot_run_is_refused(trainer: Trainer, algorithm: dict[str, Any], words: str) -> None:
    with pytest.raises(ClientError, match=words):
        trainer.sagemaker.create_training_job(**trainer.request(AlgorithmSpecification=algorithm))


def test_a_spot_job_with_the_right_times_runs(trainer: Trainer) -> None:
    job = trainer.run(
        EnableManagedSpotTraining=True, StoppingCondition={"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60}
    )
    assert job["TrainingJobStatus"] == "Completed"
    assert job["EnableManagedSpotTraining"] is True


def test_a_job_that_does_not_exist_is_not_found(trainer: Trainer) -> None:
    for operation in (trainer.sagemaker.describe_training_job, trainer.sagemaker.stop_training_job):
        with pytest.raises(ClientError, match="Requested resource not found") as refused:
            operation(TrainingJobName="no-such-job")
        assert refused.value.response["Error"]["Code"] == "ValidationException"


def test_a_finished_job_cannot_be_stopped(trainer: Trainer) -> None:
    name = trainer.run()["TrainingJobName"]
    with pytest.raises(ClientError, match="The request was rejected because the training job is in status Completed"):
        trainer.sagemaker.stop_training_job(TrainingJobName=name)
