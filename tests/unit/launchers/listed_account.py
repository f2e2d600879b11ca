"""An account's list of jobs as AWS keeps it: it lags behind, hides jobs for a while, and holds other teams' too."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.reference import JobStatus
from airflow_dlaws.launchers.job_list import PAGE_ROWS, ListedJob, ListPage, Stretch
from airflow_dlaws.launchers.poll_plan import Describe, ListJobs, PollPlan

EPOCH = datetime(2026, 11, 1, tzinfo=UTC)


def moment(seconds: float) -> datetime:
    """Return the time so many seconds after the beginning."""
    return EPOCH + timedelta(seconds=seconds)


@dataclass
class AccountJob:
    """A job, with times in seconds since the beginning.

    :param lag: for so long the list still calls the job running after its end.
    :param hidden_until: until then the list does not show the job.
    """

    name: str
    created: float
    ends: float = math.inf
    lag: float = 0.0
    hidden_until: float = -math.inf

    def phase(self, now: float, lag: float = 0.0) -> JobPhase:
        return JobPhase.SUCCEEDED if now >= self.ends + lag else JobPhase.RUNNING

    def status(self, now: float) -> JobStatus:
        return JobStatus(phase=self.phase(now), created_at=moment(self.created))


@dataclass
class Account:
    """All jobs of an account, and what has been asked of it.

    :param filters_late: the times of creation too are looked at once a page is cut, so that pages can be empty.
    """

    jobs: dict[str, AccountJob]
    filters_late: bool = False
    calls: int = 0
    _sorted: list[AccountJob] = field(default_factory=list)

    def describe(self, name: str, now: float) -> JobStatus:
        self.calls += 1
        return self.jobs[name].status(now)

    def page(self, stretch: Stretch, now: float) -> ListPage:
        self.calls += 1
        wanted = _range(stretch)
        shown = [job for job in self._in_order() if job.created <= now and job.hidden_until <= now]
        if stretch.after is None:
            shown.reverse()
        if not self.filters_late:
            shown = [job for job in shown if wanted[0] < job.created < wanted[1]]
        start = int(stretch.token or 0)
        part, more = shown[start : start + PAGE_ROWS], len(shown) > start + PAGE_ROWS
        return ListPage(
            rows=tuple(
                ListedJob(name=job.name, phase=job.phase(now, job.lag), created_at=moment(job.created))
                for job in part
                if wanted[0] < job.created < wanted[1]
            ),
            token=str(start + PAGE_ROWS) if more else None,
        )

    def _in_order(self) -> list[AccountJob]:
        if len(self._sorted) != len(self.jobs):
            self._sorted = sorted(self.jobs.values(), key=lambda job: (job.created, job.name))
        return self._sorted


@dataclass
class Watch:
    """Drives a plan against an account, second by second, and notes when the end of each job is noticed."""

    account: Account
    plan: PollPlan
    interval: float = 30.0
    noticed: dict[str, float] = field(default_factory=dict)
    calls_in_round: list[int] = field(default_factory=list)
    ends_in_round: list[int] = field(default_factory=list)

    def round(self, now: float) -> None:
        """One round, in which no time passes."""
        calls, ends = self.account.calls, len(self.noticed)
        self.plan.begin(now)
        while step := self.plan.next_step(now):
            if isinstance(step, ListJobs):
                self.plan.listed(step, self.account.page(step.stretch, now), now)
            else:
                self.describe(step, now)
        self.calls_in_round.append(self.account.calls - calls)
        self.ends_in_round.append(len(self.noticed) - ends)

    def describe(self, step: Describe, now: float) -> None:
        status = self.account.describe(step.name, now)
        self.plan.described(step.name, status, now)
        if status.terminal:
            assert step.name not in self.noticed, "reported twice"
            self.noticed[step.name] = now
            self.plan.drop(step.name)


def _range(stretch: Stretch) -> tuple[float, float]:
    """Return the times asked for; AWS is sent whole seconds."""
    after, before = stretch.after, stretch.before
    return (
        -math.inf if after is None else math.floor((after - EPOCH).total_seconds()),
        math.inf if before is None else math.floor((before - EPOCH).total_seconds()),
    )
