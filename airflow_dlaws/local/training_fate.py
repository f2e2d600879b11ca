"""What befalls a training job from outside: interruptions, broken instances, and its limits over all its lives."""

from __future__ import annotations

import time

from airflow_dlaws.local.context import LocalContext
from airflow_dlaws.local.faults import FaultOrder
from airflow_dlaws.local.job_run import STOP_GRACE_SECONDS, Ending, Strike
from airflow_dlaws.local.training_job import TrainingJob

#: How long AWS takes until it asks for instances again; it names no figure.
RETURNING_SECONDS = 2.0


class Fate:
    """Counts the lives of a job, and says when one must end."""

    def __init__(self, context: LocalContext, job: TrainingJob) -> None:
        self._context, self._job = context, job
        self._created = time.monotonic()
        self._began = 0.0
        self._ran = 0.0
        self._lives = self._restarts = 0
        #: Whether the instances of this life broke: what they had not uploaded is lost.
        self.broken = False

    def begin_life(self) -> None:
        """Training begins, on instances that are new."""
        self._began = time.monotonic()
        self._lives += 1
        self.broken = False

    def end_life(self) -> None:
        """The instances are gone, or have done their work."""
        self._ran += time.monotonic() - self._began

    def runtime_left(self) -> float:
        """Return how long the job may still run, in seconds: MaxRuntimeInSeconds are for all lives together."""
        return self._job.max_runtime - self._ran

    def may_restart(self) -> bool:
        """Tell whether RetryStrategy allows another life after an internal fault, and count it."""
        if self._restarts >= self._job.retries or self._job.stop_requested.is_set():
            return False
        self._restarts += 1
        return True

    def waited_too_long(self) -> bool:
        """Tell whether MaxWaitTimeInSeconds are over; the job begins to stop then."""
        wait = self._job.max_wait
        if wait is None or time.monotonic() - self._created < wait:
            return False
        self._job.give_up_waiting()
        return True

    def strike(self, elapsed: float) -> Strike | None:
        """Tell whether this life must end now.

        :param elapsed: seconds since training began in this life.
        """
        if self.waited_too_long():
            return Strike(Ending.WAITED, self._context.scaled(STOP_GRACE_SECONDS))
        if self._job.spot and (order := self._due("interruption", elapsed)):
            return Strike(Ending.INTERRUPTED, self._grace(order))
        if self._due("internal", elapsed):
            self.broken = True
            return Strike(Ending.BROKEN, None)
        return None

    def _due(self, kind: str, elapsed: float) -> FaultOrder | None:
        targets = frozenset({self._job.name, "CreateTrainingJob"})
        return self._context.faults.due(kind, targets, f"{self._job.arn} {self._lives}", elapsed)

    def _grace(self, order: FaultOrder) -> float:
        if order.grace_seconds is not None:
            return order.grace_seconds
        return self._context.scaled(STOP_GRACE_SECONDS)
