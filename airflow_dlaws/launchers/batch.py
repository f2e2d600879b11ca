"""Training jobs that wait in an AWS Batch queue: service jobs, each of which becomes a SageMaker training job.

Batch brings what SageMaker has not: first in, first out within a capacity of the team's own, priorities, fair shares,
and waiting for capacity instead of failing. https://docs.aws.amazon.com/batch/latest/userguide/service-jobs.html

A queue holds any number of jobs of one name, so the name alone keeps nobody from starting a second one. Two things do:
the queue is asked for the name first (which finds jobs of any age), and the name is the client token of the request
(which keeps two tries of one moment apart).
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from airflow_dlaws.errors import DlawsError, NoSuchJob, ServiceRefused, ServiceUnavailable, SpecificationError
from airflow_dlaws.jobs.checkpoints import with_own_checkpoints
from airflow_dlaws.jobs.identity import NAME_LIMIT, TaskIdentity
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.queue import BatchQueue
from airflow_dlaws.jobs.reference import JobReference, JobStatus, Submission
from airflow_dlaws.jobs.spec import TrainingSpec
from airflow_dlaws.jobs.wire import to_json
from airflow_dlaws.launchers.aws_errors import error_code, error_text, service_errors
from airflow_dlaws.launchers.job_log import TRAINING_LOG_GROUP, read_log, read_tail
from airflow_dlaws.launchers.job_tags import DIGEST_TAG, job_tags
from airflow_dlaws.launchers.protocol import AskedJob, Launcher, LogCursor, LogPage
from airflow_dlaws.launchers.sagemaker import SageMakerLauncher
from airflow_dlaws.launchers.sagemaker_jobs import JobKind, JobOrder, SageMakerJobs
from airflow_dlaws.launchers.sagemaker_request import job_status, training_request
from airflow_dlaws.storage import ObjectStore, S3Uri

ENGINE = "batch"
#: Of queues and of the jobs in them.
JOB_TYPE = "SAGEMAKER_TRAINING"
#: Batch's verbs are others than SageMaker's: what the base class would call by this name, this one does itself.
_METHOD = "service_job"
_JOB_ARN = ":service-job/"
#: Beside the members of CreateTrainingJob in an order.
_QUEUE = "JobQueue"
#: Between a refused second submission and the first one's appearance in the queue's list.
_APPEARS_WITHIN_S = 15.0
_ENDED = frozenset({"SUCCEEDED", "FAILED"})
#: What Batch says of a queue or a job that there is not.
_MISSING = "does not exist"
#: What Batch puts before SageMaker's own words, by which failures are told apart.
_QUOTES = "Received status from SageMaker: "
SERVICE_STATES = {
    **dict.fromkeys(("SUBMITTED", "PENDING", "RUNNABLE", "SCHEDULED"), JobPhase.PENDING),
    **dict.fromkeys(("STARTING", "RUNNING"), JobPhase.RUNNING),
    "SUCCEEDED": JobPhase.SUCCEEDED,
    "FAILED": JobPhase.FAILED,
}


def batch_status(answer: Mapping[str, Any], training: JobStatus | None) -> JobStatus:
    """Read DescribeServiceJob's answer, with how its latest training job stands.

    The service job decides whether all is over: between two attempts of Batch the training job has failed, and the
    service job has not. Why it is over, and what it left behind, the training job tells.
    """
    state = str(answer["status"])
    if state not in _ENDED:
        # A state of the future is one in which the job has not ended: there are two in which it has.
        running = SERVICE_STATES.get(state, JobPhase.RUNNING)
        phase = JobPhase.STOPPING if answer.get("isTerminated") else running
        return JobStatus(phase=phase, detail=state, created_at=_moment(answer.get("createdAt")))
    if answer.get("isTerminated") and state != "SUCCEEDED":  # the request to end came too late to matter
        phase = JobPhase.STOPPED
    elif training is not None and training.terminal:
        phase = training.phase  # a training job over its time limit is Stopped there and FAILED here
    else:
        phase = SERVICE_STATES[state]
    told = training or JobStatus(phase=phase, ended_at=_moment(answer.get("stoppedAt")))
    words = "" if phase is JobPhase.SUCCEEDED else str(answer.get("statusReason", "")).removeprefix(_QUOTES)
    return replace(
        told,
        phase=phase,
        reason=told.reason or words,
        detail=told.detail or state,
        created_at=_moment(answer.get("createdAt")),
    )


SERVICE_JOB = JobKind(
    engine=ENGINE,
    noun="service job",
    method=_METHOD,
    name_field="jobName",
    arn_field="jobArn",
    status=lambda answer: batch_status(answer, None),
    missing=(),
    log_group=TRAINING_LOG_GROUP,
    console="jobs",
)


class BatchLauncher(SageMakerJobs):
    """The service jobs of one account and region."""

    kind = SERVICE_JOB
    #: Batch describes one job a call.
    portion = 1
    stops_with = ("batch", "s3")

    def __init__(self, client: Callable[[str], Any], queue: BatchQueue | None = None) -> None:
        self._queue = queue
        self._asking: BatchLauncher | None = None
        super().__init__(client)

    @property
    def asked_for(self) -> AskedJob | None:
        """See the protocol `Asking`: a submission goes through a launcher that knows its queue."""
        return self._asking.asked_for if self._asking else self._asked_for

    @asked_for.setter
    def asked_for(self, asked: AskedJob | None) -> None:
        self._asked_for = asked

    def submit(self, spec: TrainingSpec, identity: TaskIdentity, *, stop_former: bool = True) -> Submission:
        """Queue the task's job, or adopt the one an earlier try has queued; see the protocol for what it raises."""
        if spec.job_queue is None:
            raise SpecificationError(
                "a job of the engine 'batch' needs job_queue: the name of a job queue of type SAGEMAKER_TRAINING"
            )
        training = SageMakerLauncher(self._client)
        tasks = self._asking = BatchLauncher(self._client, spec.job_queue)
        code = training.code_of(spec)
        spec = with_own_checkpoints(spec, identity, code.bundle.digest)
        order = JobOrder(
            # The queue is part of what was asked for: in another queue, nobody would look for the job.
            request={_QUEUE: to_json(spec.job_queue), **training_request(spec, code.location)},
            identity=identity,
            tags=spec.tags,
            root=S3Uri.parse(spec.output_s3_uri),
        )
        try:
            training.publish(spec, code)
        except DlawsError:
            if found := tasks.find(order):
                return found
            raise
        return tasks.create_or_adopt(order, stop_former=stop_former)

    def group(self, reference: JobReference) -> str:
        """See the protocol `Together`: all service jobs of the account are asked for in turn."""
        return self.kind.noun

    def log_prefix(self, reference: JobReference) -> str:
        """Return how the training job's name begins, which Batch makes of the service job's, however long it waits.

        As in AWS's own example, AWSBatchmy-training-job88b610a69aa8380ca5b0a7aba3f81cb8.
        """
        return f"AWSBatch{reference.name}"[: NAME_LIMIT - 32]

    def console_page(self, reference: JobReference) -> str:
        """See the protocol: the page of the training job, or of all of them while it waits in the queue."""
        name = self.training_name(self._described(reference))
        return f"{self.kind.console}/{name}" if name else self.kind.console

    def describe(self, reference: JobReference) -> JobStatus:
        """Ask how the job stands: its place with Batch, and the training job it has become."""
        return self.read_status(self._described(reference))

    def read_status(self, answer: Mapping[str, Any]) -> JobStatus:
        """Read the answer of Describe, and ask SageMaker for what Batch does not tell of a job that has ended."""
        name = self.training_name(answer)
        ended = answer["status"] in _ENDED
        return batch_status(answer, job_status(self._training(name)) if name and ended else None)

    def description(self, name: str) -> dict[str, Any]:
        """Return the whole answer of Describe for the job of that name."""
        found = self._find(name)
        if found is None:
            raise ServiceUnavailable(f"the queue does not list {self.kind.noun} {name} yet; a retry looks again")
        return self.description_of(found)

    def request(self, reference: JobReference) -> dict[str, Any]:
        """Return what the training job was made from; see `Traceable`."""
        payload = json.loads(self._described(reference)["serviceRequestPayload"])
        return {name: value for name, value in payload.items() if name not in ("TrainingJobName", "Environment")}

    def stop(self, reference: JobReference) -> bool:
        """Take the job from the queue, or have its training job stopped; tell whether it had not ended."""
        job_id = self._id_of(reference)
        if job_id is None or self.description_of(job_id)["status"] in _ENDED:
            return False
        with service_errors(f"terminate {self.kind.noun} {reference.name}"):
            self._client("batch").terminate_service_job(jobId=job_id, reason="stopped by airflow-dlaws")
        return True

    def log_lines(self, reference: JobReference, cursor: LogCursor) -> LogPage:
        """Return what the training job's hosts have printed since `cursor`; nothing while it waits."""
        name = self.training_name(self._described(reference))
        if name is None:
            return LogPage(lines=(), cursor=cursor)
        return read_log(self._client("logs"), group=self.log_group, stream_prefix=f"{name}/", cursor=cursor)

    def log_tail(self, reference: JobReference, count: int) -> tuple[str, ...]:
        """Return the last lines of the training job."""
        name = self.training_name(self._described(reference))
        if name is None:
            return ()
        return read_tail(self._client("logs"), group=self.log_group, stream_prefix=f"{name}/", count=count)

    def noted(self, name: str) -> str:
        """Note the queue too: the next life may ask another one."""
        return f"{self._known_queue.name} {name}"

    def stop_noted(self, note: str, *, until_ended: bool) -> bool:
        """Stop the job in the queue that was noted. A queue that is gone has none: Batch deletes only empty ones."""
        queue, _, name = note.rpartition(" ")
        former = BatchLauncher(self._client, BatchQueue(name=queue))
        try:
            found = former._exists(name)
        except ServiceRefused as error:
            if _MISSING in str(error):
                return False
            raise
        return found and former.stop_named(name, until_ended=until_ended)

    def holder(self, reference: JobReference) -> str:
        """See the protocol `Held`. Noted in S3: Batch takes no tags for a service job that exists."""
        job_id = self._id_of(reference)
        if job_id is None:
            return ""
        store, uri = ObjectStore(self._client("s3")), _holder_uri(self.description_of(job_id))
        with service_errors(f"read {uri}"):
            return store.read(uri).decode() if store.exists(uri) else ""

    def _take_hold(self, name: str, arn: str) -> str:
        """Note that another try looks after the job from now on."""
        uri, holder = _holder_uri(self.description_of(_job_id(arn))), uuid.uuid4().hex
        with service_errors(f"write {uri}"):
            ObjectStore(self._client("s3")).write(uri, holder.encode())
        return holder

    def _create(self, name: str, order: JobOrder, attempt: int, holder: str) -> str | None:
        """Queue the job and return its ARN, or None where one of that name was queued before."""
        if self._find(name):
            return None
        tags = job_tags(order.tags, order.identity, order.digest, attempt)
        request = self._submission(name, order.request, tags)
        with service_errors(f"submit {self.kind.noun} {name}"):
            try:
                arn = str(self._client("batch").submit_service_job(**request)["jobArn"])
            except ClientError as error:
                if error_code(error) != "ClientException":
                    raise
                if "clientToken" in error_text(error):
                    self._await(name)
                elif self._find(name) is None:  # in whatever words a second submission is refused, the job is there
                    raise
                return None
        with suppress(DlawsError), service_errors(f"note who looks after {name}"):  # it runs: nothing may fail now
            uri = order.root / "tasks" / f"{_job_id(arn)}.holder"
            ObjectStore(self._client("s3")).write(uri, holder.encode())
        return arn

    def _submission(self, name: str, training: Mapping[str, Any], tags: list[dict[str, str]]) -> dict[str, Any]:
        queue = self._known_queue
        payload = {member: value for member, value in training.items() if member != _QUEUE}
        return {
            "jobName": name,
            "jobQueue": queue.name,
            "serviceJobType": JOB_TYPE,
            "serviceRequestPayload": json.dumps({"TrainingJobName": name, **payload, "Tags": tags}),
            "retryStrategy": {"attempts": queue.attempts},
            "tags": {tag["Key"]: tag["Value"] for tag in tags},
            "clientToken": name,
            **({"schedulingPriority": queue.priority} if queue.priority is not None else {}),
            **({"shareIdentifier": queue.share} if queue.share else {}),
            **({"quotaShareName": queue.quota_share} if queue.quota_share else {}),
        }

    def _await(self, name: str) -> None:
        """Wait until the queue lists a job that another try has queued a moment ago."""
        until = time.monotonic() + _APPEARS_WITHIN_S
        while self._find(name) is None:
            if time.monotonic() >= until:
                raise ServiceUnavailable(
                    f"{self.kind.noun} {name} was submitted before, and the queue does not list it"
                )
            time.sleep(0.5)

    def reference(self, name: str, arn: str) -> JobReference:
        """Return the reference of a job; of one that may not be there yet, its queue stands for its ARN."""
        return super().reference(name, arn or (self._queue.name if self._queue else ""))

    def _id_of(self, reference: JobReference) -> str | None:
        """Return the id of a job, None where its queue has none of that name."""
        if _JOB_ARN in reference.arn:
            return _job_id(reference.arn)
        place = BatchLauncher(self._client, BatchQueue(name=reference.arn)) if reference.arn else self
        return place._find(reference.name)

    def _exists(self, name: str) -> bool:
        return self._find(name) is not None

    def _digest(self, name: str, arn: str) -> str | None:
        tags: Mapping[str, str] = self.description_of(_job_id(arn)).get("tags", {})
        return tags.get(DIGEST_TAG)

    def _find(self, name: str) -> str | None:
        """Return the id of the queue's job of that name; the oldest, should there be several."""
        asked = {"jobQueue": self._known_queue.name, "filters": [{"name": "JOB_NAME", "values": [name]}]}
        found: list[dict[str, Any]] = []
        with service_errors(f"list the service jobs of queue {self._known_queue.name}"):
            while True:
                page = self._client("batch").list_service_jobs(**asked)
                found += [row for row in page["jobSummaryList"] if row["jobName"] == name]
                if not page.get("nextToken"):
                    break
                asked["nextToken"] = page["nextToken"]
        return str(min(found, key=lambda row: row.get("createdAt", 0))["jobId"]) if found else None

    def _described(self, reference: JobReference) -> dict[str, Any]:
        return self.description_of(_job_id(reference.arn))

    def description_of(self, job_id: str) -> dict[str, Any]:
        """Return the whole answer of Describe; see `describe` for what it raises."""
        with service_errors(f"describe {self.kind.noun} {job_id}"):
            try:
                return dict(self._client("batch").describe_service_job(jobId=job_id))
            except ClientError as error:
                if error_code(error) == "ClientException" and _MISSING in error_text(error):
                    raise NoSuchJob(f"cannot describe {self.kind.noun} {job_id}: {error_text(error)}") from error
                raise

    def training_name(self, answer: Mapping[str, Any]) -> str | None:
        """Return the name that Batch has given the latest training job, if there is one."""
        resource = (answer.get("latestAttempt") or {}).get("serviceResourceId")
        return str(resource["value"]).rpartition("/")[2] if resource else None

    def _training(self, name: str) -> dict[str, Any]:
        with service_errors(f"describe training job {name}"):
            return dict(self._client("sagemaker").describe_training_job(TrainingJobName=name))

    @property
    def _known_queue(self) -> BatchQueue:
        if self._queue is None:
            raise SpecificationError("a service job is found by its ARN, or by its name in a queue that is known")
        return self._queue


def _job_id(arn: str) -> str:
    return arn.rpartition("/")[2]


def _holder_uri(answer: Mapping[str, Any]) -> S3Uri:
    """Return where it is noted which try of its task looks after a job: beside the task's notes."""
    payload = json.loads(answer["serviceRequestPayload"])
    return S3Uri.parse(payload["OutputDataConfig"]["S3OutputPath"]) / "tasks" / f"{answer['jobId']}.holder"


def _moment(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None


def _proof_of_conformance(client: Callable[[str], Any]) -> Launcher[TrainingSpec]:
    """Have mypy check the protocol."""
    return BatchLauncher(client)
