"""Closes gaps in Airflow: tasks that end while nobody is left who could stop what they pay for.

Airflow calls `BaseTrigger.on_kill` only for triggers that run. Between the moment a task defers and the moment the
triggerer starts its trigger (a second; longer while the triggerer is down) nobody would. Nor would anybody where a
worker has died, and then the scheduler fails the task for the last time, or a user marks the task or its run. This
listener hears the scheduler and the API server set the state and calls the trigger's `on_kill` there; stopping twice
does no harm.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

from airflow_dlaws.jobs.reference import ON_KILL_XCOM
from airflow_dlaws.plugins.on_kill import call_on_kill

log = logging.getLogger(__name__)

#: The new state is committed within milliseconds; until then a stopped job could wake the deferred task up.
_COMMIT_SECONDS = 1.0
#: Before each look for that state. A scheduler that ends runs which have timed out commits after all of them.
_PAUSES_S = (0.0, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
#: Seconds that a process may take to start, and one `on_kill` in it: as long as Airflow gives it.
_START_LIMIT_S, _KILL_LIMIT_S = 120, 30
#: One process at a time: a machine that is lost may have run many tasks, and schedulers are small.
_turn = threading.Lock()
#: With these words the scheduler ends a run whose tasks have all ended before. With others they end with it, whatever
#: they have started: by a timeout of the run, or by a user who marks it.
_ENDED_BY_THEMSELVES = ("success", "task_failure", "all_tasks_deadlocked")
_ENDED = ("success", "failed", "skipped")


class KilledTasksListener:
    """Stops what a task of this package pays for, when it is ended from outside."""

    @hookimpl
    def on_task_instance_failed(self, previous_state: Any, task_instance: Any, error: Any) -> None:
        """Hear that a task was marked failed, or that the scheduler has heard nothing from its worker."""
        end_what_is_paid_for(task_instance)

    @hookimpl
    def on_task_instance_success(self, previous_state: Any, task_instance: Any) -> None:
        """Hear that a task was marked a success."""
        end_what_is_paid_for(task_instance)

    @hookimpl
    def on_task_instance_skipped(self, previous_state: Any, task_instance: Any) -> None:
        """Hear that a task was marked skipped, which Airflow 3.0 does not tell."""
        end_what_is_paid_for(task_instance)

    @hookimpl
    def on_dag_run_failed(self, dag_run: Any, msg: str) -> None:
        """Hear that a run was marked failed, or has timed out."""
        end_tasks_of(dag_run, msg)

    @hookimpl
    def on_dag_run_success(self, dag_run: Any, msg: str) -> None:
        """Hear that a run was marked a success."""
        end_tasks_of(dag_run, msg)


def end_what_is_paid_for(task_instance: Any) -> None:
    """End in a thread what an ended task instance has begun, be it deferred or left by its worker.

    Only the API server and the scheduler know task instances as rows of the database; in a worker, where a task has
    ended by itself, there is nothing to be found on them.
    """
    row = getattr(task_instance, "trigger", None)
    if row is not None:
        if row.classpath.startswith("airflow_dlaws."):
            _in_thread(call_on_kill, row.classpath, dict(row.kwargs))
    elif hasattr(task_instance, "get_dagrun"):
        ti = task_instance
        _in_thread(_end_noted, ti.dag_id, ti.run_id, {"task_id": ti.task_id, "map_index": ti.map_index})


def end_tasks_of(dag_run: Any, msg: str) -> None:
    """End in a thread what tasks have begun that have ended with their run, such as those that waited for a retry.

    Before Airflow 3.3 nobody is told of the tasks of a run that is marked.
    """
    if msg not in _ENDED_BY_THEMSELVES:
        _in_thread(_end_noted, dag_run.dag_id, dag_run.run_id, {})


def _in_thread(function: Callable[..., None], *arguments: Any) -> None:
    def run() -> None:
        time.sleep(_COMMIT_SECONDS)
        try:
            function(*arguments)
        except Exception:
            # Nobody waits for this thread: the server's log is the only place where this can be told.
            log.exception("cannot stop what a killed task had started: %s", arguments)

    threading.Thread(target=run, daemon=True).start()


def _end_noted(dag_id: str, run_id: str, of: Mapping[str, Any]) -> None:
    """End what tasks of a run that have ended have noted in this life of theirs.

    A process of its own does it. The scheduler may fork a worker at any moment, and what a thread imports just then
    stays locked in there for ever.
    """
    noted = _noted(dag_id, run_id, of)
    if not noted:
        return
    log.info("Tasks of run %s of %s have ended while nobody watched what they pay for: %s", run_id, dag_id, noted)
    with _turn:
        subprocess.run(
            [sys.executable, "-m", "airflow_dlaws.plugins.on_kill"],
            input=json.dumps(noted),
            text=True,
            check=True,
            timeout=_START_LIMIT_S + _KILL_LIMIT_S * len(noted),
            # As servers do, it finds connections in Airflow's database.
            env={**os.environ, "_AIRFLOW_PROCESS_CONTEXT": "server"},
        )


def _noted(dag_id: str, run_id: str, of: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what the tasks have noted, once they have ended in the database too; of those that have not, nothing."""
    for pause in _PAUSES_S:
        time.sleep(pause)
        rows = _rows(dag_id, run_id, of)
        if all(ended for ended, _, _ in rows):
            break
    if unread := [value for _, _, value in rows if not isinstance(value, dict)]:
        log.warning("The XCom backend keeps %s elsewhere, at %s: what it names is not stopped", ON_KILL_XCOM, unread)
    # What a former life of a task began was ended when it was cleared.
    return [
        {"classpath": value["classpath"], "kwargs": value["kwargs"]}
        for ended, life, value in rows
        if ended and isinstance(value, dict) and value["life"] == life
    ]


def _rows(dag_id: str, run_id: str, of: Mapping[str, Any]) -> list[tuple[bool, int, Any]]:
    """Return for each task that has noted something: whether it has ended, in which life it is, what it has noted."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import and_, select

    fields = ("dag_id", "run_id", "task_id", "map_index")
    same = and_(*(getattr(XComModel, field) == getattr(TaskInstance, field) for field in fields))
    of_tasks = {"dag_id": dag_id, "run_id": run_id, **of}
    query = (
        select(TaskInstance.state, TaskInstance.max_tries, XComModel.value)
        .join(XComModel, same)
        .where(XComModel.key == ON_KILL_XCOM)
        .where(*(getattr(XComModel, field) == value for field, value in of_tasks.items()))
    )
    with create_session() as session:
        return [(state in _ENDED, life, value) for state, life, value in session.execute(query)]


class DlawsPlugin(AirflowPlugin):
    """Registers the listener with Airflow (entry point `airflow.plugins`)."""

    name = "dlaws"
    listeners = [KilledTasksListener()]
