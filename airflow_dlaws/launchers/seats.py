"""Those who wait in one event loop for jobs that are looked at together, and what they are told.

Knows no Airflow. How jobs are looked at, the subclasses say: through the service's list, or all with one question.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from airflow_dlaws.errors import DlawsError, ServiceUnavailable
from airflow_dlaws.jobs.reference import JobReference, JobStatus
from airflow_dlaws.launchers.protocol import LogCursor, LogPage
from airflow_dlaws.launchers.watch import LINES_PER_LOOK, Look

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
        self.told_at = time.monotonic()

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


class Poller:
    """Looks at jobs while somebody waits; its task ends with the last of them.

    :param in_thread: runs a function in a thread.
    :param renew: called when a service has refused to answer: new credentials may help.
    """

    def __init__(self, *, in_thread: InThread, renew: Callable[[], None]) -> None:
        self._in_thread, self._renew = in_thread, renew
        self._seats: dict[str, list[Seat]] = {}
        self._details: dict[str, tuple[str, str]] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._told_all_at = -TELL_AGAIN_S

    # What a subclass says:

    def _enter(self, name: str, cursor: LogCursor) -> bool:
        """Take in a job that nobody has waited for; tell whether it is to be looked at at once."""
        raise NotImplementedError

    def _forget(self, name: str) -> None:
        """Let go of a job that nobody waits for any more."""
        raise NotImplementedError

    async def _round(self) -> None:
        """Look at the jobs."""
        raise NotImplementedError

    async def _read_one(self, name: str, reference: JobReference) -> LogPage:
        """Read on in one job's log, and hand the lines on."""
        raise NotImplementedError

    def _pause(self, interval: float) -> float:
        """Return the seconds from the beginning of one round to that of the next."""
        raise NotImplementedError

    # What all have in common:

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
        name, hurry = seat.reference.name, False
        if name not in self._seats:
            self._seats[name] = []
            hurry = self._enter(name, cursor)
        self._seats[name].append(seat)
        if self._task is None:
            # In no context of whoever came first: Airflow tells the logs of triggers apart by it.
            self._task = asyncio.get_running_loop().create_task(self._run(), context=contextvars.Context())
        elif hurry:
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
        for seat in self._seats.pop(name, ()):
            for look in last:
                seat.tell(look)
        self._forget(name)
        self._details.pop(name, None)

    async def _run(self) -> None:
        """Poll while somebody waits. What is not foreseen is told to all of them, as a fault of their own would be.

        Whoever leaves last takes the task from `_task` and cancels it; another who comes then has a new one.
        """
        task = asyncio.current_task()
        try:
            while self._seats and self._task is task:
                began = time.monotonic()
                self._wake.clear()
                await self._round()
                if self._seats:
                    await self._sleep(self._pause(self._interval()) - (time.monotonic() - began))
        except BaseException as error:
            if self._task is task:
                told = error if isinstance(error, Exception) else ServiceUnavailable(f"the poller has ended: {error!r}")
                for name in list(self._seats):
                    self._dismiss(name, told)
            if not isinstance(error, Exception):
                raise
        finally:
            if self._task is task:
                self._task = None

    def _interval(self) -> float:
        """Return the shortest time between looks that anybody wants."""
        return min(seat.poll_interval for seats in self._seats.values() for seat in seats)

    async def _sleep(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            return

    def _tell_lines(self, name: str, lines: tuple[str, ...]) -> None:
        """Hand on lines: as many as a job of its own poller might say in the time that has passed."""
        now = time.monotonic()
        for seat in self._seats.get(name, ()):
            looks = max(1.0, (now - seat.told_at) / seat.poll_interval)
            shown = lines
            if (dropped := len(lines) - round(looks * LINES_PER_LOOK)) > 0:
                shown = (f"({dropped} lines left out here, see the whole log)", *lines[dropped:])
            if shown:
                seat.tell(Look(status=None, lines=shown))
            seat.told_at = now

    async def _tell_the_end(self, name: str, reference: JobReference, status: JobStatus) -> None:
        """Tell that a job has ended, after the last lines of its log."""
        note = ""
        try:
            for _ in range(LAST_READS):
                if (await self._read_one(name, reference)).complete:
                    break
        except Exception as error:  # the end is told whatever becomes of the lines
            note = words(error)
        if name in self._seats:
            self._dismiss(name, Look(status=status, note=note))

    def _tell_if_new(self, name: str, status: JobStatus) -> None:
        state = (status.phase.value, status.detail)
        if name in self._seats and self._details.get(name) != state:
            self._details[name] = state
            self._tell(name, Look(status=status))

    def _tell(self, name: str, look: Look | BaseException) -> None:
        for seat in self._seats.get(name, ()):
            seat.tell(look)

    def _tell_all(self, look: Look) -> None:
        """Tell of a trouble that all jobs share."""
        if time.monotonic() >= self._told_all_at + TELL_AGAIN_S:
            self._told_all_at = time.monotonic()
            for name in self._seats:
                self._tell(name, look)


def words(error: Exception) -> str:
    """Return what is told of an error: one of ours is a sentence by itself."""
    return str(error) if isinstance(error, DlawsError) else repr(error)
