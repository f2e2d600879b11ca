"""Training jobs on SageMaker, through injected clients.

A job's name is a function of the task that asks for it, so asking twice finds the first job: create first, and where
the name is taken, describe, compare the digest in the tag, and adopt.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from airflow_dlaws.errors import DlawsError, IdentityConflict, JobFailed, ServiceRefused
from airflow_dlaws.jobs.identity import TaskIdentity
from airflow_dlaws.jobs.outcome import Reuse, decide_reuse
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.reference import JobReference, JobStatus, Submission
from airflow_dlaws.jobs.spec import TrainingSpec
from airflow_dlaws.launchers import preflight
from airflow_dlaws.launchers.aws_errors import error_code, error_text, service_errors
from airflow_dlaws.launchers.job_log import TRAINING_LOG_GROUP, read_log, read_tail
from airflow_dlaws.launchers.lives import TaskLives
from airflow_dlaws.launchers.protocol import Launcher, LogCursor, LogPage
from airflow_dlaws.launchers.sagemaker_request import (
    DIGEST_TAG,
    job_status,
    request_digest,
    request_tags,
    training_request,
)
from airflow_dlaws.launchers.source import read_source
from airflow_dlaws.storage import ObjectStore, S3Uri

log = logging.getLogger(__name__)

ENGINE = "sagemaker"
#: Jobs one task may start before it is cleared (after capacity failures and kills); far above any sane `retries`.
ATTEMPT_LIMIT = 50


class SageMakerLauncher:
    """The training jobs of one account and region.

    :param client: gives the boto3 client of a service by name ("sagemaker", "s3", "logs").
    """

    def __init__(self, client: Callable[[str], Any]) -> None:
        self._client = client

    @property
    def region(self) -> str:
        """The region the jobs run in."""
        return str(self._client("sagemaker").meta.region_name)

    def submit(self, spec: TrainingSpec, identity: TaskIdentity, *, stop_former: bool = True) -> Submission:
        """Start the task's job, or adopt the one an earlier try has started; see the protocol for what it raises."""
        preflight.check_instance_type(self._client("sagemaker"), spec.instance_type)
        destination = S3Uri.parse(spec.code_s3_uri or spec.output_s3_uri.rstrip("/") + "/code")
        bundle = read_source(self._client("s3"), source=spec.source, entry_point=spec.entry_point)
        request = training_request(spec, bundle.location(destination))
        try:
            preflight.check_locations(self._client("s3"), spec)
            bundle.publish(self._client("s3"), destination)
        except DlawsError:
            # Inputs may have gone since an earlier try started the job: that job is still this task's.
            if found := self._find(request, spec, identity):
                return found
            raise
        root = S3Uri.parse(spec.output_s3_uri)
        lives = TaskLives(ObjectStore(self._client("s3")), root, identity, request_digest(request))
        if stop_former:
            self._stop_former(lives)
        return self._create_or_adopt(request, spec, identity, lives)

    def describe(self, reference: JobReference) -> JobStatus:
        """Ask how the job stands."""
        return job_status(self._describe(reference.name))

    def stop(self, reference: JobReference) -> bool:
        """Ask SageMaker to stop the job (SIGTERM, two minutes, SIGKILL); tell whether it was still running."""
        with service_errors(f"stop training job {reference.name}"):
            try:
                self._client("sagemaker").stop_training_job(TrainingJobName=reference.name)
            except ClientError as error:
                if error_code(error) == "ValidationException" and "is in status" in error_text(error):
                    return False
                raise
        return True

    def log_lines(self, reference: JobReference, cursor: LogCursor) -> LogPage:
        """Return what the job's hosts have printed since `cursor`."""
        return read_log(
            self._client("logs"), group=TRAINING_LOG_GROUP, stream_prefix=f"{reference.name}/", cursor=cursor
        )

    def log_tail(self, reference: JobReference, count: int) -> tuple[str, ...]:
        """Return the last `count` lines that the job's hosts have printed."""
        return read_tail(
            self._client("logs"), group=TRAINING_LOG_GROUP, stream_prefix=f"{reference.name}/", count=count
        )

    def _create_or_adopt(
        self, request: dict[str, Any], spec: TrainingSpec, identity: TaskIdentity, lives: TaskLives
    ) -> Submission:
        digest = request_digest(request)
        for attempt in range(1, ATTEMPT_LIMIT + 1):
            name = identity.name(digest, attempt=attempt)
            tags = request_tags(spec, identity, digest, attempt)
            lives.note(name)
            arn = self._create({"TrainingJobName": name, "Tags": tags, **request})
            if arn:
                status = JobStatus(phase=JobPhase.PENDING, created_at=datetime.now(UTC))
                return Submission(reference=self._reference(name, arn), status=status, adopted=False, attempt=attempt)
            if found := self._adopt(name, digest, attempt):
                return found
        raise JobFailed(f"this task has started {ATTEMPT_LIMIT} jobs and none ended well: clear it to begin anew")

    def _stop_former(self, lives: TaskLives) -> None:
        """Stop what the task had started before it was cleared or changed, should it still run."""
        former = lives.former_job()
        if former is None or not self._exists(former):
            return
        if self.stop(self._reference(former, arn="")):
            log.warning("stopped job %s, which this task had started before it was cleared or changed", former)

    def _find(self, request: dict[str, Any], spec: TrainingSpec, identity: TaskIdentity) -> Submission | None:
        """Return the task's job if an earlier try has started one; start none."""
        digest = request_digest(request)
        for attempt in range(1, ATTEMPT_LIMIT + 1):
            name = identity.name(digest, attempt=attempt)
            if not self._exists(name):
                return None
            if found := self._adopt(name, digest, attempt):
                return found
        return None

    def _create(self, request: dict[str, Any]) -> str | None:
        """Create the job and return its ARN, or None where the name is taken."""
        with service_errors(f"create training job {request['TrainingJobName']}"):
            try:
                return str(self._client("sagemaker").create_training_job(**request)["TrainingJobArn"])
            except ClientError as error:
                if error_code(error) == "ResourceInUse":
                    return None
                raise

    def _adopt(self, name: str, digest: str, attempt: int) -> Submission | None:
        """Return the job of that name if the task can go on with it, None if it should start another one."""
        answer = self._describe(name)
        self._check_digest(name, answer["TrainingJobArn"], digest)
        status = job_status(answer)
        reuse, reason = decide_reuse(status)
        if reuse is Reuse.GIVE_UP:
            raise JobFailed(f"job {name}, started by an earlier try of this task, is not run again: {reason}")
        if reuse is Reuse.START_ANOTHER:
            return None
        reference = self._reference(name, answer["TrainingJobArn"])
        return Submission(reference=reference, status=status, adopted=True, attempt=attempt)

    def _check_digest(self, name: str, arn: str, digest: str) -> None:
        with service_errors(f"read the tags of training job {name}"):
            tags = self._client("sagemaker").list_tags(ResourceArn=arn)["Tags"]
        found = {tag["Key"]: tag["Value"] for tag in tags}.get(DIGEST_TAG)
        if found != digest:
            raise IdentityConflict(
                f"the name {name} belongs to this task, but training job {arn} was made from something else "
                f"(tag {DIGEST_TAG}={found!r}, expected {digest!r}): rename the task, or clear it to get another name"
            )

    def _exists(self, name: str) -> bool:
        try:
            self._describe(name)
        except ServiceRefused as error:
            if "not found" in str(error):
                return False
            raise
        return True

    def _describe(self, name: str) -> dict[str, Any]:
        with service_errors(f"describe training job {name}"):
            return dict(self._client("sagemaker").describe_training_job(TrainingJobName=name))

    def _reference(self, name: str, arn: str) -> JobReference:
        return JobReference(engine=ENGINE, name=name, arn=arn, region=self.region)


def _proof_of_conformance(client: Callable[[str], Any]) -> Launcher:
    """Have mypy check the protocol."""
    return SageMakerLauncher(client)
