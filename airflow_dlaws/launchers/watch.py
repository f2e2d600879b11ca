"""Looks at a job now and then: its state, its new log lines, and when to look again. The caller sleeps."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from airflow_dlaws.errors import ServiceRefused, ServiceUnavailable
from airflow_dlaws.jobs.reference import JobReference, JobStatus
from airflow_dlaws.launchers.protocol import Launcher, LogCursor

#: Permissions and credentials can be out of step for a moment (a rotated key); one that stays refused is an error.
REFUSALS_TOLERATED = 3
#: Throttled polling slows down to at most this many intervals.
SLOWEST = 8
#: More lines a look would drown the task's log; all of them are in CloudWatch.
LINES_PER_LOOK = 500


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one look has shown.

    :param status: None where the service could not be asked this time.
    :param lines: new log lines.
    :param note: why something could not be seen, empty if all was well.
    :param refused: whether it was a refusal: new credentials may help.
    :param wait_s: seconds until the next look is due.
    """

    status: JobStatus | None
    lines: tuple[str, ...] = ()
    note: str = ""
    refused: bool = False
    wait_s: float = 0.0


class JobWatch:
    """Remembers between looks how far the log was read and how patient to be.

    :param launcher: gives the launcher for each look, so that its credentials can be renewed in between.
    :param poll_interval: seconds between looks while the service answers.
    """

    def __init__(
        self,
        launcher: Callable[[], Launcher[Any]],
        reference: JobReference,
        *,
        poll_interval: float,
        cursor: LogCursor | None = None,
        random_generator: random.Random | None = None,
    ) -> None:
        self.cursor = cursor or LogCursor()
        self._launcher = launcher
        self._reference = reference
        self._poll_interval = poll_interval
        self._random = random_generator or random.Random()
        self._slowness = 1
        self._refusals = 0

    def look(self) -> Look:
        """Ask once. Throttling and outages slow the looking down and fail nothing.

        :raises ServiceRefused: AWS has refused to answer several times in a row.
        """
        try:
            status = self._launcher().describe(self._reference)
        except ServiceUnavailable as error:
            self._slowness = min(self._slowness * 2, SLOWEST)
            return Look(status=None, note=str(error), wait_s=self._wait())
        except ServiceRefused as error:
            self._refusals += 1
            if self._refusals >= REFUSALS_TOLERATED:
                raise
            return Look(status=None, note=str(error), refused=True, wait_s=self._wait())
        self._slowness, self._refusals = 1, 0
        lines, note = self._new_lines()
        return Look(status=status, lines=lines, note=note, wait_s=self._wait())

    def _new_lines(self) -> tuple[tuple[str, ...], str]:
        """Read on in the log; that it cannot be read is no reason to stop watching the job."""
        try:
            page = self._launcher().log_lines(self._reference, self.cursor)
        except (ServiceUnavailable, ServiceRefused) as error:
            return (), str(error)
        self.cursor = page.cursor
        dropped = len(page.lines) - LINES_PER_LOOK
        if dropped > 0:
            return (f"({dropped} lines left out here, see CloudWatch)", *page.lines[-LINES_PER_LOOK:]), ""
        return page.lines, ""

    def _wait(self) -> float:
        """Spread the looks of many tasks by a fifth of the interval."""
        return self._poll_interval * self._slowness * self._random.uniform(0.9, 1.1)
