"""What becomes of a deferred task's job when people and machines interfere, in a real Airflow of the tested version.

Before Airflow 3.3 nobody calls a trigger's `on_kill`: the trigger that is cancelled must find out itself whether a
person acted or the triggerer restarts. Marking the whole run failed is an act that nothing but the trigger can hear;
marking the task is heard by the plugin too. The plugin alone hears the scheduler fail a task whose machine is lost.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil

from airflow_dlaws.local.airflow_api import wait_until
from airflow_dlaws.local.airflow_stack import LocalAirflow
from airflow_dlaws.local.process import LocalAws
from scripts.matrix.airflow_home import CheckFailed
from scripts.matrix.approving import approval_checks
from scripts.matrix.environments import Environment
from scripts.matrix.targets import ROOT

DAG, LAST = "train_deferred", "train_for_the_last_time"
_LIMIT_S = 60.0


def kill_checks(environment: Environment, aws: LocalAws, home: Path, bucket: str) -> dict[str, Any]:
    """Start that Airflow with the DAG of the tests; return the seconds from each act to the stopped job.

    :raises CheckFailed: a job was not stopped, or was stopped by a mere restart.
    """
    variables = {
        **aws.environment(),
        "AIRFLOW_CONN_AWS_DEFAULT": "aws://",
        "DLAWS_BUCKET": bucket,
    }
    folders = {"tests": ROOT / "tests" / "airflow" / "dags"}
    stack = LocalAirflow(home, folders, variables, python=environment.python)
    try:
        stack.start()
        stack.api.wait_for_dags({DAG, LAST}, limit_s=_LIMIT_S)
        for dag_id in (DAG, LAST):
            stack.api.unpause(dag_id)
        act = KillActs(stack, aws)
        return {
            "run_marked_failed": act.seconds_to_stop(act.mark_run_failed),
            "task_marked_failed": act.seconds_to_stop(act.mark_task_failed),
            "machine_lost": act.lose_machine(),
            "triggerer_restarted": act.restart_triggerer(),
            "progress_seen": act.seconds_to_progress(),
            "approvals": approval_checks(stack, aws, asks_people=not environment.target.airflow.startswith("3.0.")),
        }
    except (TimeoutError, RuntimeError) as error:
        raise CheckFailed(f"{error}\n{stack.tail('triggerer', 60)}") from error
    finally:
        stack.stop()


class KillActs:
    """What is done to a deferred task, and what its job says to that."""

    def __init__(self, stack: LocalAirflow, aws: LocalAws) -> None:
        self._stack, self._sagemaker = stack, aws.client("sagemaker")

    def seconds_to_stop(self, act: Callable[[str], None]) -> float:
        """Start a run, do something to it once its trigger runs, and wait until its job is stopped."""
        run_id, job = self._deferred_run()
        act(run_id)
        started = time.monotonic()
        self._wait(lambda: self._status(job) in ("Stopping", "Stopped"), f"{act.__name__}: job {job} is being stopped")
        return round(time.monotonic() - started, 1)

    def seconds_to_progress(self) -> float:
        """Start a run and wait until Airflow's API shows the progress of its task while that is deferred."""
        run_id, _ = self._deferred_run()
        started = time.monotonic()
        self._wait(lambda: self._progress(run_id), "the progress of a deferred task is an XCom")
        seen = round(time.monotonic() - started, 1)
        self.mark_run_failed(run_id)
        return seen

    def _progress(self, run_id: str) -> bool:
        shown = "progress" in self._xcoms(DAG, run_id)
        return shown and self._stack.api.task_state(DAG, run_id, "train") == "deferred"

    def _xcoms(self, dag_id: str, run_id: str) -> set[str]:
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/train/xcomEntries"
        return {entry["key"] for entry in self._stack.api.call("GET", path)["xcom_entries"]}

    def mark_task_failed(self, run_id: str) -> None:
        """Mark the task failed, as the UI does."""
        self._stack.api.set_task_state(DAG, run_id, "train", "failed")

    def mark_run_failed(self, run_id: str) -> None:
        """Mark the run failed, as the UI does."""
        self._stack.api.call("PATCH", f"/dags/{DAG}/dagRuns/{quote(run_id)}", {"state": "failed"})

    def lose_machine(self) -> float:
        """Kill a task that waits in the worker, and its supervisor; return the seconds until its job is stopped."""
        run_id = self._stack.api.trigger(LAST, {"seconds": 600})
        self._wait(lambda: "dlaws_on_kill" in self._xcoms(LAST, run_id), "the task waits for its job")
        job = self._stack.api.xcom(LAST, run_id, "train", "dlaws_on_kill")["kwargs"]["reference"]["name"]
        task = psutil.Process(self._stack.api.tasks(LAST, run_id)["train"]["pid"])
        for pid in (task.ppid(), task.pid):
            os.kill(pid, signal.SIGKILL)
        started = time.monotonic()
        self._wait(lambda: self._stack.api.run_state(LAST, run_id) == "failed", "the run has failed")
        self._wait(lambda: self._status(job) in ("Stopping", "Stopped"), f"job {job} is being stopped")
        return round(time.monotonic() - started, 1)

    def restart_triggerer(self) -> str:
        """End the triggerer in good order and start it again; return how the job ends.

        :raises CheckFailed: the job was stopped, or the run is not green.
        """
        run_id, job = self._deferred_run()
        self._stack.end_component("triggerer")
        self._stack.start_component("triggerer")
        state = self._stack.api.wait_for_run(DAG, run_id, limit_s=3 * _LIMIT_S)
        if (state, self._status(job)) != ("success", "Completed"):
            raise CheckFailed(f"after a restart of the triggerer the run is {state}, its job {self._status(job)}")
        return self._status(job)

    def _deferred_run(self) -> tuple[str, str]:
        """Start a run; return its id and its job's name once the triggerer has taken the trigger up."""
        run_id = self._stack.api.trigger(DAG)
        self._wait(lambda: self._taken_up(run_id), "the triggerer has taken the trigger up")
        job = self._stack.api.xcom(DAG, run_id, "train", "dlaws_job")["reference"]["name"]
        self._wait(lambda: self._status(job) == "InProgress", f"job {job} is running")
        return run_id, str(job)

    def _taken_up(self, run_id: str) -> bool:
        task = self._stack.api.tasks(DAG, run_id).get("train", {})
        return bool(task.get("state") == "deferred" and (task.get("trigger") or {}).get("triggerer_id"))

    def _status(self, job: str) -> str:
        return str(self._sagemaker.describe_training_job(TrainingJobName=job)["TrainingJobStatus"])

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        wait_until(condition, limit_s=_LIMIT_S, what=what, every_s=0.2)
