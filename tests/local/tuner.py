"""Tuning jobs for tests: a request that is right, and ways to wait for what it does."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

from airflow_dlaws.local.process import LocalAws

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/train-test:1"
ROLE = "arn:aws:iam::123456789012:role/dlaws-sagemaker"
TERMINAL = {"Completed", "Failed", "Stopped"}


def continuous(name: str, low: str, high: str, scaling: str = "Linear") -> dict[str, Any]:
    """Return ParameterRanges of one continuous hyperparameter."""
    row = {"Name": name, "MinValue": low, "MaxValue": high, "ScalingType": scaling}
    return {"ContinuousParameterRanges": [row]}


def categorical(**values: list[str]) -> dict[str, Any]:
    """Return ParameterRanges of categorical hyperparameters."""
    return {"CategoricalParameterRanges": [{"Name": name, "Values": texts} for name, texts in values.items()]}


class Tuner:
    """Starts small tuning jobs in one bucket of one local AWS."""

    def __init__(self, aws: LocalAws, bucket: str) -> None:
        self.aws, self.bucket = aws, bucket
        self.sagemaker, self.s3 = aws.client("sagemaker"), aws.client("s3")

    def request(
        self,
        *,
        ranges: dict[str, Any] | None = None,
        jobs: int | None = 2,
        parallel: int = 2,
        strategy: str = "Random",
        config: dict[str, Any] | None = None,
        static: dict[str, str] | None = None,
        definition: dict[str, Any] | None = None,
        **changes: Any,
    ) -> dict[str, Any]:
        """Return a CreateHyperParameterTuningJob request for the image `train-test`, which minimises `loss`."""
        limits = {"MaxParallelTrainingJobs": parallel, **({} if jobs is None else {"MaxNumberOfTrainingJobs": jobs})}
        return {
            "HyperParameterTuningJobName": f"tune-{uuid.uuid4().hex[:12]}",
            "HyperParameterTuningJobConfig": {
                "Strategy": strategy,
                "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
                "ResourceLimits": limits,
                "ParameterRanges": ranges or continuous("x", "0", "1"),
                "RandomSeed": 7,
                **(config or {}),
            },
            "TrainingJobDefinition": {
                "StaticHyperParameters": static or {},
                "AlgorithmSpecification": {
                    "TrainingImage": IMAGE,
                    "TrainingInputMode": "File",
                    "MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+|nan);"}],
                },
                "RoleArn": ROLE,
                "OutputDataConfig": {"S3OutputPath": f"s3://{self.bucket}/out"},
                "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
                "StoppingCondition": {"MaxRuntimeInSeconds": 300},
                **(definition or {}),
            },
            **changes,
        }

    def start(self, **changes: Any) -> str:
        """Create a tuning job and return its name."""
        request = self.request(**changes)
        self.sagemaker.create_hyper_parameter_tuning_job(**request)
        return str(request["HyperParameterTuningJobName"])

    def run(self, **changes: Any) -> dict[str, Any]:
        """Create a tuning job, wait for its end, return its description."""
        return self.wait(self.start(**changes))

    def describe(self, name: str) -> dict[str, Any]:
        """Return the description."""
        return dict(self.sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name))

    def wait(self, name: str, until: Callable[[dict[str, Any]], bool] | None = None) -> dict[str, Any]:
        """Wait for the end of a tuning job, or for something about it."""
        reached = until or (lambda job: job["HyperParameterTuningJobStatus"] in TERMINAL)
        deadline = time.monotonic() + 60
        while not reached(job := self.describe(name)):
            assert time.monotonic() < deadline, f"still {job}"
            time.sleep(0.05)
        return job

    def children(self, name: str, **asked: Any) -> list[dict[str, Any]]:
        """Return the rows of its training jobs, by name unless asked otherwise."""
        answer = self.sagemaker.list_training_jobs_for_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=name, MaxResults=100, **asked
        )
        return list(answer["TrainingJobSummaries"])

    def tried(self, name: str) -> list[dict[str, str]]:
        """Return the values that its training jobs tried, in the order of their launch."""
        return [child["TunedHyperParameters"] for child in self.children(name)]
