"""A service job as DescribeServiceJob shows it: what was submitted, its state, and the training jobs it became."""

from __future__ import annotations

import enum
import json
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from airflow_dlaws.local.training_job import TrainingJob, TrainingStatus


class ServiceJobStatus(enum.StrEnum):
    """Status of a service job, as far as this queue uses them.

    https://docs.aws.amazon.com/batch/latest/userguide/service-job-status.html
    """

    SUBMITTED = "SUBMITTED"
    RUNNABLE = "RUNNABLE"
    SCHEDULED = "SCHEDULED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


ENDED = frozenset({ServiceJobStatus.SUCCEEDED, ServiceJobStatus.FAILED})
_WITH_SAGEMAKER = frozenset({ServiceJobStatus.SCHEDULED, ServiceJobStatus.STARTING, ServiceJobStatus.RUNNING})
#: By the training job's SecondaryStatus.
_OF_TRAINING = {
    "Starting": ServiceJobStatus.SCHEDULED,
    "Pending": ServiceJobStatus.SCHEDULED,
    "Downloading": ServiceJobStatus.STARTING,
}
#: Echoed from the request where it has them.
_ECHOED = (
    "retryStrategy", "schedulingPriority", "serviceRequestPayload", "serviceJobType", "timeoutConfig", "tags",
)  # fmt: skip


class ServiceJob:
    """One job of one queue. Thread-safe."""

    def __init__(
        self, request: Mapping[str, Any], *, job_id: str, arn: str, queue_arn: str, now: Callable[[], datetime]
    ) -> None:
        self.request, self.id, self.arn, self.queue_arn = request, job_id, arn, queue_arn
        self.name: str = request["jobName"]
        self.created = now()
        self.status = ServiceJobStatus.SUBMITTED
        self.terminated = False
        self.training: TrainingJob | None = None
        self._now, self._lock = now, threading.RLock()
        self._reason = ""
        self._scheduled: datetime | None = None
        self._stopped: datetime | None = None
        #: Training jobs that count as attempts; one that found no capacity does not.
        self._attempts: list[TrainingJob] = []

    @property
    def instances(self) -> int:
        """How much of the environment's capacity it takes."""
        resources = self.payload.get("ResourceConfig", {})
        try:
            groups = resources.get("InstanceGroups", [])
            return int(resources.get("InstanceCount") or sum(group["InstanceCount"] for group in groups) or 1)
        except (AttributeError, KeyError, TypeError, ValueError):
            return 1  # nobody has looked at the payload yet; SageMaker will refuse it

    @property
    def payload(self) -> dict[str, Any]:
        """The CreateTrainingJob request as it was submitted; empty where that is no JSON object."""
        try:
            payload = json.loads(self.request["serviceRequestPayload"])
        except ValueError:
            return {}
        return payload if isinstance(payload, dict) else {}

    @property
    def waiting(self) -> bool:
        """Whether it waits for capacity."""
        return self.status is ServiceJobStatus.RUNNABLE

    @property
    def holds_capacity(self) -> bool:
        """Whether it has been passed on to SageMaker and has not ended."""
        return self.status in _WITH_SAGEMAKER

    def make_runnable(self) -> None:
        """Put the job among those that wait, for the first time or again; a terminated one ends instead."""
        with self._lock:
            if self.terminated:
                if self.status not in ENDED:
                    self.finish(ServiceJobStatus.FAILED, self._reason)
                return
            self.status, self.training = ServiceJobStatus.RUNNABLE, None

    def claim(self) -> bool:
        """Take a waiting job out of the queue; return False where it waits no more, for a user has terminated it."""
        with self._lock:
            if self.status is not ServiceJobStatus.RUNNABLE:
                return False
            self.status = ServiceJobStatus.SCHEDULED
            self._scheduled = self._scheduled or self._now()
            return True

    def pass_on(self, training: TrainingJob) -> None:
        """Note the training job that the service job has become; stop it if a user has terminated the job meanwhile."""
        with self._lock:
            self.training = training
            if self.terminated:
                training.request_stop()

    def follow(self) -> bool:
        """Take over how the training job stands; return whether that one has ended."""
        with self._lock:
            assert self.training is not None
            if self.training.status not in (TrainingStatus.IN_PROGRESS, TrainingStatus.STOPPING):
                return True
            self.status = _OF_TRAINING.get(self.training.secondary, ServiceJobStatus.RUNNING)
            return False

    def count_attempt(self, training: TrainingJob) -> int:
        """Note an ended attempt; return how many there were."""
        with self._lock:
            self._attempts.append(training)
            return len(self._attempts)

    def finish(self, status: ServiceJobStatus, reason: str) -> None:
        """End the job."""
        with self._lock:
            self.status, self._reason, self._stopped = status, reason, self._now()

    def terminate(self, reason: str) -> TrainingJob | None:
        """End a job that waits; return the training job that must be stopped for one that does not."""
        with self._lock:
            if self.status in ENDED:
                return None
            self.terminated, self._reason = True, reason
            if self.status in (ServiceJobStatus.SUBMITTED, ServiceJobStatus.RUNNABLE):
                self.finish(ServiceJobStatus.FAILED, reason)
            return self.training

    def reason_of(self, training: TrainingJob) -> str:
        """Return the status reason that an ended training job gives; a user's own reason comes first."""
        if self.terminated:
            return self._reason
        described = training.describe()
        return f"Received status from SageMaker: {described.get('FailureReason') or f'Training job {training.status}'}"

    def summary(self) -> dict[str, Any]:
        """Return the job's row in ListServiceJobs; absent members are None."""
        with self._lock:
            latest = self.training or (self._attempts[-1] if self._attempts else None)
            started = latest.started if latest else None
            return {
                "jobId": self.id,
                "jobArn": self.arn,
                "jobName": self.name,
                "serviceJobType": self.request["serviceJobType"],
                "status": str(self.status),
                "statusReason": self._reason or None,
                "isTerminated": self.terminated,
                "createdAt": milliseconds(self.created),
                "scheduledAt": milliseconds(self._scheduled),
                "startedAt": milliseconds(started),
                "stoppedAt": milliseconds(self._stopped),
                "latestAttempt": {"serviceResourceId": _resource(latest)} if latest else None,
                "capacityUsage": [{"capacityUnit": "NUM_INSTANCES", "quantity": float(self.instances)}],
            }

    def describe(self) -> dict[str, Any]:
        """Return the answer of DescribeServiceJob."""
        with self._lock:
            described = self.summary()
            return {
                **described,
                "startedAt": described["startedAt"] or 0,  # required by the service model
                "jobQueue": self.queue_arn,
                "attempts": [self._attempt(training) for training in self._attempts],
                **{member: self.request[member] for member in _ECHOED if member in self.request},
            }

    def _attempt(self, training: TrainingJob) -> dict[str, Any]:
        return {
            "serviceResourceId": _resource(training),
            "startedAt": milliseconds(training.started),
            "stoppedAt": milliseconds(training.ended),
            "statusReason": self.reason_of(training),
        }


def milliseconds(when: datetime | None) -> int | None:
    """Return a moment as Batch writes it."""
    return None if when is None else round(when.timestamp() * 1000)


def _resource(training: TrainingJob) -> dict[str, str]:
    # AWS's example has the name as it is; elsewhere SageMaker's ARNs are in lower case, and Describe minds the case.
    return {"name": "TrainingJobArn", "value": f"{training.arn.rpartition('/')[0]}/{training.name}"}
