"""What the Airflow side asks of an engine that runs jobs: SageMaker, a Slurm cluster, and whoever follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from airflow_dlaws.errors import NoSuchJob
from airflow_dlaws.jobs.identity import TaskIdentity
from airflow_dlaws.jobs.reference import JobReference, JobStatus, Submission
from airflow_dlaws.launchers.job_list import ListPage, Stretch

#: What kind of job an engine runs: TrainingSpec, for one.
SpecT = TypeVar("SpecT", contravariant=True)


@dataclass(frozen=True, kw_only=True)
class LogCursor:
    """How far a job's log has been read.

    :param since_ms: milliseconds since the epoch, where the log is made of events; `seen` those of the last moments.
    :param streams: the log streams that have been read so far; empty means all.
    :param others_since_ms: how far all others have been read, with `others_seen`.
    :param offset: bytes, where the log is a file.
    """

    since_ms: int = 0
    seen: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    others_since_ms: int = 0
    others_seen: tuple[str, ...] = ()
    offset: int = 0


@dataclass(frozen=True, kw_only=True)
class LogPage:
    """The lines since a cursor, in order of time over all hosts, and the cursor behind them.

    :param streams: where the lines came from.
    :param complete: whether there was no more to be read.
    """

    lines: tuple[str, ...]
    cursor: LogCursor
    streams: tuple[str, ...] = ()
    complete: bool = True


class Launcher(Protocol[SpecT]):
    """One engine, reached through injected clients. Every method may raise ServiceUnavailable or ServiceRefused."""

    @property
    def log_group(self) -> str:
        """The CloudWatch log group the jobs print to; empty where the engine keeps its logs elsewhere."""

    def log_prefix(self, reference: JobReference) -> str:
        """Return how the names of the job's log streams begin."""

    def console_page(self, reference: JobReference) -> str:
        """Return the job's page in the SageMaker console, such as `jobs/NAME`; empty where there is none."""

    def submit(self, spec: SpecT, identity: TaskIdentity, *, stop_former: bool = True) -> Submission:
        """Start the job that belongs to the task, or adopt it where an earlier try has started it.

        :param stop_former: first stop what the task had started before it was cleared or changed, if it still runs.
        :raises SpecificationError: what was asked for cannot work (no such bucket, no data, no such instance type).
        :raises IdentityConflict: the job's name is taken by a job made from something else.
        :raises JobFailed: an earlier try's job failed through its own fault; another would fail the same way.
        """

    def describe(self, reference: JobReference) -> JobStatus:
        """Ask how the job stands.

        :raises NoSuchJob: there is none.
        """

    def describe_many(self, references: Sequence[JobReference]) -> Mapping[JobReference, JobStatus]:
        """Ask how jobs stand, with as few calls as the engine allows; jobs that do not exist are left out."""

    def stop(self, reference: JobReference) -> bool:
        """Ask the engine to stop the job; tell whether it was still running."""

    def log_lines(self, reference: JobReference, cursor: LogCursor) -> LogPage:
        """Return what the job has printed since `cursor`."""

    def log_tail(self, reference: JobReference, count: int) -> tuple[str, ...]:
        """Return the last `count` lines the job has printed."""


@dataclass(frozen=True, kw_only=True)
class LogTask:
    """One job's part of a shared read: its streams, and how far it was read."""

    name: str
    streams: tuple[str, ...]
    cursor: LogCursor


@dataclass(frozen=True, kw_only=True)
class SharedLogPage:
    """What a shared read gave for each job, and the calls of the API that it took."""

    pages: Mapping[str, LogPage]
    calls: int = 1


@runtime_checkable
class Watchable(Protocol):
    """An engine whose jobs can be watched together: the service lists them, and their logs lie in one group."""

    def describe(self, reference: JobReference) -> JobStatus:
        """See `Launcher`."""

    def log_lines(self, reference: JobReference, cursor: LogCursor) -> LogPage:
        """See `Launcher`."""

    def list_page(self, stretch: Stretch) -> ListPage:
        """Return one page of all jobs of the account, others' too."""

    def read_logs(self, tasks: Sequence[LogTask], now_ms: int) -> SharedLogPage:
        """Read the logs of several jobs at once; `now_ms` is the time, in milliseconds since the epoch."""

    def recent_streams(self, token: str | None = None) -> tuple[tuple[str, ...], str | None]:
        """Return the names of the log streams written to last, whoever's they are, and the token of the next page."""


@runtime_checkable
class Together(Protocol):
    """An engine without a list of jobs: they are looked at one portion after the other, and not each by itself."""

    #: How many jobs `describe_many` takes in one question.
    portion: int

    @property
    def log_group(self) -> str:
        """See `Launcher`."""

    def group(self, reference: JobReference) -> str:
        """Return what stands for all jobs that one question can be about: a cluster, an account."""

    def describe_many(self, references: Sequence[JobReference]) -> Mapping[JobReference, JobStatus]:
        """See `Launcher`."""

    def log_lines(self, reference: JobReference, cursor: LogCursor) -> LogPage:
        """See `Launcher`."""


@runtime_checkable
class Held(Protocol):
    """An engine whose jobs tell which try of their task has created or adopted them last."""

    def holder(self, reference: JobReference) -> str:
        """Return the `holder` of the last submission that found the job; empty where nothing is noted."""


@dataclass(frozen=True, kw_only=True)
class AskedJob:
    """A job that there may be: its engine has been asked for it, or has said that its name is taken.

    :param holder: mark of this try on the job, if this try has created it; see `Submission`.
    """

    reference: JobReference
    holder: str = ""


@runtime_checkable
class Asking(Protocol):
    """An engine that tells, while `submit` is under way or has failed, which job may run because of it."""

    asked_for: AskedJob | None


@runtime_checkable
class Noting(Protocol):
    """An engine that notes in S3 which jobs a task has started."""

    def stop_last(self, root: str, identity: TaskIdentity) -> str | None:
        """Stop the job that this life of the task has started last, should it still run; return its name if it did.

        :param root: where the task's jobs put their output.
        """


@runtime_checkable
class Traceable(Protocol):
    """An engine that tells afterwards what a job was made from."""

    def request(self, reference: JobReference) -> Mapping[str, Any]:
        """Return the job's request as the engine tells it: for lineage, so without environment variables."""


@runtime_checkable
class Collecting(Protocol):
    """An engine whose jobs leave their results where they ran."""

    def collect(self, reference: JobReference, status: JobStatus) -> JobStatus:
        """Bring what a successful job has left to S3, once; return the status that says where it is."""


def describe_each(
    describe: Callable[[JobReference], JobStatus], references: Sequence[JobReference]
) -> dict[JobReference, JobStatus]:
    """Answer `describe_many` for an engine that must be asked for each job by itself."""
    found: dict[JobReference, JobStatus] = {}
    for reference in references:
        try:
            found[reference] = describe(reference)
        except NoSuchJob:
            continue
    return found
