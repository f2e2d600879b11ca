"""One task, one job: what all kinds of SageMaker jobs (training, tuning, transform) have in common.

A job's name is a function of the task that asks for it, so asking twice finds the first job: create first, and where
the name is taken, describe, compare the digest in the tag, and adopt.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from airflow_dlaws.errors import IdentityConflict, JobFailed, NoCapacity, NoSuchJob, ServiceRefused, ServiceUnavailable
from airflow_dlaws.jobs.identity import NAME_LIMIT, TaskIdentity, digest_of
from airflow_dlaws.jobs.outcome import Reuse, decide_reuse
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.reference import JobReference, JobStatus, Submission
from airflow_dlaws.launchers.aws_errors import error_code, error_text, service_errors
from airflow_dlaws.launchers.job_log import read_log, read_tail
from airflow_dlaws.launchers.job_tags import DIGEST_TAG, HOLDER_TAG, job_tags
from airflow_dlaws.launchers.lives import TaskLives
from airflow_dlaws.launchers.protocol import AskedJob, LogCursor, LogPage, describe_each
from airflow_dlaws.storage import ObjectStore, S3Uri

#: Jobs one task may start before it is cleared: a day of asking for instances (`jobs/shortage.py`), with four retries.
ATTEMPT_LIMIT = 300
#: Two minutes from SIGTERM to SIGKILL, then checkpoints and the model are uploaded.
STOP_LIMIT_S = 600
STOP_LOOK_S = 2.0
#: AWS names no figure; a job that somebody else has made by hand is refused that much later.
TAGS_WITHIN_S = 10.0
TAGS_LOOK_S = 1.0


@dataclass(frozen=True, kw_only=True)
class JobKind:
    """How one kind of job is spelt in SageMaker's API.

    :param engine: the name under which `launcher_for` knows the launcher of this kind.
    :param noun: in messages, "training job".
    :param method: ending of boto3's methods, "training_job" in `create_training_job`.
    :param name_field: member with the name; `arn_field` the one with the ARN.
    :param status: reads the answer of Describe.
    :param missing: what the service's refusal says where there is no job of that name.
    :param log_group: where the job's hosts print, each in a stream `<job>/<host>-<number>`.
    :param console: folder of the console page, "jobs" in `#/jobs/NAME`.
    :param list_method: boto3's method that lists the jobs, and the member of its answer with the rows; empty where jobs
        of this kind are not watched together.
    """

    engine: str
    noun: str
    method: str
    name_field: str
    arn_field: str
    status: Callable[[Mapping[str, Any]], JobStatus]
    missing: tuple[str, ...]
    log_group: str
    console: str
    name_limit: int = NAME_LIMIT
    list_method: str = ""
    summaries: str = ""


@dataclass(frozen=True, kw_only=True)
class JobOrder:
    """What a task asks for: the Create request without name and tags, its tags, and where the task's jobs are noted.

    :param tags: of the user; this package adds its own.
    :param root: where the task's jobs put their output.
    """

    request: Mapping[str, Any]
    identity: TaskIdentity
    tags: Mapping[str, str]
    root: S3Uri

    @property
    def digest(self) -> str:
        """Of what the job does; code counts through its content-addressed location."""
        return digest_of(self.request)

    @property
    def keeps_checkpoints(self) -> bool:
        """Whether the task's jobs go on from each other's checkpoints."""
        return "CheckpointConfig" in self.request


class SageMakerJobs:
    """The jobs of one kind, in one account and region. A launcher adds how a specification becomes a request.

    :param client: gives the boto3 client of a service by name ("sagemaker", "s3", "logs").
    """

    kind: JobKind
    #: The clients that `stop` and `holder` need.
    stops_with: tuple[str, ...] = ("sagemaker",)

    def __init__(self, client: Callable[[str], Any]) -> None:
        self._client = client
        #: See the protocol `Asking`.
        self.asked_for: AskedJob | None = None

    @property
    def region(self) -> str:
        """The region the jobs run in."""
        return str(self._client("sagemaker").meta.region_name)

    @property
    def log_group(self) -> str:
        """See the protocol."""
        return self.kind.log_group

    def log_prefix(self, reference: JobReference) -> str:
        """See the protocol."""
        return reference.name

    def console_page(self, reference: JobReference) -> str:
        """See the protocol."""
        return f"{self.kind.console}/{reference.name}"

    def describe(self, reference: JobReference) -> JobStatus:
        """Ask how the job stands."""
        return self.read_status(self.description(reference.name))

    def describe_many(self, references: Sequence[JobReference]) -> dict[JobReference, JobStatus]:
        """See the protocol; SageMaker describes one job a call."""
        return describe_each(self.describe, references)

    def read_status(self, answer: Mapping[str, Any]) -> JobStatus:
        """Read the answer of Describe; a launcher that must ask for more does so here."""
        return self.kind.status(answer)

    def description(self, name: str) -> dict[str, Any]:
        """Return the whole answer of Describe.

        :raises NoSuchJob: there is no job of that name.
        """
        action = f"describe {self.kind.noun} {name}"
        with service_errors(action):
            try:
                return dict(self._call("describe", name))
            except ClientError as error:
                if any(words in error_text(error) for words in self.kind.missing):
                    raise NoSuchJob(f"cannot {action}: {error_code(error)}: {error_text(error)}") from error
                raise

    def request(self, reference: JobReference) -> dict[str, Any]:
        """Return the members of the job's Create request that Describe tells; the environment may hold secrets."""
        answer = self.description(reference.name)
        operations = self._client("sagemaker").meta.method_to_api_mapping
        create = operations[f"create_{self.kind.method}"]
        members = self._client("sagemaker").meta.service_model.operation_model(create).input_shape.members
        left_out = {self.kind.name_field, "Tags", "Environment"}
        return {name: answer[name] for name in members if name in answer and name not in left_out}

    def stop(self, reference: JobReference) -> bool:
        """Ask SageMaker to stop the job (SIGTERM, two minutes, SIGKILL); tell whether it was still running."""
        with service_errors(f"stop {self.kind.noun} {reference.name}"):
            try:
                self._call("stop", reference.name)
            except ClientError as error:
                refused = error_code(error) == "ValidationException"
                if refused and any(words in error_text(error) for words in ("is in status", *self.kind.missing)):
                    return False
                raise
        return True

    def log_lines(self, reference: JobReference, cursor: LogCursor) -> LogPage:
        """Return what the job's hosts have printed since `cursor`."""
        prefix = f"{reference.name}/"
        return read_log(self._client("logs"), group=self.kind.log_group, stream_prefix=prefix, cursor=cursor)

    def log_tail(self, reference: JobReference, count: int) -> tuple[str, ...]:
        """Return the last `count` lines that the job's hosts have printed."""
        prefix = f"{reference.name}/"
        return read_tail(self._client("logs"), group=self.kind.log_group, stream_prefix=prefix, count=count)

    def create_or_adopt(self, order: JobOrder, *, stop_former: bool) -> Submission:
        """Start the task's job, or adopt the one an earlier try has started.

        :param stop_former: first stop what the task had started before it was cleared or changed, if it still runs.
        :raises IdentityConflict: the name is taken by a job made from something else.
        :raises JobFailed: an earlier try's job failed through its own fault, or too many were started.
        """
        lives = self._lives(order.root, order.identity, order.digest)
        if stop_former:
            lives.stop_former(self, self._client, until_ended=order.keeps_checkpoints)
        for attempt, name in self._names_from(order, lives.present_job()):
            lives.note(self.noted(name))
            holder = uuid.uuid4().hex
            if arn := self._ask_for(name, order, attempt, holder):
                return Submission(
                    reference=self.reference(name, arn),
                    status=JobStatus(phase=JobPhase.PENDING, created_at=datetime.now(UTC)),
                    adopted=False,
                    attempt=attempt,
                    holder=holder,
                )
            if found := self._take_up(name, order, attempt):
                return found
            if order.keeps_checkpoints:
                self._wait_until_ended(name)
        raise JobFailed(f"this task has started {ATTEMPT_LIMIT} jobs and none ended well: clear it to begin anew")

    def find(self, order: JobOrder) -> Submission | None:
        """Return the task's job if an earlier try has started one; start none."""
        for attempt, name in self._names_from(
            order, self._lives(order.root, order.identity, order.digest).present_job()
        ):
            if not self._exists(name):
                return None
            if found := self._adopt(name, order.digest, attempt):
                return found
        return None

    def holder(self, reference: JobReference) -> str:
        """See the protocol `Held`; nobody holds a job that is not there, or not yet."""
        try:
            arn = reference.arn or str(self.description(reference.name)[self.kind.arn_field])
        except NoSuchJob:
            return ""
        return self._tags(reference.name, arn).get(HOLDER_TAG, "")

    def reference(self, name: str, arn: str) -> JobReference:
        """Return the reference of a job of this kind."""
        return JobReference(engine=self.kind.engine, name=name, arn=arn, region=self.region)

    def _names(self, order: JobOrder) -> list[tuple[int, str]]:
        """Return the names of the task's jobs, the first attempt's first."""
        name, limit = order.identity.name, self.kind.name_limit
        attempts = range(1, ATTEMPT_LIMIT + 1)
        return [(attempt, name(order.digest, limit=limit, attempt=attempt)) for attempt in attempts]

    def _lives(self, root: S3Uri, identity: TaskIdentity, digest: str) -> TaskLives:
        return TaskLives(ObjectStore(self._client("s3")), root, identity, digest, self.kind.engine)

    def _names_from(self, order: JobOrder, noted: str | None) -> list[tuple[int, str]]:
        """Return the names from the last one noted on: earlier tries have found those before to be of no use.

        Jobs of those names may have been deleted since, and asking for one again would start a second job.
        """
        names = self._names(order)
        known = [index for index, (_, name) in enumerate(names) if self.noted(name) == noted]
        return names[known[0] :] if known else names

    def noted(self, name: str) -> str:
        """Return how a job that is about to be created is noted, so that a later life of the task can stop it."""
        return name

    def stop_noted(self, note: str, *, until_ended: bool) -> bool:
        """Stop the job that was noted so, should it still run; tell whether it did.

        :param until_ended: and wait until it has ended.
        """
        return self._exists(note) and self.stop_named(note, until_ended=until_ended)

    def stop_last(self, root: str, identity: TaskIdentity) -> str | None:
        """See the protocol `Noting`."""
        return self._lives(S3Uri.parse(root), identity, digest="").stop_last(self, self._client)

    def stop_named(self, name: str, *, until_ended: bool) -> bool:
        """Stop the job of that name; see `stop_noted`."""
        stopped = self.stop(self.reference(name, arn=""))
        if until_ended:
            self._wait_until_ended(name)
        return stopped

    def _wait_until_ended(self, name: str) -> None:
        """Wait until a job that is being stopped has written its last checkpoint: the next one begins with it.

        :raises ServiceUnavailable: it takes too long; a retry of the task waits on.
        """
        until = time.monotonic() + STOP_LIMIT_S
        while not self.read_status(self.description(name)).terminal:
            if time.monotonic() >= until:
                raise ServiceUnavailable(
                    f"{self.kind.noun} {name}, an earlier one of this task, has been stopping for {STOP_LIMIT_S} s and "
                    "may still write checkpoints: a retry of the task looks again"
                )
            time.sleep(STOP_LOOK_S)

    def _ask_for(self, name: str, order: JobOrder, attempt: int, holder: str) -> str | None:
        """Create the job, and remember meanwhile that there may be one: the answer may be lost on its way."""
        self.asked_for = AskedJob(reference=self.reference(name, arn=""), holder=holder)
        try:
            return self._create(name, order, attempt, holder)
        except (ServiceRefused, NoCapacity):
            self.asked_for = None
            raise

    def _take_up(self, name: str, order: JobOrder, attempt: int) -> Submission | None:
        """Adopt the job of that name, if there is any use in it; it is this task's, whoever of its tries created it.

        :raises ServiceUnavailable: what has just been created cannot be seen yet.
        """
        self.asked_for = AskedJob(reference=self.reference(name, arn=""))
        try:
            found = self._adopt(name, order.digest, attempt)
        except NoSuchJob as error:
            raise ServiceUnavailable(f"{error}; but the name is taken: a retry of the task looks again") from error
        except (IdentityConflict, JobFailed):
            self.asked_for = None  # it is not this task's, or has ended
            raise
        if found is None:
            self.asked_for = None
        return found

    def _create(self, name: str, order: JobOrder, attempt: int, holder: str) -> str | None:
        """Create the job and return its ARN, or None where the name is taken."""
        tags = job_tags({**order.tags, HOLDER_TAG: holder}, order.identity, order.digest, attempt)
        with service_errors(f"create {self.kind.noun} {name}"):
            try:
                return str(self._call("create", name, Tags=tags, **order.request)[self.kind.arn_field])
            except ClientError as error:
                if error_code(error) == "ResourceInUse":
                    return None
                raise

    def _adopt(self, name: str, digest: str, attempt: int) -> Submission | None:
        """Return the job of that name if the task can go on with it, None if it should start another one."""
        answer = self.description(name)
        arn = answer[self.kind.arn_field]
        self._check_digest(name, arn, digest)
        status = self.read_status(answer)
        reuse, reason = decide_reuse(status)
        if reuse is Reuse.GIVE_UP:
            raise JobFailed(f"job {name}, started by an earlier try of this task, is not run again: {reason}")
        if reuse is Reuse.START_ANOTHER:
            return None
        return Submission(
            reference=self.reference(name, arn),
            status=status,
            adopted=True,
            attempt=attempt,
            holder="" if status.terminal else self._take_hold(name, arn),
        )

    def _digest(self, name: str, arn: str) -> str | None:
        """Return the digest in the job's tag."""
        return self._tags(name, arn).get(DIGEST_TAG)

    def _take_hold(self, name: str, arn: str) -> str:
        """Note that another try looks after the job from now on: a former one that is killed late leaves it alone."""
        holder = uuid.uuid4().hex
        with service_errors(f"tag {self.kind.noun} {name}"):
            self._client("sagemaker").add_tags(ResourceArn=arn, Tags=[{"Key": HOLDER_TAG, "Value": holder}])
        return holder

    def _tags(self, name: str, arn: str) -> dict[str, str]:
        with service_errors(f"read the tags of {self.kind.noun} {name}"):
            tags = self._client("sagemaker").list_tags(ResourceArn=arn)["Tags"]
        return {tag["Key"]: tag["Value"] for tag in tags}

    def _check_digest(self, name: str, arn: str, digest: str) -> None:
        """Refuse a job made from something else. Tags may come into sight some seconds after the job they belong to."""
        until = time.monotonic() + TAGS_WITHIN_S
        while (found := self._digest(name, arn)) is None and time.monotonic() < until:
            time.sleep(TAGS_LOOK_S)
        if found != digest:
            raise IdentityConflict(
                f"the name {name} belongs to this task, but {self.kind.noun} {arn} was made from something else "
                f"(tag {DIGEST_TAG}={found!r}, expected {digest!r}): rename the task, or clear it to get another name"
            )

    def _exists(self, name: str) -> bool:
        try:
            self.description(name)
        except NoSuchJob:
            return False
        return True

    def _call(self, verb: str, name: str, **members: Any) -> Any:
        """Call the API on the job of that name."""
        method = getattr(self._client("sagemaker"), f"{verb}_{self.kind.method}")
        return method(**{self.kind.name_field: name}, **members)
