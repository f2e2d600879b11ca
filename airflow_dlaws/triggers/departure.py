"""Keeps a task from coming back before its worker has left."""

from __future__ import annotations

import asyncio
import time

from airflow_dlaws._compat import BaseTrigger

#: Seconds after a deferral in which the scheduler hears that the worker has left. The worker's supervisor looks every
#: 5 s whether its task's process has ended: of 132 workers of Airflow 3.3.2, 51 were heard 5.1 to 5.9 s late.
WORKER_LEAVES_S = 7.0


async def worker_gone(trigger: BaseTrigger, began: float) -> None:
    """Wait until the worker that has deferred the task must have left; call it before the trigger fires.

    A task that is back earlier is failed: the scheduler takes the word that its worker has left for that of a worker
    killed from outside (apache/airflow#72716).

    :param began: when the trigger began to run, by `time.monotonic()`. A trigger that no task waits for does not wait.
    """
    if trigger.task_instance is not None:
        await asyncio.sleep(max(0.0, began + WORKER_LEAVES_S - time.monotonic()))
