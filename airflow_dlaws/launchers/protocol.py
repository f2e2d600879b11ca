"""What the Airflow side asks of an engine that runs jobs. SageMaker answers first; others can follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from airflow_dlaws.jobs.identity import TaskIdentity
from airflow_dlaws.jobs.reference import JobReference, JobStatus, Submission

#: What kind of job an engine runs: TrainingSpec, for one.
SpecT = TypeVar("SpecT", contravariant=True)


@dataclass(frozen=True, kw_only=True)
class LogCursor:
    """How far a job's log has been read: milliseconds since the epoch, and the events of the last moments."""

    since_ms: int = 0
    seen: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LogPage:
    """The lines since a cursor, in order of time over all hosts, and the cursor behind them."""

    lines: tuple[str, ...]
    cursor: LogCursor


class Launcher(Protocol[SpecT]):
    """One engine, reached through injected clients. Every method may raise ServiceUnavailable or ServiceRefused."""

    @property
    def log_group(self) -> str:
        """The CloudWatch log group the jobs print to."""

    def console_page(self, reference: JobReference) -> str:
        """Return the job's page in the SageMaker console, such as `jobs/NAME`."""

    def submit(self, spec: SpecT, identity: TaskIdentity, *, stop_former: bool = True) -> Submission:
        """Start the job that belongs to the task, or adopt it where an earlier try has started it.

        :param stop_former: first stop what the task had started before it was cleared or changed, if it still runs.
        :raises SpecificationError: what was asked for cannot work (no such bucket, no data, no such instance type).
        :raises IdentityConflict: the job's name is taken by a job made from something else.
        :raises JobFailed: an earlier try's job failed through its own fault; another would fail the same way.
        """

    def describe(self, reference: JobReference) -> JobStatus:
        """Ask how the job stands."""

    def stop(self, reference: JobReference) -> bool:
        """Ask the engine to stop the job; tell whether it was still running."""

    def log_lines(self, reference: JobReference, cursor: LogCursor) -> LogPage:
        """Return what the job has printed since `cursor`."""

    def log_tail(self, reference: JobReference, count: int) -> tuple[str, ...]:
        """Return the last `count` lines the job has printed."""


@runtime_checkable
class Traceable(Protocol):
    """An engine that tells afterwards what a job was made from."""

    def request(self, reference: JobReference) -> Mapping[str, Any]:
        """Return the job's request as the engine tells it: for lineage, so without environment variables."""
