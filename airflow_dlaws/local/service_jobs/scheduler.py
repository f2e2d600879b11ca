"""Takes waiting service jobs to SageMaker while their environment has room, and follows them to their end."""

from __future__ import annotations

import fnmatch
import hashlib
import threading
from typing import Any

from airflow_dlaws.local import model_codec, service_model
from airflow_dlaws.local.context import LocalContext, RequestContext
from airflow_dlaws.local.errors import ServiceError
from airflow_dlaws.local.service_jobs.job import ServiceJob, ServiceJobStatus
from airflow_dlaws.local.service_jobs.queues import QueueBook
from airflow_dlaws.local.training import TrainingJobs
from airflow_dlaws.local.training_job import TrainingJob, TrainingStatus

_LOOK_SECONDS = 0.05
_CLOSE_SECONDS = 5.0
_TRAINING_NAME_LIMIT = 63
_CREATE = "CreateTrainingJob"


class Scheduler:
    """The service jobs of one region, and the thread that moves them."""

    def __init__(self, context: LocalContext, training: TrainingJobs, book: QueueBook, region: str) -> None:
        self._context, self._training, self._book = context, training, book
        self._request = RequestContext(region=region)
        self._lock = threading.Lock()
        self._jobs: dict[str, ServiceJob] = {}
        self._by_token: dict[str, ServiceJob] = {}
        self._thread: threading.Thread | None = None

    def submit(self, job: ServiceJob) -> None:
        """Queue a job.

        :raises ServiceError: its client token was used before. AWS: "these requests are considered the same request and
            the second request is rejected"; the words of the refusal are assumed.
        """
        token = job.request.get("clientToken")
        with self._lock:
            if token and token in self._by_token:
                raise ServiceError("ClientException", f"A request with the clientToken {token} was submitted before")
            if token:
                self._by_token[token] = job
            self._jobs[job.id] = job
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="service jobs", daemon=True)
                self._thread.start()

    def get(self, job_id: str) -> ServiceJob | None:
        """Return the job of that id or ARN."""
        with self._lock:
            return self._jobs.get(job_id.rpartition("/")[2])

    def jobs(self) -> list[ServiceJob]:
        """Return all jobs, the newest first."""
        with self._lock:
            return list(reversed(self._jobs.values()))

    def terminate(self, job: ServiceJob, reason: str) -> None:
        """End a job, and the training job it has become."""
        training = job.terminate(reason)
        if training is not None:
            training.request_stop()

    def close(self) -> None:
        """End; the context's `closing` is set."""
        if self._thread:
            self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        while not self._context.closing.wait(_LOOK_SECONDS):
            for job in self.jobs():
                if job.holds_capacity and job.follow():
                    self._end_attempt(job)
                elif job.status is ServiceJobStatus.SUBMITTED:
                    job.make_runnable()
            self._start_waiting()

    def _start_waiting(self) -> None:
        """Start what fits: of queues with a higher priority first, and first in, first out."""
        waiting = [job for job in reversed(self.jobs()) if job.waiting]
        waiting.sort(key=lambda job: -self._book.queue(job.queue_arn)["priority"])
        blocked: set[str] = set()
        for job in waiting:
            environment = self._environment(job)
            name = environment["serviceEnvironmentName"]
            free = environment["capacityLimits"][0]["maxCapacity"] - self._used(name)
            if name in blocked or job.instances > free:
                blocked.add(name)  # first in, first out: a smaller job does not overtake
                continue
            self._pass_on(job)

    def _environment(self, job: ServiceJob) -> dict[str, Any]:
        queue = self._book.queue(job.queue_arn)
        return self._book.environment(queue["serviceEnvironmentOrder"][0]["serviceEnvironment"])

    def _used(self, environment: str) -> int:
        running = [job for job in self.jobs() if job.holds_capacity]
        return sum(job.instances for job in running if self._environment(job)["serviceEnvironmentName"] == environment)

    def _pass_on(self, job: ServiceJob) -> None:
        """Ask SageMaker for the training job; that the payload is wrong shows only now."""
        if not job.claim():
            return
        try:
            job.pass_on(self._start_training(job))
        except ServiceError as error:
            job.finish(ServiceJobStatus.FAILED, f"Received status from SageMaker: {error.code}: {error.message}")

    def _start_training(self, job: ServiceJob) -> TrainingJob:
        unique = hashlib.sha256(f"{job.id}/{self._context.now().timestamp()}".encode()).hexdigest()[:32]
        # As in AWS's example, AWSBatchmy-training-job88b610a69aa8380ca5b0a7aba3f81cb8.
        name = f"AWSBatch{job.name}"[: _TRAINING_NAME_LIMIT - len(unique)] + unique
        shape = service_model.load("sagemaker").operation_model(_CREATE).input_shape
        parameters = model_codec.decode(shape, {**job.payload, "TrainingJobName": name})
        service_model.check(shape, parameters)
        return self._training.start(parameters, self._request)

    def _end_attempt(self, job: ServiceJob) -> None:
        training = job.training
        assert training is not None
        reason = job.reason_of(training)
        if training.status is TrainingStatus.COMPLETED:
            job.count_attempt(training)
            job.finish(ServiceJobStatus.SUCCEEDED, reason)
        elif not job.terminated and "capacity" in reason.lower():
            job.make_runnable()  # "These capacity-based retries don't consume your configured retry attempts."
        elif job.count_attempt(training) < _attempts(job) and not job.terminated and _retries(job, reason):
            job.make_runnable()
        else:
            job.finish(ServiceJobStatus.FAILED, reason)


def _attempts(job: ServiceJob) -> int:
    return int(job.request.get("retryStrategy", {}).get("attempts", 1))


def _retries(job: ServiceJob, reason: str) -> bool:
    """Tell whether the retry strategy tries again: the first rule that matches decides; without one, it does."""
    for rule in job.request.get("retryStrategy", {}).get("evaluateOnExit", []):
        if fnmatch.fnmatchcase(reason, rule.get("onStatusReason", "*")):
            return bool(rule.get("action") == "RETRY")
    return True
