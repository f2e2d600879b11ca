"""The link to a task's progress in Airflow's own UI."""

from __future__ import annotations

import dataclasses

from airflow_dlaws.jobs.identity import TaskIdentity
from airflow_dlaws.links.aws import progress_url

TASK = TaskIdentity(
    dag_id="retrain", run_id="manual__2026-11-24T12:00:00+00:00", task_id="train", deployment="https://airflow/"
)


def test_it_leads_to_the_xcoms_of_the_task() -> None:
    run = "manual__2026-11-24T12%3A00%3A00%2B00%3A00"
    assert progress_url(TASK) == f"https://airflow/dags/retrain/runs/{run}/tasks/train/xcom"
    mapped = dataclasses.replace(TASK, map_index=3)
    assert progress_url(mapped) == f"https://airflow/dags/retrain/runs/{run}/tasks/train/mapped/3/xcom"


def test_an_airflow_without_an_address_has_no_link() -> None:
    assert progress_url(dataclasses.replace(TASK, deployment="")) == ""
