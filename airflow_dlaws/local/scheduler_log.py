"""What the scheduler has heard of a task, as its log tells."""

from __future__ import annotations

from airflow_dlaws.local.airflow_api import wait_until
from airflow_dlaws.local.airflow_stack import LocalAirflow


def wait_until_heard(airflow: LocalAirflow, dag_id: str, run_id: str, task_id: str, try_number: int = 1) -> None:
    """Wait until the scheduler has heard that the worker of a deferred try has left.

    Airflow 3.3 fails a task that is back before (apache/airflow#72716), and of two workers here one tells only after
    five seconds. Triggers wait for that. A person's answer does not pass through one: Airflow's API takes the task up
    at once. People take longer than five seconds to answer, and tests do not.
    """
    of_task = f"TaskInstanceKey(dag_id='{dag_id}', task_id='{task_id}', run_id='{run_id}', try_number={try_number},"

    def heard() -> bool:
        lines = (airflow.home / "scheduler.log").read_text(errors="replace").splitlines()
        return any("Received executor event" in line and of_task in line for line in lines)

    wait_until(heard, limit_s=30, what=f"the scheduler has heard that the worker of {task_id} has left")
