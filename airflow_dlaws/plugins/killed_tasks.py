"""Closes a gap in Airflow: a deferred task that a user marks before the triggerer has taken its trigger up.

Airflow calls `BaseTrigger.on_kill` only for triggers that run. Between the moment a task defers and the moment the
triggerer starts its trigger (a second; longer while the triggerer is down) nobody would stop what the task pays for.
This listener hears the API server set the state and calls the trigger's `on_kill` there; stopping twice does no harm.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

log = logging.getLogger(__name__)

#: The API server commits the new state within milliseconds; until then a stopped job could wake the deferred task up.
_COMMIT_SECONDS = 1.0


class KilledTasksListener:
    """Stops what a deferred task of this package paid for, when a user marks the task."""

    @hookimpl
    def on_task_instance_failed(self, previous_state: Any, task_instance: Any, error: Any) -> None:
        """Hear that a task was marked failed."""
        kill_trigger_of(task_instance)

    @hookimpl
    def on_task_instance_success(self, previous_state: Any, task_instance: Any) -> None:
        """Hear that a task was marked a success."""
        kill_trigger_of(task_instance)

    @hookimpl
    def on_task_instance_skipped(self, previous_state: Any, task_instance: Any) -> None:
        """Hear that a task was marked skipped, which Airflow 3.0 does not tell."""
        kill_trigger_of(task_instance)


def kill_trigger_of(task_instance: Any) -> threading.Thread | None:
    """Call `on_kill` of the trigger that a task instance waits for, in a thread; None where it waits for none of ours.

    Only the API server knows task instances as rows of the database; in a worker, where a task has ended by itself,
    there is no trigger to be found on them.
    """
    row = getattr(task_instance, "trigger", None)
    if row is None or not row.classpath.startswith("airflow_dlaws."):
        return None
    thread = threading.Thread(target=_kill, args=(row.classpath, dict(row.kwargs)), daemon=True)
    thread.start()
    return thread


def _kill(classpath: str, kwargs: Mapping[str, Any]) -> None:
    module, _, name = classpath.rpartition(".")
    time.sleep(_COMMIT_SECONDS)
    try:
        trigger = getattr(importlib.import_module(module), name)(**kwargs)
        if hasattr(trigger, "on_kill"):  # before Airflow 3.3 only those have it that have something to stop
            asyncio.run(trigger.on_kill())
    except Exception:
        # Nobody waits for this thread: the server's log is the only place where this can be told.
        log.exception("%s could not stop what a killed task had started; its arguments: %s", classpath, kwargs)


class DlawsPlugin(AirflowPlugin):
    """Registers the listener with Airflow (entry point `airflow.plugins`)."""

    name = "dlaws"
    listeners = [KilledTasksListener()]
