"""One task, one paid job: whatever is killed, retried, cleared or marked, in a real Airflow."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from contextlib import closing, suppress
from typing import Any

import psutil
import pytest

from airflow_dlaws.local.airflow_api import wait_until
from airflow_dlaws.local.airflow_stack import LocalAirflow
from airflow_dlaws.local.process import LocalAws

pytestmark = [pytest.mark.airflow, pytest.mark.slow]


@pytest.fixture
def sagemaker(local_aws: LocalAws) -> Any:
    """Return a SageMaker client."""
    return local_aws.client("sagemaker")


def jobs_of(sagemaker: Any, dag_id: str, run_id: str) -> list[dict[str, Any]]:
    """Return all training jobs that carry the tags of this run."""
    found = []
    for row in sagemaker.get_paginator("list_training_jobs").paginate().search("TrainingJobSummaries[]"):
        tags = {tag["Key"]: tag["Value"] for tag in sagemaker.list_tags(ResourceArn=row["TrainingJobArn"])["Tags"]}
        if (tags.get("dlaws:dag"), tags.get("dlaws:run")) == (dag_id, run_id):
            found.append(row)
    return found


def start_and_wait_for_job(airflow: LocalAirflow, sagemaker: Any, dag_id: str, **conf: Any) -> str:
    """Trigger a run; return its id when its training job is running."""
    run_id = airflow.api.trigger(dag_id, conf)
    wait_until(
        lambda: [job["TrainingJobStatus"] for job in jobs_of(sagemaker, dag_id, run_id)] == ["InProgress"],
        limit_s=60,
        what=f"the training job of {dag_id} is running",
        every_s=0.1,
    )
    return run_id


def test_killing_the_task_process_ends_with_one_job_and_a_green_task(airflow: LocalAirflow, sagemaker: Any) -> None:
    run_id = start_and_wait_for_job(airflow, sagemaker, "train_waiting")
    os.kill(airflow.api.tasks("train_waiting", run_id)["train"]["pid"], signal.SIGKILL)
    assert airflow.api.wait_for_run("train_waiting", run_id, limit_s=120) == "success"
    assert airflow.api.tasks("train_waiting", run_id)["train"]["try_number"] == 2
    (job,) = jobs_of(sagemaker, "train_waiting", run_id)
    assert job["TrainingJobStatus"] == "Completed"
    assert airflow.api.xcom("train_waiting", run_id, "train")["job_name"] == job["TrainingJobName"]


def test_killing_the_triggerer_ends_with_one_job_and_a_green_task(airflow: LocalAirflow, sagemaker: Any) -> None:
    run_id = start_and_wait_for_job(airflow, sagemaker, "train_deferred")
    wait_until(
        lambda: airflow.api.task_state("train_deferred", run_id, "train") == "deferred", limit_s=30, what="deferred"
    )
    airflow.kill_component("triggerer")
    airflow.start_component("triggerer")
    assert airflow.api.wait_for_run("train_deferred", run_id, limit_s=180) == "success"
    assert len(jobs_of(sagemaker, "train_deferred", run_id)) == 1


def test_a_trigger_that_goes_to_another_triggerer_takes_its_job_along(airflow: LocalAirflow, sagemaker: Any) -> None:
    """As where a triggerer hangs, or has lost the database, and finds its triggers in other hands afterwards."""
    run_id = start_and_wait_for_job(airflow, sagemaker, "train_deferred", seconds=40)

    def triggerer() -> int:
        job = airflow.api.tasks("train_deferred", run_id)["train"]["triggerer_job"]
        return int(job["id"]) if job else 0

    wait_until(lambda: bool(triggerer()), limit_s=30, what="a triggerer has taken the trigger up")
    first = triggerer()
    airflow.start_component("triggerer", name="another-triggerer")
    try:
        wait_until(lambda: len(triggerers(airflow)) == 2, limit_s=60, what="another triggerer runs")
        (other,) = triggerers(airflow) - {first}
        with closing(sqlite3.connect(airflow.home / "airflow.db", timeout=60)) as database, database:
            database.execute("UPDATE trigger SET triggerer_id = ? WHERE triggerer_id = ?", (other, first))
        assert airflow.api.wait_for_run("train_deferred", run_id, limit_s=120) == "success"
    finally:
        airflow.kill_component("another-triggerer")
    assert "its task is still deferred" in airflow.api.log("train_deferred", run_id, "train", 1)
    assert [job["TrainingJobStatus"] for job in jobs_of(sagemaker, "train_deferred", run_id)] == ["Completed"]


def triggerers(airflow: LocalAirflow) -> set[int]:
    """Return the ids of the triggerers that are alive."""
    return {job["id"] for job in airflow.api.call("GET", "/jobs", job_type="TriggererJob", is_alive="true")["jobs"]}


def test_clearing_a_green_task_starts_exactly_one_more_job(airflow: LocalAirflow, sagemaker: Any) -> None:
    run_id = airflow.api.trigger("train_deferred", {"seconds": 1})
    assert airflow.api.wait_for_run("train_deferred", run_id, limit_s=180) == "success"
    assert len(jobs_of(sagemaker, "train_deferred", run_id)) == 1
    airflow.api.clear("train_deferred", run_id, "train")
    wait_until(lambda: len(jobs_of(sagemaker, "train_deferred", run_id)) == 2, limit_s=60, what="a second job")
    assert airflow.api.wait_for_run("train_deferred", run_id, limit_s=120) == "success"
    assert [job["TrainingJobStatus"] for job in jobs_of(sagemaker, "train_deferred", run_id)] == ["Completed"] * 2


def test_a_run_that_is_deleted_and_made_again_with_its_id_trains_anew(airflow: LocalAirflow, sagemaker: Any) -> None:
    request = {"dag_run_id": "made-twice", "logical_date": None, "conf": {"seconds": 1}}
    for jobs in (1, 2):
        airflow.api.call("POST", "/dags/train_waiting/dagRuns", request)
        assert airflow.api.wait_for_run("train_waiting", "made-twice", limit_s=120) == "success"
        assert len(jobs_of(sagemaker, "train_waiting", "made-twice")) == jobs
        airflow.api.call("DELETE", "/dags/train_waiting/dagRuns/made-twice")


@pytest.mark.parametrize(("triggerer", "mark"), [("running", "failed"), ("down", "failed"), ("down", "skipped")])
def test_marking_a_deferred_task_stops_its_job(
    airflow: LocalAirflow, sagemaker: Any, triggerer: str, mark: str
) -> None:
    if triggerer == "down":  # nobody has taken the trigger up: as in the second after the task has deferred
        airflow.kill_component("triggerer")
    run_id = start_and_wait_for_job(airflow, sagemaker, "train_deferred")
    wait_until(
        lambda: airflow.api.task_state("train_deferred", run_id, "train") == "deferred", limit_s=30, what="deferred"
    )
    airflow.api.set_task_state("train_deferred", run_id, "train", mark)
    marked = time.monotonic()
    wait_until(
        lambda: jobs_of(sagemaker, "train_deferred", run_id)[0]["TrainingJobStatus"] in ("Stopping", "Stopped"),
        limit_s=30,
        what="the job is being stopped",
    )
    print(f"triggerer {triggerer}: the job was being stopped {time.monotonic() - marked:.1f} s after the mark")
    wait_until(
        lambda: jobs_of(sagemaker, "train_deferred", run_id)[0]["TrainingJobStatus"] == "Stopped",
        limit_s=30,
        what="the job is stopped",
    )
    assert len(jobs_of(sagemaker, "train_deferred", run_id)) == 1
    assert airflow.api.task_state("train_deferred", run_id, "train") == mark
    if triggerer == "down":
        airflow.start_component("triggerer")


def test_marking_a_task_while_it_starts_its_job_leaves_none_running(airflow: LocalAirflow, sagemaker: Any) -> None:
    dag_id, api = "train_after_a_while", airflow.api
    api.unpause(dag_id)
    run_id = api.trigger(dag_id, {"seconds": 60})

    def begun() -> bool:
        with suppress(RuntimeError):  # not there yet
            return bool(api.xcom(dag_id, run_id, "train", "begun"))
        return False

    wait_until(begun, limit_s=60, what="the task has begun", every_s=0.1)
    process = psutil.Process(api.tasks(dag_id, run_id)["train"]["pid"])
    api.set_task_state(dag_id, run_id, "train", "failed")
    process.wait(timeout=30)
    wait_until(
        lambda: {job["TrainingJobStatus"] for job in jobs_of(sagemaker, dag_id, run_id)} <= {"Stopped"},
        limit_s=30,
        what="the job that was started all the same is stopped",
    )
    assert api.task_state(dag_id, run_id, "train") == "failed"


@pytest.mark.parametrize("triggerer", ["running", "down"])
def test_clearing_a_deferred_task_leaves_only_its_new_job_running(
    airflow: LocalAirflow, sagemaker: Any, triggerer: str
) -> None:
    if triggerer == "down":
        airflow.kill_component("triggerer")
    run_id = start_and_wait_for_job(airflow, sagemaker, "train_deferred")
    wait_until(
        lambda: airflow.api.task_state("train_deferred", run_id, "train") == "deferred", limit_s=30, what="deferred"
    )
    airflow.api.clear("train_deferred", run_id, "train")
    wait_until(lambda: len(jobs_of(sagemaker, "train_deferred", run_id)) == 2, limit_s=60, what="a second job")
    if triggerer == "down":
        airflow.start_component("triggerer")
    assert airflow.api.wait_for_run("train_deferred", run_id, limit_s=120) == "success"
    newest_first = [job["TrainingJobStatus"] for job in jobs_of(sagemaker, "train_deferred", run_id)]
    assert sorted(newest_first) == ["Completed", "Stopped"]
