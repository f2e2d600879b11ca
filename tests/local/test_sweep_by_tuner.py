"""HyperparameterSweepOperator with engine="sagemaker": a tuning job of the local AWS, whose trials are real jobs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from running_task import aws_environment
from sweep_task import SPACE, SweepTask, reference_of, trigger_of

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.wire import from_json
from airflow_dlaws.launchers.protocol import LogCursor
from airflow_dlaws.launchers.tuning import TuningLauncher
from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.sweeps.journal import TrialState
from airflow_dlaws.sweeps.leaderboard import Leaderboard, SweepResult

HYPERBAND = {"min_resource": 1, "max_resource": 12}
FOREVER = {"hyperparameters": {"seconds": 60}}


class TunedTask(SweepTask):
    """One task whose sweep is SageMaker's."""

    def operator(self, **changes: Any) -> Any:
        return super().operator(**{"engine": "sagemaker", **changes})

    def tunings(self) -> list[dict[str, Any]]:
        """Return the tuning jobs of this task, in the order of their creation."""
        pages = self.sagemaker.get_paginator("list_hyper_parameter_tuning_jobs").paginate(SortBy="CreationTime")
        found = []
        for row in pages.search("HyperParameterTuningJobSummaries[]"):
            tags = self.sagemaker.list_tags(ResourceArn=row["HyperParameterTuningJobArn"])["Tags"]
            if {"Key": "dlaws:run", "Value": self.run_id} in tags:
                found.append(row)
        return found

    def trials(self, tuning: str) -> list[dict[str, Any]]:
        """Return the training jobs of a tuning job."""
        return list(
            self.sagemaker.list_training_jobs_for_hyper_parameter_tuning_job(
                HyperParameterTuningJobName=tuning, MaxResults=100
            )["TrainingJobSummaries"]
        )

    def states(self) -> list[str]:
        return [str(row["HyperParameterTuningJobStatus"]) for row in self.tunings()]


