"""`dlaws jobs stop --orphans` finds and ends what has outlived its task: a job that was to run on in any case."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from test_one_job_per_task import jobs_of, start_and_wait_for_job

from airflow_dlaws.cli import main
from airflow_dlaws.local.airflow_api import wait_until
from airflow_dlaws.local.airflow_stack import LocalAirflow
from airflow_dlaws.local.process import LocalAws

pytestmark = [pytest.mark.airflow, pytest.mark.slow]
DAG = "train_in_any_case"


def verdicts(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[dict[str, Any], dict[str, int]]:
    """Run `dlaws jobs ... --orphans --json`; return the job it shows, and how many jobs got which verdict."""
    capsys.readouterr()
    assert main(["jobs", *words, "--orphans", "--older-than", "0s", "--dag", DAG, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    return (document["jobs"] or [{}])[0], document["verdicts"]


def test_a_job_that_was_to_run_on_when_its_task_is_marked_failed_is_an_orphan_and_is_stopped(
    airflow: LocalAirflow, local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {
        **local_aws.environment(),
        "DLAWS_AIRFLOW_URL": airflow.url,
        "DLAWS_DEPLOYMENT": airflow.url,
    }.items():
        monkeypatch.setenv(name, value)
    sagemaker = local_aws.client("sagemaker")
    airflow.api.unpause(DAG)
    run_id = start_and_wait_for_job(airflow, sagemaker, DAG, seconds=600)
    wait_until(lambda: bool(airflow.api.tasks(DAG, run_id)["train"]["pid"]), limit_s=30, what="the task has a process")
    job, counts = verdicts(capsys, "list")
    assert (job, counts["owned"]) == ({}, 1)
    airflow.api.set_task_state(DAG, run_id, "train", "failed")
    job, _ = verdicts(capsys, "list")
    assert (job["run_id"], job["verdict"], job["reason"]) == (run_id, "orphan", "its task has ended: failed")
    wait_until(lambda: airflow.api.run_state(DAG, run_id) == "failed", limit_s=60, what="the run has failed")
    airflow.api.call("DELETE", f"/dags/{DAG}/dagRuns/{quote(run_id)}")
    job, _ = verdicts(capsys, "stop", "--yes")
    assert (job["reason"], job["done"]) == ("Airflow has no such run any more", "stopped")
    wait_until(
        lambda: jobs_of(sagemaker, DAG, run_id)[0]["TrainingJobStatus"] == "Stopped", limit_s=30, what="it is stopped"
    )
    assert verdicts(capsys, "list")[0] == {}
