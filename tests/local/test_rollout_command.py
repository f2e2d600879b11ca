"""`dlaws rollout` beside a rollout that is under way on an endpoint of the local AWS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from rollout_bench import RolloutBench, RolloutTask
from running_task import aws_environment

from airflow_dlaws.cli import main
from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.rollout.state import Cause, Step

IMAGES = Path(__file__).parent / "images"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with LocalAws(
        tmp_path_factory.mktemp("rollout-command"), time_scale=1.0, images={"*/serve-test:*": IMAGES / "serve-test"}
    ) as started:
        yield started


@pytest.fixture
def bench(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> RolloutBench:
    aws_environment(monkeypatch, aws)
    made = RolloutBench(aws)
    made.serve(made.package("blue"))
    return made


def dlaws(capsys: pytest.CaptureFixture[str], bench: RolloutBench, action: str, *words: str) -> tuple[int, Any, str]:
    """Run a command; return its exit status, its JSON and what it said of errors."""
    capsys.readouterr()
    code = main(["rollout", action, bench.name, "--state", f"s3://{bench.name}/state", "--json", *words])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else None, err


@pytest.mark.slow
def test_abort_takes_the_endpoint_back_and_the_task_says_who_asked(
    bench: RolloutBench, capsys: pytest.CaptureFixture[str]
) -> None:
    task, blue, package = RolloutTask(), bench.live_config(), bench.package("green")
    deferred = bench.begin(package, task, wait_seconds=60)
    bench.wait_until("the update is under way", lambda: bench.describe()["EndpointStatus"] == "Updating")

    code, status, _ = dlaws(capsys, bench, "status")
    assert (code, status["step"], status["previous"]) == (0, "shifting", blue)
    assert status["endpoint"]["status"] == "Updating"

    code, told, _ = dlaws(capsys, bench, "abort", "--why", "wrong data")
    assert code == 0
    assert "AWS goes back" in told["done"]
    with pytest.raises(AirflowFailException, match="asked to abort this rollout: wrong data"):
        bench.go_on(deferred, package, task, wait_seconds=60)
    assert bench.live_config() == blue
    state = bench.record(bench.only_config()).state
    assert (state.step, state.cause) == (Step.ROLLED_BACK, Cause.ABORTED)
    bench.assert_tidy()

    code, history, _ = dlaws(capsys, bench, "history")
    (row,) = history["rollouts"]
    assert (row["outcome"], row["configuration"]) == ("rolled_back", state.requested_config)
    code, _, complaint = dlaws(capsys, bench, "abort")
    assert code == 1
    assert "no rollout is under way" in complaint


@pytest.mark.slow
def test_abort_takes_a_shadow_away_also_where_airflow_is_gone(
    bench: RolloutBench, capsys: pytest.CaptureFixture[str]
) -> None:
    task, blue, package = RolloutTask(), bench.live_config(), bench.package("green")
    options = {"shadow_seconds": 2, "timeout": 3000}
    deferred = bench.begin(package, task, **options)
    bench.wait_until("it is there", lambda: bench.describe().get("ShadowProductionVariants"))
    bench.wait_until("it is in service", lambda: bench.describe()["EndpointStatus"] == "InService")
    code, told, _ = dlaws(capsys, bench, "abort")
    assert (code, "is taken away" in told["done"]) == (0, True)
    bench.wait_until("it is gone", lambda: bench.describe()["EndpointStatus"] == "InService")
    assert bench.live_config() == blue
    with pytest.raises(AirflowFailException, match="asked to abort"):
        bench.go_on(deferred, package, task, **options)
    bench.assert_tidy()


@pytest.mark.slow
def test_promote_stands_in_for_a_verdict_that_no_traffic_can_give(
    bench: RolloutBench, capsys: pytest.CaptureFixture[str]
) -> None:
    task, package = RolloutTask(), bench.package("green")
    deferred = bench.begin(package, task)
    code, _, _ = dlaws(capsys, bench, "promote", "--why", "no traffic at night")
    assert code == 0
    result = bench.go_on(deferred, package, task)
    assert bench.live_config() == result.endpoint_config_name
    code, status, _ = dlaws(capsys, bench, "status")
    assert (code, status["outcome"]) == (0, "promoted")
    assert "asked to promote this rollout: no traffic at night" in status["asked"]


def test_an_endpoint_without_rollouts_is_told_as_such(bench: RolloutBench, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, complaint = dlaws(capsys, bench, "status")
    assert code == 1
    assert "no rollout is remembered" in complaint
    assert dlaws(capsys, bench, "history")[:2] == (0, {"rollouts": []})
