"""One poller for all jobs of one kind that one event loop waits for through one connection.

Knows no Airflow: how to leave the event loop for a thread is handed in. What to ask is decided in `poll_plan` and
`log_plan`; here it is asked, one call at a time, and the answers are handed to those who wait.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from airflow_dlaws.errors import ServiceRefused, ServiceUnavailable
from airflow_dlaws.jobs.reference import JobReference, JobStatus
from airflow_dlaws.launchers.job_list import ListedJob
from airflow_dlaws.launchers.log_plan import FindStreams, LogPlan, LogStep, ReadMany
from airflow_dlaws.launchers.poll_plan import Describe, ListJobs, PollPlan, Step
from airflow_dlaws.launchers.protocol import LogCursor, LogPage, Watchable
from airflow_dlaws.launchers.watch import LINES_PER_LOOK, Look

#: ListTrainingJobs answers 2 calls a second for a whole account: leave the other half to others.
LIST_SPACING_S = 1.0
#: A thousand jobs that end together are described one after the other, but not as fast as the machine can.
DESCRIBE_SPACING_S = 0.05
#: A trouble that all jobs share is told to each of them, but not at each look.
TELL_AGAIN_S = 300.0
#: Reads of the log of a job that has ended: each takes 10 MB.
LAST_READS = 10

T = TypeVar("T")
InThread = Callable[..., Awaitable[Any]]


class Seat:
    """One that waits for a job: a queue of what is seen of it, or of the error that ends the waiting."""

    def __init__(self, reference: JobReference, poll_interval: float) -> None:
        self.reference, self.poll_interval = reference, poll_interval
        self._looks: asyncio.Queue[Look | BaseException] = asyncio.Queue()
        self.told_at = time.time()

    def tell(self, look: Look | BaseException) -> None:
        """Hand on what was seen."""
        self._looks.put_nowait(look)

    async def look(self) -> Look:
        """Wait for the next thing seen.

        :raises ServiceRefused: the job cannot be observed.
        """
        found = await self._looks.get()
        if isinstance(found, BaseException):
            raise found
        return found


class SharedPoller:
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
        self._launcher, self._in_thread, self._renew = launcher, in_thread, renew
        self._plan, self._logs = PollPlan(random_generator or random.Random()), LogPlan()
        self._seats: dict[str, list[Seat]] = {}
        self._details: dict[str, tuple[str, str]] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._told_all_at, self._list_at = 0.0, 0.0

    @property
    def idle(self) -> bool:
        """Whether nobody waits."""
        return not self._seats

    @asynccontextmanager
    async def watching(
        self, reference: JobReference, *, poll_interval: float, cursor: LogCursor
    ) -> AsyncIterator[Seat]:
        """Wait for a job until the context is left, however it is left.

        :param poll_interval: seconds between looks; the shortest that anybody wants is kept.
        :param cursor: where to go on in the log. Two that wait for the same job share what the first has asked for.
        """
        seat = Seat(reference, poll_interval)
        self._join(seat, cursor)
        try:
            yield seat
        finally:
            self._leave(seat)

    def _join(self, seat: Seat, cursor: LogCursor) -> None:
        name = seat.reference.name
        if name not in self._seats:
            self._seats[name] = []
            self._plan.add(name)
            self._logs.add(name, cursor)
        self._seats[name].append(seat)
        if self._task is None:
            # In no context of whoever came first: Airflow tells the logs of triggers apart by it.
            self._task = asyncio.get_running_loop().create_task(self._run(), context=contextvars.Context())
        elif self._plan.few:
            self._wake.set()

    def _leave(self, seat: Seat) -> None:
        name = seat.reference.name
        if seat in (seats := self._seats.get(name, [])):
            seats.remove(seat)
            if not seats:
                self._dismiss(name)
        if self.idle and self._task is not None:
            self._task.cancel()
            self._task = None

    def _dismiss(self, name: str, *last: Look | BaseException) -> None:
        """Watch a job no longer, after a last word to those who wait for it."""
        for seat in self._seats.pop(name):
            for look in last:
                seat.tell(look)
        self._plan.drop(name)
        self._logs.drop(name)
        self._details.pop(name, None)

    async def _run(self) -> None:
        """Poll while somebody waits. What is not foreseen is told to all of them, as a fault of their own would be."""
        try:
            while self._seats:
                began = time.monotonic()
                self._wake.clear()
                await self._round()
                if self._seats:
                    interval = min(seat.poll_interval for seats in self._seats.values() for seat in seats)
                    await self._sleep(self._plan.wait(interval) - (time.monotonic() - began))
        except Exception as error:
            for name in list(self._seats):
                self._dismiss(name, error)
        self._task = None

    async def _sleep(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            return

    async def _round(self) -> None:
        self._plan.begin(time.time())
        self._logs.begin(time.time())
        while step := self._plan.next_step(time.time()):
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
            if self._plan.refused(step, time.time()) and isinstance(step, Describe):
                self._dismiss(step.name, error)
            else:
                self._complain(step, Look(status=None, note=str(error), refused=True))

    async def _describe(self, step: Describe) -> None:
        reference = self._seats[step.name][0].reference
        status = await self._in_thread(self._describe_now, reference)
        self._plan.described(step.name, status, time.time())
        if step.name not in self._seats:  # nobody waits for it any more
            return
        if status.terminal:
            await self._tell_the_end(step.name, reference, status)
        else:
            self._tell_if_new(step.name, status)
        if not self._plan.few:
            await asyncio.sleep(DESCRIBE_SPACING_S)

    async def _list(self, step: ListJobs) -> None:
        await asyncio.sleep(self._list_at - time.time())
        self._list_at = time.time() + LIST_SPACING_S
        page = await self._in_thread(self._list_now, step)
        for row in self._plan.listed(step, page, time.time()):
            if not row.terminal:
                self._tell_if_new(row.name, _told_by_list(row))

    async def _tell_the_end(self, name: str, reference: JobReference, status: JobStatus) -> None:
        """Tell that a job has ended, after the last lines of its log."""
        note = ""
        try:
            for _ in range(LAST_READS):
                if (await self._read_one(name, reference)).complete:
                    break
        except (ServiceUnavailable, ServiceRefused) as error:
            note = str(error)
        if name in self._seats:
            self._dismiss(name, Look(status=status, note=note))

    async def _read(self, step: LogStep) -> None:
        """Ask for lines; that they cannot be read is no reason to stop watching the jobs."""
        try:
            if isinstance(step, FindStreams):
                streams, token = await self._in_thread(self._find_now, step)
                self._logs.found(streams, token, time.time())
            elif isinstance(step, ReadMany):
                answer = await self._in_thread(self._read_now, step)
                self._logs.read_many(answer, time.time())
                for name, page in answer.pages.items():
                    self._tell_lines(name, page.lines)
            else:
                await self._read_one(step.name, self._seats[step.name][0].reference)
        except (ServiceUnavailable, ServiceRefused) as error:
            self._logs.unavailable()
            self._complain(None, Look(status=None, note=str(error)))

    async def _read_one(self, name: str, reference: JobReference) -> LogPage:
        """Read on in one job's log, and hand the lines on."""
        page: LogPage = await self._in_thread(self._log_now, reference, self._logs.cursor(name))
        self._logs.read(name, page, time.time())
        self._tell_lines(name, page.lines)
        return page

    def _tell_lines(self, name: str, lines: tuple[str, ...]) -> None:
        """Hand on lines: as many as a job of its own poller might say in the time that has passed."""
        now = time.time()
        for seat in self._seats.get(name, ()):
            looks = max(1.0, (now - seat.told_at) / seat.poll_interval)
            shown = lines
            if (dropped := len(lines) - round(looks * LINES_PER_LOOK)) > 0:
                shown = (f"({dropped} lines left out here, see CloudWatch)", *lines[dropped:])
            if shown:
                seat.tell(Look(status=None, lines=shown))
            seat.told_at = now

    def _tell_if_new(self, name: str, status: JobStatus) -> None:
        state = (status.phase.value, status.detail)
        if name in self._seats and self._details.get(name) != state:
            self._details[name] = state
            self._tell(name, Look(status=status))

    def _tell(self, name: str, look: Look | BaseException) -> None:
        for seat in self._seats.get(name, ()):
            seat.tell(look)

    def _complain(self, step: Step | None, look: Look) -> None:
        """Tell of a trouble: the job's own, or one that all share."""
        if isinstance(step, Describe):
            self._tell(step.name, look)
        elif time.time() >= self._told_all_at + TELL_AGAIN_S:
            self._told_all_at = time.time()
            for name in self._seats:
                self._tell(name, look)

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