@pytest.fixture
def sweep(local_aws: LocalAws, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TunedTask:
    """One task of one run."""
    aws_environment(monkeypatch, local_aws)
    return TunedTask(local_aws, bucket, tmp_path / "code")


def wait_until(condition: Callable[[], bool], describe: Callable[[], Any]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, describe()
        time.sleep(0.05)


def test_a_tuning_job_gives_the_result_and_the_leaderboard_of_a_sweep(sweep: TunedTask) -> None:
    space = {**SPACE, "mood": ["good", "better"]}
    result = from_json(SweepResult, sweep.sweep(space=space, arguments=["--epochs", "3"]))
    (tuning,) = sweep.tunings()
    assert result.sweep == tuning["HyperParameterTuningJobName"]
    assert len(result.sweep) <= 32
    assert result.trials == {"completed": 4}
    assert result.ending == "exhausted"
    board = from_json(Leaderboard, sweep.document(result.leaderboard_uri))
    assert board.engine == "sagemaker"
    values = [standing.value for standing in board.standings]
    assert values == sorted(value for value in values if value is not None)
    best = board.standings[0]
    assert (best.trial, best.value, best.parameters) == (result.best_trial, result.best_value, result.best_parameters)
    assert [at for at, _ in best.reports] == [1.0, 2.0, 3.0]  # the arguments have reached the script
    assert isinstance(best.parameters["rate"], float)
    assert result.billable_seconds == sum(standing.billable_seconds for standing in board.standings) >= 4

    described = sweep.sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=result.sweep)
    assert described["BestTrainingJob"]["TrainingJobName"] == result.job_name
    assert described["HyperParameterTuningJobConfig"]["Strategy"] == "Bayesian"
    job = sweep.sagemaker.describe_training_job(TrainingJobName=result.job_name)
    assert job["ModelArtifacts"]["S3ModelArtifacts"] == result.artifact_uri
    assert job["TrainingJobArn"] == result.job_arn
    assert "/leaderboard.html?" in sweep.pushed["_link_ReportLink"]
    page = sweep.s3.get_object(Bucket=sweep.bucket, Key=result.report_uri.split("/", 3)[3])["Body"].read().decode()
    assert f"best is trial {result.best_trial}" in page


def test_a_retry_adopts_the_tuning_job(sweep: TunedTask, tmp_path: Path) -> None:
    gate = tmp_path / "gate"  # no trial ends before the second try has found the job at work
    gated = {"hyperparameters": {"gate": str(gate)}}
    first = sweep.defer(**gated)
    second = sweep.defer(task=sweep.task(try_number=2), **gated)
    assert reference_of(second) == reference_of(first)
    gate.touch()
    result = from_json(SweepResult, sweep.resume(second, **gated))
    again = from_json(SweepResult, sweep.operator(**gated).execute(sweep.task(try_number=3).context))
    assert again == result
    assert sweep.states() == ["Completed"]


@pytest.mark.slow
def test_hyperband_stops_trials_and_only_a_completed_one_wins(sweep: TunedTask) -> None:
    changes = {"early_stopping": HYPERBAND, "max_trials": 7, "parallel_trials": 4, "search": "random", "seed": 3}
    result = from_json(SweepResult, sweep.sweep(**changes, hyperparameters={"epochs": 12, "seconds": 0.25}))
    board = from_json(Leaderboard, sweep.document(result.leaderboard_uri))
    stopped = [standing for standing in board.standings if standing.state is TrialState.STOPPED]
    assert stopped
    assert {standing.reason for standing in stopped} == {"SageMaker's tuner has stopped it"}
    assert all((standing.at or 0) < 12 for standing in stopped)
    assert board.standings[0].state is TrialState.COMPLETED
    assert board.standings[0].at == 12  # a whole trial is not stopped at its last epoch


def test_a_killed_task_stops_the_trials_and_its_retry_begins_another_tuning_job(sweep: TunedTask) -> None:
    deferred = sweep.defer(**FOREVER)
    name = reference_of(deferred).name
    wait_until(lambda: len(sweep.trials(name)) == 2, lambda: sweep.trials(name))
    asyncio.run(trigger_of(deferred).on_kill())
    wait_until(lambda: sweep.states() == ["Stopped"], sweep.tunings)
    assert {row["TrainingJobStatus"] for row in sweep.trials(name)} == {"Stopped"}
    again = sweep.defer(task=sweep.task(try_number=2), **FOREVER)
    assert reference_of(again).name != name
    asyncio.run(trigger_of(again).on_kill())


def test_a_tuning_job_that_was_stopped_is_no_success_and_has_its_leaderboard(sweep: TunedTask) -> None:
    deferred = sweep.defer(space={"seconds": [0.1, 60]}, max_trials=2)
    launcher, reference = TuningLauncher(sweep.aws.client), reference_of(deferred)
    wait_until(lambda: launcher.describe(reference).metrics != {}, lambda: launcher.describe(reference))
    assert launcher.stop(reference)
    with pytest.raises(AirflowFailException, match="was stopped before it had finished"):
        sweep.resume(deferred, space={"seconds": [0.1, 60]}, max_trials=2)
    uri = f"s3://{sweep.bucket}/models/sweeps/{reference.name}/leaderboard.json"
    board = from_json(Leaderboard, sweep.document(uri))
    assert (board.ended, board.ending) == (True, "stopped")
    assert [standing.state for standing in board.standings] == [TrialState.COMPLETED, TrialState.STOPPED]


def test_a_cleared_task_stops_the_tuning_job_of_its_former_life(sweep: TunedTask) -> None:
    sweep.defer(**FOREVER)
    deferred = sweep.defer(task=sweep.task(max_tries=5), **FOREVER)
    wait_until(lambda: sweep.states() == ["Stopped", "InProgress"], sweep.tunings)
    asyncio.run(trigger_of(deferred).on_kill())


def test_a_sweep_whose_trials_all_fail_says_why_and_is_not_paid_for_twice(sweep: TunedTask) -> None:
    raises = {"space": {"mood": ["raises"], "rate": [0.1, 0.2]}}
    with pytest.raises(AirflowFailException, match=r"the labels are empty[\s\S]*All training jobs failed"):
        sweep.sweep(**raises)
    with pytest.raises(AirflowFailException, match="is not run again"):
        sweep.operator(**raises).execute(sweep.task(try_number=2).context)
    assert sweep.states() == ["Failed"]


def test_more_failed_trials_than_are_borne_make_the_task_red(sweep: TunedTask) -> None:
    moods = {"mood": ["raises", "good"], "rate": [0.1]}
    assert from_json(SweepResult, sweep.sweep(space=moods)).trials == {"completed": 1, "failed": 1}
    with pytest.raises(AirflowFailException, match=r"1 trials have failed, more than max_failed_trials=0"):
        sweep.sweep(task=sweep.task(max_tries=9), space=moods, max_failed_trials=0)


def test_missing_capacity_for_every_trial_is_worth_a_retry(sweep: TunedTask) -> None:
    changes = {"space": {"rate": [0.1, 0.2]}}
    sweep.aws.order_fault(kind="capacity", target="CreateTrainingJob", times=2)
    try:
        with pytest.raises(AirflowException, match="capacity") as failed:
            sweep.sweep(**changes)
    finally:
        sweep.aws.clear_faults()
    assert not isinstance(failed.value, AirflowFailException)
    result = from_json(SweepResult, sweep.sweep(task=sweep.task(try_number=2), **changes))
    assert result.trials == {"completed": 2}
    assert sweep.states() == ["Failed", "Completed"]


def test_the_task_log_hears_of_each_trial_once(sweep: TunedTask) -> None:
    deferred = sweep.defer(max_trials=2)
    launcher, reference = TuningLauncher(sweep.aws.client), reference_of(deferred)
    lines: list[str] = []
    page = launcher.log_lines(reference, LogCursor())
    while True:
        lines += page.lines
        if launcher.describe(reference).terminal:
            break
        page = launcher.log_lines(reference, page.cursor)
    lines += launcher.log_lines(reference, page.cursor).lines
    ended = [line for line in lines if " Completed: " in line]
    assert len(ended) == len(set(ended)) == 2
    assert all("rate=" in line and "error " in line for line in ended)
    assert launcher.stop(reference) is False


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_billable_seconds": 100}, r"cannot be told a budget in billable seconds.*max_trials x max_runtime_s"),
        ({"initial_trials": [{"rate": 0.1}]}, "chooses its first trials itself"),
        ({"tolerance": 0.01}, "knows no tolerance"),
        ({"checkpoint_s3_uri": "s3://bucket/checkpoints"}, "another's checkpoint"),
        ({"early_stopping": {"min_resource": 1}}, "max_resource=None"),
        ({"early_stopping": {"max_resource": 9, "reduction_factor": 2}}, "has its own"),
        ({"early_stopping": "mean"}, "or 'median' with engine='sagemaker'"),
        ({"space": {"rate": [0.1, "0.1"]}}, "differ as texts"),
        ({"engine": "optuna", "early_stopping": "median"}, "or 'median' with engine='sagemaker'"),
    ],
)
def test_what_the_tuner_cannot_do_is_refused_when_the_dag_is_parsed(
    sweep: TunedTask, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(SpecificationError, match=words):
        sweep.operator(**change)
