"""One poller for all jobs of an engine without a list that one event loop waits for, on one cluster or in one account.

Jobs are asked for in portions, as many as the engine takes with one question, one portion after the other: so a
thousand of them, or a head node that does not answer, keep one thread busy and not all that a triggerer has. Who was
not seen for longest comes first; logs are read in turns in what is left of each interval.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_dlaws.errors import NoSuchJob, ServiceRefused, ServiceUnavailable
from airflow_dlaws.jobs.reference import JobReference, JobStatus
from airflow_dlaws.launchers.protocol import LogCursor, LogPage, Together
from airflow_dlaws.launchers.seats import InThread, Poller, words
from airflow_dlaws.launchers.watch import REFUSALS_TOLERATED, SLOWEST, Look

#: Up to so many jobs are looked at without a pause in between, and their logs are all read at each interval.
FEW_JOBS = 3
#: Between two questions where jobs are many: ten a second leave most of an account's share to others.
SPACING_S = 0.1
#: Between two reads of CloudWatch, which answers five FilterLogEvents a second, to all users of an account.
CLOUDWATCH_SPACING_S = 0.5
#: Share of the interval after which no further log is read: the next round is due.
LOG_TIME = 0.8


@dataclass(kw_only=True)
class _Job:
    """What is known of one job; moments are of `time.monotonic`.

    :param refusals: answers in a row that did not tell how it stands.
    """

    cursor: LogCursor
    seen: float = 0.0
    read_at: float = 0.0
    refusals: int = 0


class GroupPoller(Poller):
    """Polls while somebody waits; its task ends with the last of them.

    :param launcher: gives the launcher for each call, so that its credentials can be renewed in between.
    :param portion: jobs that are asked for at once.
    :param log_spacing: seconds between two reads of logs, where jobs are many.
    """

    def __init__(
        self,
        launcher: Callable[[], Together],
        *,
        portion: int,
        log_spacing: float,
        in_thread: InThread,
        renew: Callable[[], None],
        random_generator: random.Random | None = None,
    ) -> None:
        super().__init__(in_thread=in_thread, renew=renew)
        self._launcher, self._portion, self._log_spacing = launcher, portion, log_spacing
        self._random = random_generator or random.Random()
        self._jobs: dict[str, _Job] = {}
        self._slowness = 1.0

    def _enter(self, name: str, cursor: LogCursor) -> bool:
        self._jobs[name] = _Job(cursor=cursor)
        return self._few

    def _forget(self, name: str) -> None:
        self._jobs.pop(name, None)

    def _pause(self, interval: float) -> float:
        return interval * self._slowness * self._random.uniform(0.9, 1.1)

    @property
    def _few(self) -> bool:
        return len(self._jobs) <= FEW_JOBS

    async def _round(self) -> None:
        began, interval = time.monotonic(), self._interval()
        names = sorted(self._jobs, key=lambda name: self._jobs[name].seen)
        for start in range(0, len(names), self._portion):
            if not await self._look(names[start : start + self._portion]):
                break
            if not self._few:
                await asyncio.sleep(SPACING_S)
        # However long the looks have taken, there is time for some logs.
        await self._read_logs(max(began + LOG_TIME * interval, time.monotonic() + interval * (1 - LOG_TIME)))

    async def _look(self, names: Sequence[str]) -> bool:
        """Ask for the state of jobs; tell whether to go on in this round."""
        asked = {name: self._seats[name][0].reference for name in names if name in self._seats}
        if not asked:
            return True
        try:
            found = await self._in_thread(self._describe_now, list(asked.values()))
        except ServiceUnavailable as error:
            self._slowness = min(self._slowness * 2, SLOWEST)
            self._tell_all(Look(status=None, note=str(error)))
            return False
        except ServiceRefused as error:
            self._renew()
            for name in asked:
                self._refused(name, error)
            return True
        except Exception as error:
            for name in asked:
                self._dismiss(name, error)
            return True
        # Speed up again, by and by: a service that throttles is not asked at full speed after one good answer.
        self._slowness = max(1.0, self._slowness - 0.5)
        await self._tell_found(asked, found)
        return True

    async def _tell_found(self, asked: Mapping[str, JobReference], found: Mapping[JobReference, JobStatus]) -> None:
        for name, reference in asked.items():
            job, status = self._jobs.get(name), found.get(reference)
            if job is None:  # nobody waits for it any more
                continue
            job.seen = time.monotonic()
            if status is None:
                self._refused(name, NoSuchJob(f"there is no job {name} ({reference.arn})"))
                continue
            job.refusals = 0
            if status.terminal:
                await self._tell_the_end(name, reference, status)
            else:
                self._tell_if_new(name, status)

    def _refused(self, name: str, error: ServiceRefused) -> None:
        """Note that a job could not be seen; give it up where that happens several times in a row."""
        job = self._jobs.get(name)
        if job is None:
            return
        job.seen, job.refusals = time.monotonic(), job.refusals + 1
        if job.refusals >= REFUSALS_TOLERATED:
            self._dismiss(name, error)
        else:
            self._tell(name, Look(status=None, note=str(error), refused=True))

    async def _read_logs(self, until: float) -> None:
        """Read on in the logs, those first that were not read for longest."""
        for name in sorted(self._jobs, key=lambda name: self._jobs[name].read_at):
            few = self._few
            if name not in self._seats or (not few and time.monotonic() >= until):
                continue
            self._jobs[name].read_at = time.monotonic()
            try:
                await self._read_one(name, self._seats[name][0].reference)
            except Exception as error:  # that lines cannot be read is no reason to stop watching the job
                self._tell_all(Look(status=None, note=words(error)))
                if isinstance(error, ServiceUnavailable):
                    return
            if not few:
                await asyncio.sleep(self._log_spacing)

    async def _read_one(self, name: str, reference: JobReference) -> LogPage:
        """Read on in one job's log, and hand the lines on."""
        cursor = self._jobs[name].cursor if name in self._jobs else LogCursor()
        page: LogPage = await self._in_thread(self._log_now, reference, cursor)
        if job := self._jobs.get(name):
            job.cursor = page.cursor
        self._tell_lines(name, page.lines)
        return page

    # In a thread:

    def _describe_now(self, references: Sequence[JobReference]) -> Any:
        return self._launcher().describe_many(references)

    def _log_now(self, reference: JobReference, cursor: LogCursor) -> LogPage:
        return self._launcher().log_lines(reference, cursor)
