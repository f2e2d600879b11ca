"""Service jobs of the local AWS Batch: queues in front of training jobs, through boto3."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError
from job_spec import IMAGE, ROLE

from airflow_dlaws.local.process import LocalAws

ENDED = ("SUCCEEDED", "FAILED")


class Queue:
    """One queue before an environment of its own."""

    def __init__(self, aws: LocalAws, bucket: str, *, instances: int) -> None:
        self.aws, self.bucket, self.name = aws, bucket, f"queue-{uuid.uuid4().hex[:8]}"
        self.batch, self.sagemaker = aws.client("batch"), aws.client("sagemaker")
        self.batch.create_service_environment(
            serviceEnvironmentName=self.name,
            serviceEnvironmentType="SAGEMAKER_TRAINING",
            capacityLimits=[{"maxCapacity": instances, "capacityUnit": "NUM_INSTANCES"}],
        )
        self.add_queue(self.name, priority=1)

    def add_queue(self, name: str, *, priority: int) -> None:
        self.batch.create_job_queue(
            jobQueueName=name,
            jobQueueType="SAGEMAKER_TRAINING",
            priority=priority,
            serviceEnvironmentOrder=[{"order": 1, "serviceEnvironment": self.name}],
        )

    def submit(self, command: str, *, queue: str = "", instances: int = 1, **changes: Any) -> str:
        """Queue a job that runs a shell command; return its id."""
        payload = {
            "TrainingJobName": "ignored",
            "AlgorithmSpecification": {
                "TrainingImage": IMAGE,
                "TrainingInputMode": "File",
                "ContainerEntrypoint": ["bash", "-c", command],
            },
            "RoleArn": ROLE,
            "OutputDataConfig": {"S3OutputPath": f"s3://{self.bucket}/models"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": instances, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        }
        request = {
            "jobName": f"job-{uuid.uuid4().hex[:8]}",
            "jobQueue": queue or self.name,
            "serviceJobType": "SAGEMAKER_TRAINING",
            "serviceRequestPayload": json.dumps(payload),
            **changes,
        }
        return str(self.batch.submit_service_job(**request)["jobId"])

    def describe(self, job_id: str) -> dict[str, Any]:
        return dict(self.batch.describe_service_job(jobId=job_id))

    def wait(self, job_id: str, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        until = time.monotonic() + 60
        while not reached(described := self.describe(job_id)):
            assert time.monotonic() < until, described
            time.sleep(0.05)
        return described

    def end(self, job_id: str) -> dict[str, Any]:
        return self.wait(job_id, lambda described: described["status"] in ENDED)

    def training(self, described: dict[str, Any]) -> dict[str, Any]:
        arn = described["latestAttempt"]["serviceResourceId"]["value"]
        return dict(self.sagemaker.describe_training_job(TrainingJobName=arn.rpartition("/")[2]))


@pytest.fixture
def queue(local_aws: LocalAws, bucket: str) -> Queue:
    """A queue with room for two instances."""
    return Queue(local_aws, bucket, instances=2)


def test_a_service_job_becomes_a_training_job_and_ends_with_it(queue: Queue) -> None:
    described = queue.end(queue.submit("exit 0", tags={"team": "a"}))
    assert described["status"] == "SUCCEEDED"
    assert described["tags"] == {"team": "a"}
    training = queue.training(described)
    assert training["TrainingJobStatus"] == "Completed"
    assert training["TrainingJobName"].startswith("AWSBatchjob-")
    assert len(training["TrainingJobName"]) <= 63
    assert described["createdAt"] <= described["scheduledAt"] <= described["stoppedAt"]


def test_a_job_waits_until_the_environment_has_room_and_nobody_overtakes_it(queue: Queue) -> None:
    first = queue.submit("sleep 60", instances=2)
    queue.wait(first, lambda described: described["status"] == "RUNNING")
    large, small = queue.submit("exit 0", instances=2), queue.submit("exit 0")
    for job_id in (large, small):
        queue.wait(job_id, lambda described: described["status"] == "RUNNABLE")
    queue.batch.terminate_service_job(jobId=first, reason="enough")
    assert queue.end(large)["status"] == queue.end(small)["status"] == "SUCCEEDED"
    assert queue.describe(large)["scheduledAt"] <= queue.describe(small)["scheduledAt"]
    stopped = queue.end(first)
    assert (stopped["status"], stopped["isTerminated"], stopped["statusReason"]) == ("FAILED", True, "enough")
    assert queue.training(stopped)["TrainingJobStatus"] == "Stopped"


def test_a_queue_of_higher_priority_comes_first(queue: Queue) -> None:
    urgent = f"{queue.name}-urgent"
    queue.add_queue(urgent, priority=9)
    blocker = queue.submit("sleep 60", instances=2)
    queue.wait(blocker, lambda described: described["status"] == "RUNNING")
    later = queue.submit("exit 0", instances=2)
    sooner = queue.submit("exit 0", instances=2, queue=urgent)
    queue.batch.terminate_service_job(jobId=blocker, reason="enough")
    queue.end(later)
    assert queue.end(sooner)["scheduledAt"] <= queue.describe(later)["scheduledAt"]


def test_a_failed_job_is_tried_again_as_often_as_asked(queue: Queue) -> None:
    described = queue.end(queue.submit("echo broken >&2; exit 3", retryStrategy={"attempts": 2}))
    assert described["status"] == "FAILED"
    assert len(described["attempts"]) == 2
    assert described["statusReason"].startswith("Received status from SageMaker: AlgorithmError")
    rules = [{"action": "EXIT", "onStatusReason": "Received status from SageMaker: AlgorithmError*"}]
    once = queue.end(queue.submit("exit 3", retryStrategy={"attempts": 5, "evaluateOnExit": rules}))
    assert len(once["attempts"]) == 1


def test_missing_capacity_is_waited_for_and_is_no_attempt(queue: Queue) -> None:
    queue.aws.order_fault(kind="capacity", target="CreateTrainingJob", times=2)
    try:
        described = queue.end(queue.submit("exit 0"))
    finally:
        queue.aws.clear_faults()
    assert (described["status"], len(described["attempts"])) == ("SUCCEEDED", 1)


def test_a_waiting_job_that_is_terminated_never_becomes_a_training_job(queue: Queue) -> None:
    blocker = queue.submit("sleep 60", instances=2)
    waiting = queue.submit("exit 0")
    queue.wait(waiting, lambda described: described["status"] == "RUNNABLE")
    queue.batch.terminate_service_job(jobId=waiting, reason="not wanted")
    described = queue.end(waiting)
    assert described["status"] == "FAILED"
    assert "latestAttempt" not in described
    queue.batch.terminate_service_job(jobId=blocker, reason="enough")


@pytest.mark.parametrize("payload", ["{}", '{"ResourceConfig": [2]}', '{"ResourceConfig": {"InstanceGroups": [{}]}}'])
def test_a_payload_is_judged_by_sagemaker_only_when_its_turn_comes(queue: Queue, payload: str) -> None:
    described = queue.end(queue.submit("exit 0", serviceRequestPayload=payload))
    assert described["status"] == "FAILED"
    assert "Exception" in described["statusReason"]


def test_a_client_token_is_taken_once(queue: Queue) -> None:
    token = uuid.uuid4().hex
    first = queue.submit("exit 0", jobName=token, clientToken=token)
    with pytest.raises(ClientError, match="clientToken") as refused:
        queue.submit("exit 0", jobName=token, clientToken=token)
    assert refused.value.response["Error"]["Code"] == "ClientException"
    asked = {"jobQueue": queue.name, "filters": [{"name": "JOB_NAME", "values": [token.upper()]}]}
    assert [row["jobId"] for row in queue.batch.list_service_jobs(**asked)["jobSummaryList"]] == [first]
    queue.end(first)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"jobQueue": "no-such-queue"}, "does not exist"),
        ({"jobName": "not.a.name"}, "jobName"),
        ({"serviceJobType": "OTHER"}, "enum value set"),
        ({"shareIdentifier": "team"}, "scheduling policy"),
        ({"retryStrategy": {"attempts": 11}}, "between 1 and 10"),
        ({"schedulingPriority": 10_000}, "between 0 and 9999"),
    ],
)
def test_a_bad_submission_is_refused_with_batchs_code(queue: Queue, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ClientError, match=words) as refused:
        queue.submit("exit 0", **changes)
    assert refused.value.response["Error"]["Code"] == "ClientException"
