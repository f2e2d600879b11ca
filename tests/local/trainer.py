"""Training jobs for tests: a request that is right, and ways to wait for what it does."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

from airflow_dlaws.local.process import LocalAws

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/dlaws-torch:2.13"
ROLE = "arn:aws:iam::123456789012:role/dlaws-sagemaker"
TERMINAL = {"Completed", "Failed", "Stopped"}


class Trainer:
    """Starts small training jobs in one bucket of one local AWS."""

    def __init__(self, aws: LocalAws, bucket: str) -> None:
        self.aws, self.bucket = aws, bucket
        self.sagemaker, self.s3 = aws.client("sagemaker"), aws.client("s3")

    def request(self, script: str = "true", *, instances: int = 1, **changes: Any) -> dict[str, Any]:
        """Return a CreateTrainingJob request that runs a shell script on each host."""
        request: dict[str, Any] = {
            "TrainingJobName": f"job-{uuid.uuid4().hex[:12]}",
            "RoleArn": ROLE,
            "AlgorithmSpecification": {
                "TrainingImage": IMAGE,
                "TrainingInputMode": "File",
                "ContainerEntrypoint": ["/bin/sh", "-c", script],
            },
            "OutputDataConfig": {"S3OutputPath": f"s3://{self.bucket}/out"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": instances, "VolumeSizeInGB": 10},
            "StoppingCondition": {"MaxRuntimeInSeconds": 300},
        }
        return {**request, **changes}

    def start(self, script: str = "true", **changes: Any) -> str:
        """Create a job and return its name."""
        request = self.request(script, **changes)
        self.sagemaker.create_training_job(**request)
        return str(request["TrainingJobName"])

    def run(self, script: str = "true", **changes: Any) -> dict[str, Any]:
        """Create a job, wait for its end, return its description."""
        return self.wait(self.start(script, **changes))

    def describe(self, name: str) -> dict[str, Any]:
        """Return the job's description."""
        return dict(self.sagemaker.describe_training_job(TrainingJobName=name))

    def wait(
        self, name: str, until: Callable[[dict[str, Any]], bool] | None = None, *, limit_s: float = 60
    ) -> dict[str, Any]:
        """Wait for the end of a job, or for something about it."""
        reached = until or (lambda job: job["TrainingJobStatus"] in TERMINAL)
        deadline = time.monotonic() + limit_s
        while not reached(job := self.describe(name)):
            assert time.monotonic() < deadline, f"still {job['SecondaryStatus']}: {job}"
            time.sleep(0.05)
        return job

    def put(self, key: str, body: str) -> str:
        """Store an object; return its location."""
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body.encode())
        return f"s3://{self.bucket}/{key}"

    def logs(self, name: str) -> dict[str, list[str]]:
        """Return the log lines of each host that has any."""
        logs = self.aws.client("logs")
        group = "/aws/sagemaker/TrainingJobs"
        try:
            streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")["logStreams"]
        except logs.exceptions.ResourceNotFoundException:  # until the first line of the first job
            return {}
        return {
            stream["logStreamName"].split("/")[1].rpartition("-")[0]: [
                event["message"]
                for event in logs.get_log_events(
                    logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True
                )["events"]
            ]
            for stream in streams
        }


def channel(name: str, uri: str, **source: Any) -> dict[str, Any]:
    """Return an input channel over an S3 prefix."""
    data = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated", **source}
    return {"ChannelName": name, "DataSource": {"S3DataSource": data}}
