"""What a shared poller asks next, so that its calls do not grow with the number of jobs: decisions only.

Few jobs are described one by one. More are looked for in the list of all jobs, a page of a hundred at a time: the page
begins at the job that was not seen for longest, and shows those created after it, ours and other teams'. So the
stretches of the list where none of ours stands are never read, and a job that stands alone among strangers is described
instead, which costs the same. What the list calls ended is described, and that alone counts: the list may lag behind.

All calls but those for ended jobs come out of a budget for each minute; where it is short, the jobs take turns, and
their end is noticed later. The caller performs the steps and tells the time.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_dlaws.jobs.reference import JobStatus
from airflow_dlaws.launchers.job_list import PAGE_ROWS, ListedJob, ListPage, Stretch
from airflow_dlaws.launchers.watch import REFUSALS_TOLERATED, SLOWEST

#: Up to so many jobs are described at each interval: that is cheap, and tells more than the list.
FEW_JOBS = 3
#: Looks a minute beyond one at each interval. ListTrainingJobs answers 2 calls a second for a whole account, and that
#: is not adjustable (aws-solutions/deepracer-on-aws#87): this is a sixth of it, and shows 2,000 jobs a minute.
LOOKS_PER_MINUTE = 20.0
#: A page that shows no more than one of our jobs is no better than describing that job.
WORTH_A_PAGE = 2
#: A job that should be on a page and is not may stand behind others of the same second, or the page was filtered late.
HOPS = 5
#: Whoever may not list is asked again so much later: somebody may have allowed it.
LIST_AGAIN_S = 600.0
#: AWS reads times of creation as whole seconds.
SECOND = timedelta(seconds=1)


@dataclass(frozen=True, kw_only=True)
class Describe:
    """Describe one job."""

    name: str


@dataclass(frozen=True, kw_only=True)
class ListJobs:
    """List a stretch; `target` is the job that it begins at, None where jobs of unknown age are looked for."""

    stretch: Stretch
    target: str | None = None
    hop: int = 0


Step = Describe | ListJobs


@dataclass(kw_only=True)
class _Job:
    """What is known of one job.

    :param seen: when it was last seen, seconds since the epoch.
    :param neighbours: how many of our jobs the page showed that began here; 0 where it did not show this one.
    :param asked: the last round in which it was described.
    :param refusals: refused descriptions in a row.
    """

    name: str
    created: datetime | None = None
    seen: float = 0.0
    neighbours: int = PAGE_ROWS
    said_to_have_ended: bool = False
    asked: int = 0
    refusals: int = 0


class PollPlan:
    """The jobs that are waited for, and what to ask for them.

    :param random_generator: spreads the rounds of several pollers.
    """

    def __init__(self, random_generator: random.Random) -> None:
        self._random = random_generator
        self._jobs: dict[str, _Job] = {}
        self._round, self._began = 0, 0.0
        self._budget, self._free = LOOKS_PER_MINUTE / 2, False  # after a restart many pollers begin at once
        self._slowness, self._troubled = 1.0, False
        self._list_refusals, self._list_again = 0, 0.0
        self._follow: ListJobs | None = None
        #: Where jobs of unknown age are looked for next; None where the list gives no more of them.
        self._search: Stretch | None = None

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def few(self) -> bool:
        """Whether the jobs are so few that each is described at each interval."""
        return len(self._jobs) <= FEW_JOBS

    def add(self, name: str) -> None:
        """Wait for a job too."""
        self._jobs[name] = _Job(name=name)
        self._search = Stretch()  # it is probably among the newest

    def drop(self, name: str) -> None:
        """Wait for a job no longer."""
        self._jobs.pop(name, None)

    def begin(self, now: float) -> None:
        """Begin a round."""
        earned = LOOKS_PER_MINUTE * max(0.0, now - (self._began or now)) / 60
        self._budget = min(LOOKS_PER_MINUTE, self._budget + earned)
        self._round, self._began, self._free, self._troubled, self._follow = self._round + 1, now, True, False, None

    def wait(self, interval: float) -> float:
        """Return the seconds until the next round; throttling makes it longer, and a random tenth spreads them."""
        return interval * self._slowness * self._random.uniform(0.9, 1.1)

    def next_step(self, now: float) -> Step | None:
        """Return what to ask now; None where the round is over."""
        if self._troubled:
            return None
        for job in self._jobs.values():
            if job.said_to_have_ended and job.asked != self._round:
                return Describe(name=job.name)
        due = [job for job in self._jobs.values() if job.seen < self._began and job.asked != self._round]
        if not due:
            return None
        stalest = min(due, key=_staleness)
        if self.few:
            return Describe(name=stalest.name)
        if not self._spend():
            return None
        if self._list_again > now:
            return Describe(name=stalest.name)
        return self._look(stalest)

    def described(self, name: str, status: JobStatus, now: float) -> None:
        """Note the answer to a Describe."""
        self._success()
        if job := self._jobs.get(name):
            unknown = job.created is None
            job.seen, job.refusals, job.asked, job.said_to_have_ended = now, 0, self._round, False
            job.created = status.created_at or job.created
            if unknown and job.created and self._search is None:
                self._search = Stretch(after=job.created - SECOND)  # others of unknown age may be its neighbours

    def listed(self, step: ListJobs, page: ListPage, now: float) -> list[ListedJob]:
        """Note a page; return the rows of our jobs."""
        self._success()
        self._list_refusals, self._follow = 0, None
        ours = [row for row in page.rows if row.name in self._jobs]
        found = sum(self._jobs[row.name].created is None for row in ours)
        for row in ours:
            self._note(row, now)
        if step.target is None:
            self._go_on_searching(step.stretch, page, found)
        elif target := self._jobs.get(step.target):
            self._judge(target, step, page, ours)
        return ours

    def unavailable(self) -> None:
        """Note that the service did not serve: slow down, and leave the rest of the round."""
        self._slowness, self._troubled = min(self._slowness * 2, SLOWEST), True

    def refused(self, step: Step, now: float) -> bool:
        """Note a refusal; tell whether the job that was asked for cannot be observed any more."""
        if isinstance(step, ListJobs):
            self._troubled, self._follow = True, None
            self._list_refusals += 1
            if self._list_refusals >= REFUSALS_TOLERATED:
                self._list_again, self._list_refusals = now + LIST_AGAIN_S, 0
            return False
        job = self._jobs.get(step.name)
        if job is None:
            return False
        job.refusals, job.asked = job.refusals + 1, self._round
        return job.refusals >= REFUSALS_TOLERATED

    def _look(self, job: _Job) -> Step:
        """Return how to see the job."""
        if self._follow is not None:
            return self._follow
        if job.created is None:
            return ListJobs(stretch=self._search) if self._search else Describe(name=job.name)
        if job.neighbours < WORTH_A_PAGE:
            return Describe(name=job.name)
        return ListJobs(stretch=Stretch(after=job.created - SECOND), target=job.name)

    def _note(self, row: ListedJob, now: float) -> None:
        job = self._jobs[row.name]
        job.seen, job.created = now, row.created_at
        job.neighbours = job.neighbours or PAGE_ROWS
        job.said_to_have_ended = row.terminal

    def _judge(self, target: _Job, step: ListJobs, page: ListPage, ours: Iterable[ListedJob]) -> None:
        """Learn whether a page that began at a job was worth it; look for the job behind the page if need be."""
        names = {row.name for row in ours}
        if target.name in names:
            target.neighbours = len(names) if step.hop == 0 else target.neighbours
        elif page.token and step.hop < HOPS and _may_follow(target, page):
            stretch = Stretch(after=step.stretch.after, token=page.token)
            self._follow = ListJobs(stretch=stretch, target=target.name, hop=step.hop + 1)
        else:
            target.neighbours = 0

    def _go_on_searching(self, stretch: Stretch, page: ListPage, found: int) -> None:
        """Read on where the page showed several jobs of unknown age; else describe one, and look around it."""
        self._search = None
        if found >= WORTH_A_PAGE and page.token:
            ascending = stretch.after is not None
            self._search = Stretch(after=stretch.after, token=page.token) if ascending else Stretch(token=page.token)

    def _spend(self) -> bool:
        """Take a call from the budget; the first of a round is free."""
        if self._free:
            self._free = False
            return True
        if self._budget < 1:
            return False
        self._budget -= 1
        return True

    def _success(self) -> None:
        """Speed up again, by and by: a service that throttles is not asked at full speed after one good answer."""
        self._slowness = max(1.0, self._slowness - 0.5)


def _staleness(job: _Job) -> tuple[float, float]:
    return job.seen, job.created.timestamp() if job.created else 0.0


def _may_follow(target: _Job, page: ListPage) -> bool:
    """Tell whether the page has not come past the job."""
    return not page.rows or target.created is None or page.rows[-1].created_at <= target.created + SECOND
