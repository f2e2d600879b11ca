"""A job that exists: how to find it again, how it stands, and what it left behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from airflow_dlaws.jobs.failure import FailureKind
from airflow_dlaws.jobs.phase import JobPhase, is_terminal

#: XCom of a task that pays for something: the trigger (`classpath`, `kwargs`) whose `on_kill` ends it, and the task's
#: life. For those who find the task ended while nobody is left who could.
ON_KILL_XCOM = "dlaws_on_kill"


@dataclass(frozen=True, kw_only=True)
class JobReference:
    """Where a job is: enough to describe it, stop it and read its logs from any process."""

    engine: str
    name: str
    arn: str
    region: str


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """How a job stands, in one answer of its service.

    :param reason: the service's failure reason, empty while there is none.
    :param detail: the service's finer status ("Downloading", "MaxRuntimeExceeded").
    :param artifact_uri: the model's archive; only said by the service once it is written.
    :param output_uri: the archive of SM_OUTPUT_DATA_DIR; where results are stored file by file, the prefix of them all.
    :param interruptions: how often the job's spot instances were taken away.
    :param restarts: how often the service has begun it anew after a fault of its own (RetryStrategy).
    :param failure: why it did not succeed, where the engine knows; else it is read from `reason` and `detail`.
    :param instance_type: of its hosts, as chosen by the service where it had a choice; None while that is open, and for
        hosts of several types. `instance_count` likewise.
    """

    phase: JobPhase
    reason: str = ""
    detail: str = ""
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    billable_seconds: int = 0
    training_seconds: int = 0
    artifact_uri: str | None = None
    output_uri: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    interruptions: int = 0
    restarts: int = 0
    failure: FailureKind | None = None
    instance_type: str | None = None
    instance_count: int | None = None

    @property
    def terminal(self) -> bool:
        """Whether the job will not change any more."""
        return is_terminal(self.phase)


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What came of asking for a job.

    :param adopted: the job had been started before, by an earlier try of the same task.
    :param attempt: 1, or more after failures that were the infrastructure's and after kills.
    :param holder: mark of this try on the job; a later try that adopts the job puts its own in its place.
    """

    reference: JobReference
    status: JobStatus
    adopted: bool
    attempt: int
    holder: str = ""


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a training task hands on through XCom.

    :param billable_seconds: seconds billed for each instance (fewer than `training_seconds` on spot machines).
    :param training_seconds: seconds for which each instance was at work.
    :param spot_saving: share of the on-demand price that spot machines have saved, 1 - billable / training seconds;
        None for a job on other machines.
    :param interruptions: how often its spot machines were taken away.
    :param cost_usd: estimate, by `cost_basis`, of the job named here; None where no price is known.
    :param cost_basis: the arithmetic behind `cost_usd`, or why there is none.
    :param adopted: whether this try of the task found the job already there.
    :param attempts: jobs this task has started since it was last cleared.
    :param manifest_uri: the model's lineage, beside its artifact.
    """

    job_name: str
    job_arn: str
    artifact_uri: str
    output_uri: str
    metrics: Mapping[str, float]
    billable_seconds: int
    instance_count: int
    instance_type: str
    adopted: bool = False
    attempts: int = 1
    manifest_uri: str | None = None
    training_seconds: int = 0
    spot_saving: float | None = None
    interruptions: int = 0
    cost_usd: float | None = None
    cost_basis: str = ""
