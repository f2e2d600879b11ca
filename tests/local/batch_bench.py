"""Transform and processing jobs for tests: requests that are right, and ways to wait for what they do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from serving import ROLE, Clients, unique

#: Runs `sh`, which needs no torch.
PROCESSING_IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/dlaws-torch:2.13"
TERMINAL = {"Completed", "Failed", "Stopped"}


class Batches:
    """Starts small batch jobs in one bucket of one local AWS."""

    def __init__(self, clients: Clients, bucket: str) -> None:
        self.bucket = bucket
        self.sagemaker, self.s3, self.logs_client = clients.sagemaker, clients.s3, clients.logs

    def put(self, key: str, body: str | bytes) -> str:
        """Store an object; return its location."""
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body.encode() if isinstance(body, str) else body)
        return f"s3://{self.bucket}/{key}"

    def stored(self, prefix: str) -> dict[str, str]:
        """Return the objects under a prefix, by the rest of their keys."""
        rows = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix).get("Contents", [])
        bodies = {row["Key"]: self.s3.get_object(Bucket=self.bucket, Key=row["Key"])["Body"] for row in rows}
        return {key.removeprefix(prefix): body.read().decode() for key, body in bodies.items()}

    def transform_request(self, model: str, **changes: Any) -> dict[str, Any]:
        """Return a CreateTransformJob request over `in/` into `out/`; `source_` and `output_` members by prefix."""
        source = {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{self.bucket}/in/"}},
            "ContentType": "text/csv",
            "SplitType": "Line",
            **changes.pop("source", {}),
        }
        output = {"S3OutputPath": f"s3://{self.bucket}/out/", "Accept": "text/csv", **changes.pop("output", {})}
        request: dict[str, Any] = {
            "TransformJobName": unique("transform"),
            "ModelName": model,
            "TransformInput": source,
            "TransformOutput": output,
            "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        }
        return {**request, **changes}

    def transform(self, model: str, **changes: Any) -> dict[str, Any]:
        """Run a transform job to its end; return its description."""
        request = self.transform_request(model, **changes)
        self.sagemaker.create_transform_job(**request)
        return self.transformed(request["TransformJobName"])

    def transformed(self, name: str, reached: Callable[[dict[str, Any]], bool] | None = None) -> dict[str, Any]:
        """Wait for the end of a transform job, or for something about it."""
        return wait_for(
            lambda: self.sagemaker.describe_transform_job(TransformJobName=name),
            reached or (lambda job: job["TransformJobStatus"] in TERMINAL),
        )

    def processing_request(self, script: str, *, instances: int = 1, **changes: Any) -> dict[str, Any]:
        """Return a CreateProcessingJob request that runs a shell script on each host."""
        request: dict[str, Any] = {
            "ProcessingJobName": unique("processing"),
            "RoleArn": ROLE,
            "AppSpecification": {
                "ImageUri": PROCESSING_IMAGE,
                "ContainerEntrypoint": ["/bin/sh", "-c"],
                "ContainerArguments": [script],
            },
            "ProcessingResources": {
                "ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": instances, "VolumeSizeInGB": 5}
            },
        }
        return {**request, **changes}

    def process(self, script: str, **changes: Any) -> dict[str, Any]:
        """Run a processing job to its end; return its description."""
        request = self.processing_request(script, **changes)
        self.sagemaker.create_processing_job(**request)
        return self.processed(request["ProcessingJobName"])

    def processed(self, name: str, reached: Callable[[dict[str, Any]], bool] | None = None) -> dict[str, Any]:
        """Wait for the end of a processing job, or for something about it."""
        return wait_for(
            lambda: self.sagemaker.describe_processing_job(ProcessingJobName=name),
            reached or (lambda job: job["ProcessingJobStatus"] in TERMINAL),
        )

    def logs(self, kind: str, name: str) -> dict[str, list[str]]:
        """Return the log lines of a job ("TransformJobs", "ProcessingJobs"), by the rest of the stream's name."""
        group = f"/aws/sagemaker/{kind}"
        try:
            streams = self.logs_client.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")
        except self.logs_client.exceptions.ResourceNotFoundException:  # until the first line of the first job
            return {}
        return {
            stream["logStreamName"].removeprefix(f"{name}/"): [
                event["message"]
                for event in self.logs_client.get_log_events(
                    logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True
                )["events"]
            ]
            for stream in streams["logStreams"]
        }

    def data_log(self, name: str) -> list[str]:
        """Return the lines of a transform job's data logs, without their times."""
        lines = [
            line
            for stream, lines in self.logs("TransformJobs", name).items()
            if stream.endswith("/data-log")
            for line in lines
        ]
        return [line.partition(":[sagemaker logs]: ")[2] for line in lines]


def wait_for(ask: Callable[[], dict[str, Any]], reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Ask until it is reached."""
    deadline = time.monotonic() + 60
    while not reached(answer := ask()):
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)
    return dict(answer)


def processing_input(name: str, uri: str, **changes: Any) -> dict[str, Any]:
    """Return a processing input under /opt/ml/processing/NAME."""
    source = {"S3Uri": uri, "LocalPath": f"/opt/ml/processing/{name}", "S3DataType": "S3Prefix", "S3InputMode": "File"}
    return {"InputName": name, "S3Input": {**source, **changes}}


def processing_output(name: str, uri: str, mode: str = "EndOfJob") -> dict[str, Any]:
    """Return the configuration of one processing output under /opt/ml/processing/NAME."""
    output = {"S3Uri": uri, "LocalPath": f"/opt/ml/processing/{name}", "S3UploadMode": mode}
    return {"Outputs": [{"OutputName": name, "S3Output": output}]}
