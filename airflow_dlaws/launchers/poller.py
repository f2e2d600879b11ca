"""One poller for all jobs of one kind that one event loop waits for through one connection.

Knows no Airflow: how to leave the event loop for a thread is handed in. What to ask is decided in `poll_plan` and
`log_plan`; here it is asked, one call at a time, and the answers are handed to those who wait.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

from airflow_dlaws.errors import ServiceRefused, ServiceUnavailable
from airflow_dlaws.jobs.reference import JobReference, JobStatus
from airflow_dlaws.launchers.job_list import ListedJob
from airflow_dlaws.launchers.log_plan import FindStreams, LogPlan, LogStep, ReadMany
from airflow_dlaws.launchers.poll_plan import Describe, ListJobs, PollPlan, Step
from airflow_dlaws.launchers.protocol import LogCursor, LogPage, Watchable
from airflow_dlaws.launchers.seats import InThread, Poller, words
from airflow_dlaws.launchers.watch import Look

#: ListTrainingJobs answers 2 calls a second for a whole account: leave the other half to others.
LIST_SPACING_S = 1.0
#: A thousand jobs that end together are described one after the other, but not as fast as the machine can.
DESCRIBE_SPACING_S = 0.05


class SharedPoller(Poller):
    """Polls while somebody waits; its task ends with the last of them.

    :param launcher: gives the launcher for each call, so that its credentials can be renewed in between.
    :param in_thread: runs a function in a thread.
    :param renew: called when AWS has refused to answer: new credentials may help.
    """

    def __init__(
        self,
        launcher: Callable[[], Watchable],
        *,
        in_thread: InThread,
        renew: Callable[[], None],
        random_generator: random.Random | None = None,
    ) -> None:
        super().__init__(in_thread=in_thread, renew=renew)
        self._launcher, self._list_at = launcher, 0.0
        self._plan, self._logs = PollPlan(random_generator or random.Random()), LogPlan()

    def _enter(self, name: str, cursor: LogCursor) -> bool:
        self._plan.add(name)
        self._logs.add(name, cursor)
        return self._plan.few

    def _forget(self, name: str) -> None:
        self._plan.drop(name)
        self._logs.drop(name)

    def _pause(self, interval: float) -> float:
        return self._plan.wait(interval)

    async def _round(self) -> None:
        self._plan.begin(time.monotonic())
        self._logs.begin(time.monotonic())
        while step := self._plan.next_step(time.monotonic()):
            await self._take(step)
        while read := self._logs.next_step(few=self._plan.few):
            await self._read(read)

    async def _take(self, step: Step) -> None:
        """Ask for the state of jobs."""
        try:
            if isinstance(step, Describe):
                await self._describe(step)
            else:
                await self._list(step)
        except ServiceUnavailable as error:
            self._plan.unavailable()
            self._complain(step, Look(status=None, note=str(error)))
        except ServiceRefused as error:
            self._renew()
            if self._plan.refused(step, time.monotonic()) and isinstance(step, Describe):
                self._dismiss(step.name, error)
            else:
                self._complain(step, Look(status=None, note=str(error), refused=True))
        except Exception as error:
            if not isinstance(step, Describe):
                raise
            self._dismiss(step.name, error)  # what nobody has foreseen of one job is no trouble of a thousand others

    async def _describe(self, step: Describe) -> None:
        reference = self._seats[step.name][0].reference
        status = await self._in_thread(self._describe_now, reference)
        self._plan.described(step.name, status, time.monotonic())
        if step.name not in self._seats:  # nobody waits for it any more
            return
        if status.terminal:
            await self._tell_the_end(step.name, reference, status)
        else:
            self._tell_if_new(step.name, status)
        if not self._plan.few:
            await asyncio.sleep(DESCRIBE_SPACING_S)

    async def _list(self, step: ListJobs) -> None:
        await asyncio.sleep(self._list_at - time.monotonic())
        self._list_at = time.monotonic() + LIST_SPACING_S
        page = await self._in_thread(self._list_now, step)
        for row in self._plan.listed(step, page, time.monotonic()):
            if not row.terminal:
                self._tell_if_new(row.name, _told_by_list(row))

    async def _read(self, step: LogStep) -> None:
        """Ask for lines; that they cannot be read is no reason to stop watching the jobs."""
        try:
            if isinstance(step, FindStreams):
                streams, token = await self._in_thread(self._find_now, step)
                self._logs.found(streams, token, time.monotonic())
            elif isinstance(step, ReadMany):
                answer = await self._in_thread(self._read_now, step)
                self._logs.read_many(answer, time.monotonic())
                for name, page in answer.pages.items():
                    self._tell_lines(name, page.lines)
            else:
                await self._read_one(step.name, self._seats[step.name][0].reference)
        except Exception as error:
            self._logs.unavailable()
            self._complain(None, Look(status=None, note=words(error)))

    async def _read_one(self, name: str, reference: JobReference) -> LogPage:
        """Read on in one job's log, and hand the lines on."""
        page: LogPage = await self._in_thread(self._log_now, reference, self._logs.cursor(name))
        self._logs.read(name, page, time.monotonic())
        self._tell_lines(name, page.lines)
        return page

    def _complain(self, step: Step | None, look: Look) -> None:
        """Tell of a trouble: the job's own, or one that all share."""
        if isinstance(step, Describe):
            self._tell(step.name, look)
        else:
            self._tell_all(look)

    # In a thread:

    def _describe_now(self, reference: JobReference) -> JobStatus:
        return self._launcher().describe(reference)

    def _list_now(self, step: ListJobs) -> Any:
        return self._launcher().list_page(step.stretch)

    def _log_now(self, reference: JobReference, cursor: LogCursor) -> LogPage:
        return self._launcher().log_lines(reference, cursor)

    def _read_now(self, step: ReadMany) -> Any:
        return self._launcher().read_logs(step.tasks, int(time.time() * 1000))

    def _find_now(self, step: FindStreams) -> Any:
        return self._launcher().recent_streams(step.token)


def _told_by_list(row: ListedJob) -> JobStatus:
    return JobStatus(phase=row.phase, detail=row.detail, created_at=row.created_at)
