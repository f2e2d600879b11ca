"""A sweep in a real Airflow outlives its triggerer: each trial is journalled and paid for once."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from airflow_dlaws.jobs.wire import from_json
from airflow_dlaws.local.airflow_api import wait_until
from airflow_dlaws.local.airflow_stack import LocalAirflow
from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.sweeps.journal import SweepJournal, TrialState
from airflow_dlaws.sweeps.leaderboard import SweepResult

pytestmark = [pytest.mark.airflow, pytest.mark.slow]
BUCKET = "airflow-tests"
TRIALS = 16


def journals(local_aws: LocalAws) -> list[SweepJournal]:
    """Return all sweeps of the bucket."""
    s3 = local_aws.client("s3")
    keys = [row["Key"] for row in s3.list_objects_v2(Bucket=BUCKET, Prefix="sweeps/sweeps/").get("Contents", [])]
    bodies = [s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys if key.endswith("journal.json")]
    return [from_json(SweepJournal, json.loads(body)) for body in bodies]


def jobs_by_trial(local_aws: LocalAws, run_id: str) -> dict[str, list[str]]:
    """Return the states of all training jobs of a run, by the number of their trial."""
    sagemaker, found = local_aws.client("sagemaker"), dict[str, list[str]]()
    for row in sagemaker.get_paginator("list_training_jobs").paginate().search("TrainingJobSummaries[]"):
        answer: list[dict[str, Any]] = sagemaker.list_tags(ResourceArn=row["TrainingJobArn"])["Tags"]
        tags = {tag["Key"]: tag["Value"] for tag in answer}
        if tags.get("dlaws:run") == run_id:
            found.setdefault(tags["dlaws:trial"], []).append(row["TrainingJobStatus"])
    return found


def test_killing_the_triggerer_in_the_middle_of_a_sweep_loses_and_repeats_no_trial(
    airflow: LocalAirflow, local_aws: LocalAws
) -> None:
    airflow.api.wait_for_dags({"sweep_once"}, limit_s=60)
    airflow.api.unpause("sweep_once")
    run_id = airflow.api.trigger("sweep_once")
    wait_until(
        lambda: any(sum(trial.ended for trial in journal.trials) >= 5 for journal in journals(local_aws)),
        limit_s=120,
        what="five trials have ended",
    )
    airflow.kill_component("triggerer")
    (at_the_kill,) = journals(local_aws)
    assert at_the_kill.ended_at is None
    assert len(at_the_kill.trials) < TRIALS
    airflow.start_component("triggerer")
    assert airflow.api.wait_for_run("sweep_once", run_id, limit_s=240) == "success"

    (journal,) = journals(local_aws)
    jobs = jobs_by_trial(local_aws, run_id)
    assert [trial.number for trial in journal.trials] == list(range(TRIALS))
    assert {number: len(states) for number, states in jobs.items()} == {str(number): 1 for number in range(TRIALS)}
    for before, after in zip(at_the_kill.trials, journal.trials, strict=False):
        assert (after.parameters, after.job) == (before.parameters, before.job or after.job)
    ended = {TrialState.COMPLETED: "Completed", TrialState.STOPPED: "Stopped"}
    assert {str(trial.number): [ended[trial.state]] for trial in journal.trials} == jobs
    assert Counter(trial.state for trial in journal.trials)[TrialState.STOPPED] >= TRIALS // 2

    result = from_json(SweepResult, airflow.api.xcom("sweep_once", run_id, "sweep"))
    best = min(
        (trial for trial in journal.trials if trial.state is TrialState.COMPLETED), key=lambda trial: trial.value
    )
    assert (result.best_parameters, result.best_value) == (best.parameters, best.value)
    assert set(airflow.api.links("sweep_once", run_id, "sweep")) >= {"Report", "AWS console"}
