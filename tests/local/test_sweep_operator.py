"""HyperparameterSweepOperator against the local AWS: real trials, early stopping, budgets, kills and retries."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from running_task import aws_environment
from sweep_task import SPACE, SweepTask, reference_of, trigger_of

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.wire import from_json
from airflow_dlaws.launchers.sweep import SweepLauncher
from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.sweeps.journal import TrialState
from airflow_dlaws.sweeps.leaderboard import Leaderboard, SweepResult

HALVING = {"resource": "epoch", "min_resource": 1, "reduction_factor": 3}


@pytest.fixture
def sweep(local_aws: LocalAws, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepTask:
    """One task of one run."""
    aws_environment(monkeypatch, local_aws)
    return SweepTask(local_aws, bucket, tmp_path / "code")


def wait_until(condition: Callable[[], bool], describe: Callable[[], Any]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, describe()
        time.sleep(0.05)


@pytest.mark.slow
def test_a_sweep_hands_on_its_best_trial_and_the_whole_leaderboard(sweep: SweepTask) -> None:
    result = from_json(SweepResult, sweep.sweep())
    assert sweep.jobs() == [(str(number), "Completed") for number in range(4)]
    assert result.trials == {"completed": 4}
    board = from_json(Leaderboard, sweep.document(result.leaderboard_uri))
    assert board.ended
    assert [standing.value for standing in board.standings] == sorted(standing.value for standing in board.standings)
    best = board.standings[0]
    assert (best.trial, best.value, best.parameters) == (
        result.best_trial,
        result.best_value,
        result.best_parameters,
    )
    assert best.reports[-1] == (4.0, best.value)
    assert result.billable_seconds == sum(standing.billable_seconds for standing in board.standings) > 0
    job = sweep.sagemaker.describe_training_job(TrainingJobName=result.job_name)
    assert job["ModelArtifacts"]["S3ModelArtifacts"] == result.artifact_uri
    assert job["HyperParameters"] == {"rate": str(result.best_parameters["rate"])}
    manifest = sweep.document(result.manifest_uri)
    assert manifest["artifact"]["uri"] == result.artifact_uri
    assert manifest["request"]["HyperParameters"] == job["HyperParameters"]
    assert "/leaderboard.html?" in sweep.pushed["_link_ReportLink"]
    page = sweep.s3.get_object(Bucket=sweep.bucket, Key=result.report_uri.split("/", 3)[3])["Body"].read().decode()
    assert f"best is trial {result.best_trial}" in page


@pytest.mark.slow
def test_successive_halving_stops_the_jobs_of_trials_that_are_behind(sweep: SweepTask) -> None:
    changes = {"early_stopping": HALVING, "max_trials": 6, "parallel_trials": 3, "search": "random"}
    hyperparameters = {"epochs": 30, "seconds": 0.2}
    result = from_json(SweepResult, sweep.sweep(**changes, hyperparameters=hyperparameters))
    board = from_json(Leaderboard, sweep.document(result.leaderboard_uri))
    stopped = [standing for standing in board.standings if standing.state is TrialState.STOPPED]
    assert stopped
    assert all("is not among the best" in standing.reason for standing in stopped)
    assert Counter(state for _, state in sweep.jobs())["Stopped"] == len(stopped)
    assert all((standing.at or 0) < 30 for standing in stopped)
    assert len(sweep.jobs()) == 6


@pytest.mark.slow
def test_the_budget_in_billable_seconds_stops_what_runs(sweep: SweepTask) -> None:
    changes = {"max_trials": 50, "parallel_trials": 2, "max_billable_seconds": 6}
    result = from_json(SweepResult, sweep.sweep(**changes, hyperparameters={"epochs": 5, "seconds": 0.2}))
    assert result.ending == "budget"
    assert len(sweep.jobs()) < 50
    assert {state for _, state in sweep.jobs()} <= {"Completed", "Stopped"}
    assert result.billable_seconds < 20


@pytest.mark.slow
def test_a_killed_sweep_is_taken_up_by_the_retry_and_no_trial_is_paid_for_twice(sweep: SweepTask) -> None:
    changes = {"hyperparameters": {"seconds": 0.5}, "max_trials": 6, "parallel_trials": 2}
    deferred = sweep.defer(**changes)
    launcher, reference = SweepLauncher(sweep.aws.client), reference_of(deferred)
    wait_until(
        lambda: launcher.describe(reference).metrics != {} and len(launcher.journal(reference).trials) > 2,
        lambda: launcher.journal(reference),
    )
    before = {trial.number: trial.job for trial in launcher.journal(reference).trials if trial.ended}
    asyncio.run(trigger_of(deferred).on_kill())
    wait_until(lambda: "InProgress" not in [state for _, state in sweep.jobs()], sweep.jobs)
    again = sweep.task(try_number=2)
    result = from_json(SweepResult, sweep.sweep(task=again, **changes))
    after = {trial.number: trial.job for trial in launcher.journal(reference).trials}
    assert result.trials == {"completed": 6}
    assert {number: after[number] for number in before} == before
    assert Counter(state for _, state in sweep.jobs())["Completed"] == 6


@pytest.mark.slow
def test_a_restarted_trigger_and_a_second_one_beside_it_create_each_job_once(sweep: SweepTask) -> None:
    deferred = sweep.defer(max_trials=5, parallel_trials=2)

    async def both() -> None:
        first, second, third = (trigger_of(deferred) for _ in range(3))
        lost = asyncio.ensure_future(anext(aiter(first.run())))
        await asyncio.sleep(1.0)
        lost.cancel()
        await asyncio.gather(*(anext(aiter(trigger.run())) for trigger in (second, third)))

    asyncio.run(both())
    assert sweep.jobs() == [(str(number), "Completed") for number in range(5)]


@pytest.mark.slow
def test_a_cleared_task_stops_the_sweep_of_its_former_life(sweep: SweepTask) -> None:
    forever = {"hyperparameters": {"seconds": 60}}
    sweep.defer(**forever)
    sweep.defer(task=sweep.task(max_tries=5), **forever)
    wait_until(
        lambda: Counter(state for _, state in sweep.jobs()) == {"Stopped": 2, "InProgress": 2},
        sweep.jobs,
    )
    deferred = sweep.defer(task=sweep.task(max_tries=5, try_number=4), **forever)
    assert len(sweep.jobs()) == 4
    asyncio.run(trigger_of(deferred).on_kill())


@pytest.mark.slow
def test_trials_that_fail_are_borne_up_to_the_limit_and_the_task_says_why(sweep: SweepTask) -> None:
    moods = {"mood": ["raises", "good"], "rate": [0.1]}
    result = from_json(SweepResult, sweep.sweep(space=moods, max_failed_trials=1))
    assert result.trials == {"completed": 1, "failed": 1}
    with pytest.raises(AirflowFailException, match="the labels are empty"):
        sweep.sweep(task=sweep.task(max_tries=9), space={"mood": ["raises"], "rate": [0.1, 0.2]}, max_failed_trials=1)


@pytest.mark.slow
def test_a_trial_that_diverges_is_stopped_and_does_not_count_as_a_failure(sweep: SweepTask) -> None:
    space = {"mood": ["diverges", "good"], "rate": [0.1]}
    result = from_json(SweepResult, sweep.sweep(space=space, max_failed_trials=0))
    assert result.trials == {"completed": 1, "stopped": 1}
    board = from_json(Leaderboard, sweep.document(result.leaderboard_uri))
    assert "it has diverged" in board.standings[1].reason


def test_a_script_that_never_reports_its_objective_fails_the_sweep(sweep: SweepTask) -> None:
    with pytest.raises(AirflowFailException, match="never reported 'error'"):
        sweep.sweep(space={"mood": ["silent"]}, max_failed_trials=0)


@pytest.mark.slow
def test_missing_capacity_runs_the_trial_again(sweep: SweepTask) -> None:
    sweep.aws.order_fault(kind="capacity", target="CreateTrainingJob", times=1)
    try:
        result = from_json(SweepResult, sweep.sweep(max_trials=2))
    finally:
        sweep.aws.clear_faults()
    assert result.trials == {"completed": 2}
    assert Counter(state for _, state in sweep.jobs()) == {"Completed": 2, "Failed": 1}


@pytest.mark.slow
def test_throttling_slows_a_sweep_down_and_fails_nothing(sweep: SweepTask) -> None:
    options = {"botocore_config": {"retries": {"mode": "standard", "total_max_attempts": 1}}}
    deferred = sweep.defer(max_trials=3, **options)
    sweep.aws.order_fault(kind="throttle", target="DescribeTrainingJob", every=2, times=8)
    try:
        result = from_json(SweepResult, sweep.resume(deferred, max_trials=3, **options))
    finally:
        sweep.aws.clear_faults()
    assert result.trials == {"completed": 3}


def test_missing_data_is_refused_before_a_trial_is_paid_for(sweep: SweepTask) -> None:
    with pytest.raises(AirflowException, match="has no objects"):
        sweep.operator(channels={"train": f"s3://{sweep.bucket}/nothing/"}).execute(sweep.task().context)
    assert sweep.jobs() == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"space": {}}, "at least one hyperparameter"),
        ({"space": {"rate": {"low": 1, "high": 0}}}, "the lower one first"),
        ({"objective": ""}, "objective='' must name a metric"),
        ({"direction": "down"}, "direction='down' must be one of"),
        ({"search": "grid"}, "search='grid' must be one of"),
        ({"max_trials": 0}, "max_trials=0 must be an integer from 1"),
        ({"parallel_trials": "many"}, "parallel_trials='many' must be an integer"),
        ({"max_billable_seconds": 0}, "max_billable_seconds=0"),
        ({"early_stopping": {"reduction_factor": 0.5}}, "reduction_factor=0.5 must be above 1"),
        ({"early_stopping": {"rung": 3}}, "no field"),
        ({"early_stopping": "asha"}, "early_stopping='asha' must be"),
        ({"tolerance": -1}, "tolerance=-1.0 must be a number from 0"),
        ({"engine": "ray"}, "engine='ray' must be one of"),
        ({"instance_count": 0}, "instance_count=0"),
        ({"hyperparameters": {"rate": 0.1}}, "stand in space and in hyperparameters"),
        ({"initial_trials": [{"rate": 7}]}, "rate=7 is not in"),
    ],
)
def test_what_cannot_work_is_refused_when_the_dag_is_parsed(
    sweep: SweepTask, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(SpecificationError, match=words):
        sweep.operator(**change)


def test_numbers_and_the_space_may_be_templates(sweep: SweepTask) -> None:
    operator = sweep.operator(
        max_trials="{{ params.trials }}", space="{{ params.space }}", early_stopping="{{ params.stop }}"
    )
    assert operator.max_trials == "{{ params.trials }}"
    with pytest.raises(AirflowException, match="max_trials='sixteen' must be an integer"):
        sweep.operator(space=SPACE, max_trials="{{ 1 }}").__class__.execute(
            _with(operator, max_trials="sixteen", space=SPACE, early_stopping=None), sweep.task().context
        )


def _with(operator: Any, **fields: Any) -> Any:
    """Return the operator as Airflow leaves it when its templates are rendered."""
    for name, value in fields.items():
        setattr(operator, name, value)
    return operator
