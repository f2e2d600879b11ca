"""The job of a worker that has died, where no try of its task is to come: nobody is left who could stop it."""

from __future__ import annotations

import os
import signal
from typing import Any
from urllib.parse import quote

import psutil
import pytest
from test_one_job_per_task import jobs_of, start_and_wait_for_job

from airflow_dlaws.local.airflow_api import wait_until
from airflow_dlaws.local.airflow_stack import LocalAirflow
from airflow_dlaws.local.process import LocalAws

pytestmark = [pytest.mark.airflow, pytest.mark.slow]
LAST, AGAIN, IN_TIME = "train_for_the_last_time", "train_again_tomorrow", "train_in_time"


@pytest.fixture
def sagemaker(airflow: LocalAirflow, local_aws: LocalAws) -> Any:
    """Return a SageMaker client, once the DAGs run."""
    for dag_id in (LAST, AGAIN, IN_TIME):
        airflow.api.unpause(dag_id)
    return local_aws.client("sagemaker")


def worker_of(airflow: LocalAirflow, dag_id: str, run_id: str) -> psutil.Process:
    """Return the process of a task that waits for its job, once it has noted how that is stopped."""

    def waits() -> bool:
        try:
            return bool(airflow.api.xcom(dag_id, run_id, "train", "dlaws_on_kill"))
        except RuntimeError:
            return False

    wait_until(waits, limit_s=30, what="the task waits for its job")
    return psutil.Process(airflow.api.tasks(dag_id, run_id)["train"]["pid"])


def lose_machine_of(task: psutil.Process) -> None:
    """Kill a task's process and its supervisor, which would tell Airflow, at once."""
    for pid in (task.ppid(), task.pid):
        os.kill(pid, signal.SIGKILL)


def wait_until_stopped(airflow: LocalAirflow, sagemaker: Any, dag_id: str, run_id: str) -> None:
    wait_until(
        lambda: [job["TrainingJobStatus"] for job in jobs_of(sagemaker, dag_id, run_id)] == ["Stopped"],
        limit_s=120,
        what="the job is stopped",
    )


def test_a_machine_that_is_lost_in_the_last_try_leaves_no_job_running(airflow: LocalAirflow, sagemaker: Any) -> None:
    run_id = start_and_wait_for_job(airflow, sagemaker, LAST, seconds=600)
    lose_machine_of(worker_of(airflow, LAST, run_id))
    assert airflow.api.wait_for_run(LAST, run_id, limit_s=120) == "failed"
    wait_until_stopped(airflow, sagemaker, LAST, run_id)


@pytest.mark.parametrize("state", ["failed", "success"])
def test_a_task_that_is_marked_after_its_machine_was_lost_leaves_no_job_running(
    airflow: LocalAirflow, sagemaker: Any, state: str
) -> None:
    run_id = start_and_wait_for_job(airflow, sagemaker, LAST, seconds=600)
    lose_machine_of(worker_of(airflow, LAST, run_id))
    airflow.api.set_task_state(LAST, run_id, "train", state)
    wait_until_stopped(airflow, sagemaker, LAST, run_id)


def fail_first_try(airflow: LocalAirflow, sagemaker: Any, dag_id: str) -> str:
    """Start a run and kill its task; return its id when the task waits for its retry and the job runs."""
    run_id = start_and_wait_for_job(airflow, sagemaker, dag_id, seconds=600)
    os.kill(worker_of(airflow, dag_id, run_id).pid, signal.SIGKILL)
    wait_until(
        lambda: airflow.api.task_state(dag_id, run_id, "train") == "up_for_retry", limit_s=60, what="a retry is to come"
    )
    (job,) = jobs_of(sagemaker, dag_id, run_id)
    assert job["TrainingJobStatus"] == "InProgress"
    return run_id


@pytest.mark.parametrize("marked", ["task", "run"])
def test_what_is_marked_while_a_task_waits_for_its_retry_leaves_no_job_running(
    airflow: LocalAirflow, sagemaker: Any, marked: str
) -> None:
    run_id = fail_first_try(airflow, sagemaker, AGAIN)
    if marked == "task":
        airflow.api.set_task_state(AGAIN, run_id, "train", "failed")
    else:
        airflow.api.call("PATCH", f"/dags/{AGAIN}/dagRuns/{quote(run_id)}", {"state": "failed"})
    wait_until_stopped(airflow, sagemaker, AGAIN, run_id)


def test_a_run_that_times_out_while_a_task_waits_for_its_retry_leaves_no_job_running(
    airflow: LocalAirflow, sagemaker: Any
) -> None:
    run_id = fail_first_try(airflow, sagemaker, IN_TIME)
    assert airflow.api.wait_for_run(IN_TIME, run_id, limit_s=90) == "failed"
    wait_until_stopped(airflow, sagemaker, IN_TIME, run_id)
