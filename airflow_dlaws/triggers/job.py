"""Waits for one job in the triggerer, without a worker slot, and lets the task's log follow the job's."""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from airflow_dlaws._compat import TRIGGER_HAS_ON_KILL, BaseTrigger, TriggerEvent, in_thread, killed_by_user
from airflow_dlaws.errors import DlawsError, ServiceRefused, ServiceUnavailable
from airflow_dlaws.hooks.aws import AwsConnection, shared_clients
from airflow_dlaws.hooks.launcher import launcher_for
from airflow_dlaws.jobs.reference import JobReference, JobStatus
from airflow_dlaws.jobs.wire import from_json, to_json
from airflow_dlaws.launchers.protocol import Launcher, LogCursor
from airflow_dlaws.launchers.watch import Look
from airflow_dlaws.triggers.departure import worker_gone
from airflow_dlaws.triggers.polling import looks
from airflow_dlaws.triggers.progress import ProgressTeller

#: Airflow gives a trigger's on_kill 30 seconds.
_KILL_LIMIT_S, _KILL_PAUSE_S = 20.0, 1.0


class JobEventKind(enum.StrEnum):
    """Why the trigger has fired."""

    #: The job will not change any more; `status` says how it ended.
    FINISHED = "finished"
    #: The deadline has passed; the trigger has asked for the job to be stopped.
    DEADLINE = "deadline"
    #: The job cannot be observed; it may be running.
    LOST = "lost"


@dataclass(frozen=True, kw_only=True)
class JobEvent:
    """What the trigger tells the task.

    :param job: name of the job that it tells of. Airflow on SQLite may hand a task the event of another trigger: the
        id of a deleted one is given to the next.
    """

    kind: JobEventKind
    job: str = ""
    status: JobStatus | None = None
    message: str = ""


class JobTrigger(BaseTrigger):
    """Fires once, when the job has ended, its deadline has passed, or it cannot be observed.

    :param connection: an AwsConnection, as JSON.
    :param reference: the JobReference, as JSON.
    :param poll_interval: seconds between looks.
    :param deadline: seconds since the epoch, so that a restarted triggerer does not start counting anew.
    :param stop_on_kill: stop the job when a user marks, clears or deletes the deferred task.
    :param progress_interval: seconds between two reports of progress.
    :param log_cursor: the LogCursor behind the last line in the task's log, as JSON.
    """

    def __init__(
        self,
        *,
        connection: Mapping[str, Any],
        reference: Mapping[str, Any],
        poll_interval: float,
        deadline: float,
        stop_on_kill: bool = True,
        progress_interval: float = 60,
        log_cursor: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.connection = from_json(AwsConnection, connection)
        self.reference = from_json(JobReference, reference)
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.stop_on_kill = stop_on_kill
        self.progress_interval = progress_interval
        self.log_cursor = from_json(LogCursor, log_cursor or {})

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what another triggerer needs to go on."""
        return (
            "airflow_dlaws.triggers.job.JobTrigger",
            {
                "connection": to_json(self.connection),
                "reference": to_json(self.reference),
                "poll_interval": self.poll_interval,
                "deadline": self.deadline,
                "stop_on_kill": self.stop_on_kill,
                "progress_interval": self.progress_interval,
                "log_cursor": to_json(self.log_cursor),
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch the job; yield one JobEvent as JSON."""
        began = time.monotonic()
        try:
            event = await self._watch()
            await worker_gone(self, began)
        except asyncio.CancelledError:
            if not TRIGGER_HAS_ON_KILL and self.task_instance is not None:
                await self.on_kill()
            raise
        yield TriggerEvent(to_json(event))  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Stop the job because a user has marked, cleared or deleted the task (called by Airflow 3.3 and later)."""
        if not await killed_by_user(self.task_instance):
            self.log.info("Job %s runs on: its task is still deferred, and a triggerer waits", self.reference.name)
            return
        if not self.stop_on_kill:
            self.log.warning("The task was killed; job %s runs on, as asked (stop_on_kill=False)", self.reference.name)
            return
        stopped = await self._stop_in_time()
        self.log.info("The task was killed: job %s %s", self.reference.name, "is stopped" if stopped else "had ended")

    async def _stop_in_time(self) -> bool:
        """Stop the job; nobody will ask again, so a service that cannot be reached is asked for as long as there is."""
        until = time.monotonic() + _KILL_LIMIT_S
        while True:
            try:
                return await in_thread(self._stop)
            except ServiceUnavailable as error:
                if time.monotonic() >= until:
                    raise
                self.log.warning("Job %s cannot be stopped yet: %s", self.reference.name, error)
                await asyncio.sleep(_KILL_PAUSE_S)

    async def _watch(self) -> JobEvent:
        seen = looks(self.connection, self.reference, poll_interval=self.poll_interval, cursor=self.log_cursor)
        progress = ProgressTeller(self.progress_interval, self.log)
        async with aclosing(seen):
            try:
                async with asyncio.timeout(self.deadline - time.time()) as limit:
                    async for look in seen:
                        self._report(look)
                        await progress.tell(look, self.task_instance)
                        if look.status is not None and look.status.terminal:
                            return self._event(JobEventKind.FINISHED, status=look.status)
            except ServiceRefused as error:
                return self._event(JobEventKind.LOST, message=str(error))
            except TimeoutError:
                if not limit.expired():
                    raise
        return await self._end_at_deadline()

    async def _end_at_deadline(self) -> JobEvent:
        """Stop the job at once; the task, once it has a worker, makes sure of it and fails."""
        try:
            await in_thread(self._stop)
        except DlawsError as error:
            return self._event(JobEventKind.DEADLINE, message=str(error))
        return self._event(JobEventKind.DEADLINE)

    def _event(self, kind: JobEventKind, *, status: JobStatus | None = None, message: str = "") -> JobEvent:
        return JobEvent(kind=kind, job=self.reference.name, status=status, message=message)

    def _report(self, look: Look) -> None:
        """Tell in the task's log what was seen: the one place for it while the task is deferred."""
        for line in look.lines:
            self.log.info("%s", line)
        if look.note:
            self.log.warning("%s", look.note)

    def _stop(self) -> bool:
        return self._launcher().stop(self.reference)

    def _launcher(self) -> Launcher[Any]:
        return launcher_for(self.reference.engine, shared_clients(self.connection))
