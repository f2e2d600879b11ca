"""`dlaws jobs` with a cluster: its jobs are listed, judged and stopped like any others."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred
from airflow_answers import Answers, answering
from running_task import RunningTask, aws_environment
from slurm_cluster import SlurmCluster
from test_slurm_operator import operator, trigger_of

from airflow_dlaws.cli import main
from airflow_dlaws.local.process import LocalAws


@pytest.fixture
def airflow() -> Iterator[tuple[str, Answers]]:
    """An Airflow of this test."""
    with answering() as served:
        yield served


def dlaws(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[dict[str, Any]]]:
    capsys.readouterr()
    status = main(["jobs", *words, "--json"])
    told = capsys.readouterr().out
    return status, json.loads(told)["jobs"] if told else []


@pytest.mark.slow
def test_jobs_of_a_cluster_are_listed_and_those_that_no_task_owns_are_stopped(
    cluster: SlurmCluster,
    local_aws: LocalAws,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    airflow: tuple[str, Answers],
) -> None:
    aws_environment(monkeypatch, local_aws)
    url, answers = airflow
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", url)
    names = {}
    for state in ("deferred", "failed"):
        run_id = f"{state}-{uuid.uuid4().hex[:8]}"
        with pytest.raises(TaskDeferred) as deferred:
            operator(cluster, tmp_path, bucket, "wait.py", instance_count=1).execute(
                RunningTask("train", run_id=run_id).context
            )
        names[state] = trigger_of(deferred.value).reference.name
        answers.by_path[f"/api/v2/dags/dag/dagRuns/{run_id}/taskInstances/train"] = (
            200,
            {"state": state, "max_tries": 0},
        )
    where = ("--cluster", f"ssh://slurm_head{cluster.shared / tmp_path.name}")
    status, rows = dlaws(capsys, "list", *where)
    listed = {row["name"]: row for row in rows if row["kind"] == "slurm"}
    assert (status, sorted(listed)) == (0, sorted(names.values()))
    assert {(row["dag_id"], row["task_id"], row["machines"]) for row in listed.values()} == {
        ("dag", "train", "1 x node")
    }
    orphans = ("--orphans", "--airflow-url", url, "--deployment", url, "--older-than", "0s", "--dag", "dag", *where)
    _, rows = dlaws(capsys, "stop", *orphans, "--yes")
    assert [(row["name"], row["done"]) for row in rows if row["kind"] == "slurm"] == [(names["failed"], "stopped")]
    cluster.wait_until(lambda: cluster.jobs(names["failed"])[0][1] in {"FAILED", "CANCELLED"})
    status, rows = dlaws(capsys, "stop", names["deferred"], "--yes", *where)
    assert (status, [row["done"] for row in rows]) == (0, ["stopped"])
