"""What a sweep knows: one JSON document in S3, replaced as a whole, and only if nobody else has replaced it.

A trial is written down before its job is created, and a stop before it is asked for. So whoever comes next (a retry, a
restarted triggerer, a second one) finds every job that may have been paid for, and its name is the same as before.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from airflow_dlaws.jobs.identity import TaskIdentity
from airflow_dlaws.jobs.reference import JobReference
from airflow_dlaws.sweeps.spec import SweepSpec

FORMAT = "dlaws-sweep/1"
#: Sentences kept of what happened; the trials themselves are all kept.
EVENT_LIMIT = 2000


class TrialState(enum.StrEnum):
    """Where a trial is."""

    #: Written down; its job may or may not exist yet.
    PROPOSED = "proposed"
    RUNNING = "running"
    #: Its job is to be stopped, or is being stopped.
    STOPPING = "stopping"
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"


ENDED = frozenset({TrialState.COMPLETED, TrialState.STOPPED, TrialState.FAILED})


class Ending(enum.StrEnum):
    """Why a sweep has ended, or is ending."""

    #: All its trials have ended.
    EXHAUSTED = "exhausted"
    BUDGET = "budget"
    FAILURES = "failures"
    #: By its task: killed, marked, cleared, over its deadline.
    STOPPED = "stopped"


@dataclass(frozen=True, kw_only=True)
class Report:
    """The objective after so much of the resource (after so many epochs)."""

    resource: float
    value: float


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One set of parameters and its job.

    :param reports: by resource, ascending.
    :param value: the objective of a completed trial: the last one reported.
    :param diverged: the objective has been reported as no finite number.
    :param billable_seconds: instance-seconds billed so far, or estimated while it runs.
    :param billed_before: instance-seconds of jobs of this trial that were interrupted.
    :param interruptions: jobs of this trial that ended through no fault of its parameters (no capacity, a kill).
    :param read_until_ms: how far its log was read, milliseconds since the epoch.
    """

    number: int
    parameters: Mapping[str, Any]
    state: TrialState = TrialState.PROPOSED
    job: JobReference | None = None
    reports: tuple[Report, ...] = ()
    value: float | None = None
    diverged: bool = False
    reason: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    billable_seconds: float = 0.0
    billed_before: float = 0.0
    artifact_uri: str | None = None
    interruptions: int = 0
    read_until_ms: int = 0

    @property
    def ended(self) -> bool:
        """Whether it will not change any more."""
        return self.state in ENDED

    @property
    def cost(self) -> float:
        """Instance-seconds billed for it in all."""
        return self.billed_before + self.billable_seconds


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened, as a sentence. Times are all different: a reader goes on behind the last one."""

    at_ms: int
    text: str


@dataclass(frozen=True, kw_only=True)
class SweepJournal:
    """The document.

    :param code_uri: where the code of all trials was published.
    :param ending: why no trial is proposed any more; None while the sweep goes on.
    :param ended_at: when the last trial had ended; until then jobs may run.
    """

    name: str
    spec: SweepSpec
    identity: TaskIdentity
    code_uri: str
    created_at: datetime
    format: str = FORMAT
    trials: tuple[Trial, ...] = ()
    events: tuple[Event, ...] = ()
    ending: Ending | None = None
    ending_reason: str = ""
    ended_at: datetime | None = None
    #: How often a retry has taken the sweep up after its task was killed.
    resumed: int = field(default=0)

    @property
    def active(self) -> tuple[Trial, ...]:
        """Trials whose jobs may run."""
        return tuple(trial for trial in self.trials if not trial.ended)

    @property
    def cost(self) -> float:
        """Instance-seconds billed for all trials."""
        return sum(trial.cost for trial in self.trials)

    @property
    def best(self) -> Trial | None:
        """The completed trial with the best objective; the earliest of equals."""
        key = self.spec.direction.key
        done = [trial for trial in self.trials if trial.state is TrialState.COMPLETED and trial.value is not None]
        return min(done, key=lambda trial: (key(trial.value or 0.0), trial.number), default=None)

    def with_trial(self, trial: Trial) -> SweepJournal:
        """Return the journal with one trial put in its number's place."""
        trials = [trial if each.number == trial.number else each for each in self.trials]
        return dataclasses.replace(self, trials=tuple(trials))

    def tell(self, now: datetime, text: str) -> SweepJournal:
        """Return the journal with a sentence added."""
        last = self.events[-1].at_ms if self.events else 0
        event = Event(at_ms=max(int(now.timestamp() * 1000), last + 1), text=text)
        return dataclasses.replace(self, events=(*self.events[-EVENT_LIMIT + 1 :], event))
