"""A rollout that begins with a shadow: users meet green only after it has answered their requests unseen, and well."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred
from rollout_bench import RolloutBench, RolloutTask, Traffic, remade
from running_task import aws_environment

from airflow_dlaws.cli import main
from airflow_dlaws.errors import ServiceUnavailable
from airflow_dlaws.launchers.rollout_shadow import take_shadow_away
from airflow_dlaws.launchers.rollout_store import RolloutFolder
from airflow_dlaws.links.aws import ReportLink
from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.rollout.result import RolloutOutcome
from airflow_dlaws.rollout.state import Cause, Step
from airflow_dlaws.storage import ObjectStore

IMAGES = Path(__file__).parent / "images"
#: AWS's waits are three hundredths of a second for each; the shadow's own time is ours, and real.
QUICK: dict[str, Any] = {
    "wait_seconds": 120,
    "termination_wait_seconds": 5,
    "shadow_seconds": 4,
    "capture_lag_seconds": 20,
    "poll_interval": 0.4,
    "timeout": 300,
}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with LocalAws(
        tmp_path_factory.mktemp("shadow-aws"), time_scale=0.03, images={"*/serve-test:*": IMAGES / "serve-test"}
    ) as started:
        yield started


@pytest.fixture
def served(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> RolloutBench:
    """An endpoint with a model in service that tells numbers by their remainder."""
    aws_environment(monkeypatch, aws)
    bench = RolloutBench(aws)
    bench.serve(bench.package("blue", labels=3))
    return bench


@pytest.mark.slow
def test_a_shadow_that_agrees_goes_and_then_gets_users(served: RolloutBench) -> None:
    with Traffic(served.aws, served.name) as traffic:
        result = served.roll_out(served.package("green", labels=3), **QUICK)
    assert result.outcome is RolloutOutcome.PROMOTED
    assert served.live_config() == result.endpoint_config_name
    assert set(traffic.answers) == {"blue", "green"}
    record = served.record(result.endpoint_config_name)
    steps = list(dict.fromkeys(look.step for look in record.looks))
    assert steps == [Step.SHADOWING, Step.REMOVING_SHADOW, Step.SHIFTING, Step.PROMOTED]
    shadow = record.state.shadow
    assert shadow is not None
    assert shadow.answers.pairs > 40
    assert shadow.answers.agreement == 1.0
    assert (shadow.served.green_errors, shadow.served.green_requests > 20) == (0, True)
    # What green's users had counts from when they had it, not from its shadow.
    assert result.green_requests < sum(traffic.answers.values())
    served.assert_tidy()


def test_a_shadow_that_answers_otherwise_never_gets_users(served: RolloutBench) -> None:
    before, task = served.live_config(), RolloutTask()
    with Traffic(served.aws, served.name) as traffic, pytest.raises(AirflowFailException) as failure:
        served.roll_out(served.package("green", labels=3, flip_every=3), task, **QUICK)
    message = str(failure.value)
    assert "as a shadow the new model is worse than the one in service, and no user has seen it" in message
    assert "requests agree with production's" in message
    assert "the worst: " in message
    assert "became" in message
    with urlopen(task.pushed[ReportLink().xcom_key], timeout=10) as page:  # as a browser does: without credentials
        assert b"the shadow answered" in page.read()
    assert served.live_config() == before
    assert set(traffic.answers) == {"blue"}
    state = served.record(served.only_config()).state
    assert (state.step, state.cause) == (Step.ROLLED_BACK, Cause.SHADOW)
    served.assert_tidy()


def test_a_shadow_that_fails_never_gets_users(served: RolloutBench) -> None:
    before = served.live_config()
    with Traffic(served.aws, served.name) as traffic, pytest.raises(AirflowFailException, match="as a shadow"):
        served.roll_out(served.package("green", labels=3, fail_every=3), **QUICK)
    assert served.live_config() == before
    assert set(traffic.answers) == {"blue"}
    assert served.record(served.only_config()).state.cause is Cause.SHADOW
    served.assert_tidy()


def test_a_shadow_that_saw_too_little_is_inconclusive(served: RolloutBench) -> None:
    before = served.live_config()
    with pytest.raises(AirflowFailException, match="the shadow gave no verdict") as failure:
        served.roll_out(served.package("green", labels=3), **{**QUICK, "capture_lag_seconds": 1})
    assert "raise shadow_seconds" in str(failure.value)
    assert served.live_config() == before
    assert served.record(served.only_config()).state.step is Step.INCONCLUSIVE
    served.assert_tidy()


def test_a_shadow_that_does_not_start_is_a_red_task(served: RolloutBench) -> None:
    before = served.live_config()
    with pytest.raises(AirflowFailException, match="without its shadow") as failure:
        served.roll_out(served.package("green", exits=True), **QUICK)
    assert "did not pass the ping health check" in str(failure.value)
    assert served.live_config() == before
    served.assert_tidy()


@pytest.mark.parametrize("moment", ["it comes", "it is watched"])
def test_killed_with_a_shadow_the_task_takes_it_away(served: RolloutBench, moment: str) -> None:
    before, package = served.live_config(), served.package("green", labels=3)
    options = {**QUICK, "shadow_seconds": 200, "timeout": 3000}
    deferred = served.begin(package, RolloutTask("run-1"), **options)
    reached = {
        "it comes": lambda: served.describe().get("PendingDeploymentSummary"),
        "it is watched": lambda: served.describe().get("ShadowProductionVariants"),
    }
    served.wait_until(moment, reached[moment])
    if moment == "it is watched":
        served.wait_until("it is in service", lambda: served.describe()["EndpointStatus"] == "InService")
    asyncio.run(remade(deferred.trigger).on_kill())
    assert served.live_config() == before
    state = served.record(deferred.trigger.names["config_name"]).state
    assert (state.step, state.cause) == (Step.ROLLED_BACK, Cause.KILLED)
    served.assert_tidy()


def test_a_signal_takes_the_shadow_away_and_nothing_is_done_after_it(served: RolloutBench) -> None:
    before, task = served.live_config(), RolloutTask()
    operator = served.operator(served.package("green", labels=3), **{**QUICK, "shadow_seconds": 200, "timeout": 3000})

    def kill() -> None:
        served.wait_until("the shadow is watched", lambda: served.describe().get("ShadowProductionVariants"))
        os.kill(os.getpid(), signal.SIGTERM)

    # As Airflow's task runner does: once the handler returns, the interrupted line goes on.
    former = signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())
    try:
        threading.Thread(target=kill).start()
        with pytest.raises(SystemExit):
            operator.execute(task.context)
    finally:
        signal.signal(signal.SIGTERM, former)
    assert served.live_config() == before
    state = served.record(served.only_config()).state
    assert (state.step, state.cause) == (Step.ROLLED_BACK, Cause.KILLED)
    served.assert_tidy()


@pytest.mark.slow
def test_a_shadow_that_a_dead_task_left_is_taken_away_by_the_next(served: RolloutBench) -> None:
    before = served.live_config()
    abandoned, green = served.package("abandoned", labels=3), served.package("green", labels=3)
    served.begin(abandoned, RolloutTask(max_tries=0), **{**QUICK, "shadow_seconds": 200, "timeout": 3000})
    served.wait_until("the shadow is there", lambda: served.describe().get("ShadowProductionVariants"))
    served.wait_until("it is in service", lambda: served.describe()["EndpointStatus"] == "InService")
    assert served.shadows() != []
    with Traffic(served.aws, served.name):
        result = served.roll_out(green, RolloutTask(max_tries=1, try_number=2), **QUICK)
    assert result.outcome is RolloutOutcome.PROMOTED
    assert result.previous_endpoint_config_name == before
    served.assert_tidy()


@pytest.mark.parametrize(
    ("remembered", "on_kill"),
    [({"step": Step.STARTING}, "leave"), ({"step": Step.REMOVING_SHADOW, "shadow_passed_at": 1.0}, "rollback")],
    ids=["asked for and not remembered", "being removed"],
)
def test_killed_wherever_it_is_no_shadow_stays_and_the_fleet_keeps_its_size(
    served: RolloutBench, remembered: dict[str, Any], on_kill: str
) -> None:
    before = served.live_config()
    served.sagemaker.update_endpoint_weights_and_capacities(
        EndpointName=served.name, DesiredWeightsAndCapacities=[{"VariantName": "AllTraffic", "DesiredInstanceCount": 2}]
    )
    served.wait_until("it has grown", lambda: served.describe()["EndpointStatus"] == "InService")
    options = {**QUICK, "shadow_seconds": 200, "timeout": 3000, "on_kill": on_kill}
    deferred = served.begin(served.package("green", labels=3), RolloutTask("run-1"), **options)
    served.wait_until("the shadow is there", lambda: served.describe().get("ShadowProductionVariants"))
    served.wait_until("it is in service", lambda: served.describe()["EndpointStatus"] == "InService")
    record = served.record(served.only_config())
    folder = RolloutFolder(ObjectStore(served.s3), f"s3://{served.name}/state", served.name)
    folder.save(dataclasses.replace(record, state=record.state.but(**remembered)))
    asyncio.run(remade(deferred.trigger).on_kill())
    assert served.live_config() == before
    assert served.instances() == 2
    served.assert_tidy()


def test_a_shadow_that_aws_does_not_take_back_is_the_next_rollouts_to_take_away(served: RolloutBench) -> None:
    before, bad = served.live_config(), served.package("bad", labels=3, flip_every=2)
    with Traffic(served.aws, served.name):
        deferred = served.begin(bad, RolloutTask("run-1"), **{**QUICK, "shadow_seconds": 20})
        served.wait_until("the shadow is there", lambda: served.describe().get("ShadowProductionVariants"))
        served.aws.order_fault(kind="error", target="UpdateEndpoint", code="ValidationException", message="no", times=1)
        with pytest.raises(AirflowFailException, match=f"should go back to {before} .*and AWS refuses"):
            served.go_on(deferred, bad, RolloutTask("run-1"), **{**QUICK, "shadow_seconds": 20})
        state = served.record(served.only_config()).state
        assert served.live_config() == state.shadow_config
        with pytest.raises(ServiceUnavailable, match="still has a shadow"):
            take_shadow_away(served.sagemaker, state, until=0.0, clock=served.now, sleep=lambda: None)
        with pytest.raises(AirflowFailException, match="AWS rolled back by itself"):
            served.roll_out(served.package("dead", exits=True), RolloutTask("run-2"), wait_seconds=60)
    assert served.live_config() == before
    served.assert_tidy()


def test_a_shadow_that_aws_does_not_take_back_is_taken_away_by_an_abort(
    served: RolloutBench, capsys: pytest.CaptureFixture[str]
) -> None:
    before, bad = served.live_config(), served.package("bad", labels=3, flip_every=2)
    with Traffic(served.aws, served.name):
        deferred = served.begin(bad, RolloutTask("run-1"), **{**QUICK, "shadow_seconds": 20})
        served.wait_until("the shadow is there", lambda: served.describe().get("ShadowProductionVariants"))
        served.aws.order_fault(kind="error", target="UpdateEndpoint", code="ValidationException", message="no", times=1)
        with pytest.raises(AirflowFailException, match=f"dlaws rollout abort {served.name}"):
            served.go_on(deferred, bad, RolloutTask("run-1"), **{**QUICK, "shadow_seconds": 20})
    words = [served.name, "--state", f"s3://{served.name}/state"]
    shadow = served.record(served.only_config()).state.shadow_config
    assert served.live_config() == shadow
    assert main(["rollout", "promote", *words]) == 1
    assert "no rollout is under way" in capsys.readouterr().err
    assert main(["rollout", "abort", *words]) == 0
    assert f"the shadow {shadow} is taken away, AWS goes back to {before}" in capsys.readouterr().out
    served.wait_until("it is gone", lambda: served.describe()["EndpointStatus"] == "InService")
    assert served.live_config() == before
    # Nothing is left for a second one, and the next rollout finds the endpoint free.
    assert main(["rollout", "abort", *words]) == 1
    assert "no rollout is under way" in capsys.readouterr().err
    served.roll_out(served.package("good", labels=3), RolloutTask("run-2"), on_no_traffic="promote", wait_seconds=10)
    served.assert_tidy()


def test_a_retry_whose_shadow_was_edited_goes_by_the_new_one(
    served: RolloutBench, caplog: pytest.LogCaptureFixture
) -> None:
    before, package = served.live_config(), served.package("green", labels=3)

    def begin(number: int, seconds: int, percent: int) -> TaskDeferred:
        options = {**QUICK, "timeout": 3000, "shadow_seconds": seconds, "shadow_percent": percent}
        return served.begin(package, RolloutTask(max_tries=3, try_number=number), **options)

    for number, (operation, seconds) in enumerate([("DescribeEndpoint", 0), ("UpdateEndpoint", 200)], 1):
        served.aws.order_fault(kind="error", target=operation, code="ConcurrentUpdateException", message="no", times=1)
        with pytest.raises(AirflowException, match="ConcurrentUpdateException"):
            begin(number, seconds, 50)
    begin(3, 200, 20)
    served.wait_until("the shadow is there", lambda: served.describe().get("ShadowProductionVariants"))
    served.wait_until("it is in service", lambda: served.describe()["EndpointStatus"] == "InService")
    config = served.sagemaker.describe_endpoint_config(EndpointConfigName=served.live_config())
    (production,), (shadow,) = config["ProductionVariants"], config["ShadowProductionVariants"]
    assert shadow["InitialVariantWeight"] == pytest.approx(0.2 * production["InitialVariantWeight"])
    # What serves already stays, and is said.
    deferred = begin(4, 200, 70)
    assert "shadow_percent=70, and the shadow that an earlier try has brought up gets 20 %" in caplog.text
    asyncio.run(remade(deferred.trigger).on_kill())
    assert served.live_config() == before
    served.assert_tidy()


def test_an_endpoint_that_can_have_no_shadow_is_left_alone(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> None:
    aws_environment(monkeypatch, aws)
    bench = RolloutBench(aws)
    blue = bench.package("blue", labels=3)
    bench.serve(blue)
    config = bench.sagemaker.describe_endpoint_config(EndpointConfigName=bench.live_config())
    other = {**config["ProductionVariants"][0], "VariantName": "theirs"}
    name = f"{bench.name}-theirs"
    bench.sagemaker.create_endpoint_config(
        EndpointConfigName=name, ProductionVariants=config["ProductionVariants"], ShadowProductionVariants=[other]
    )
    bench.sagemaker.update_endpoint(EndpointName=bench.name, EndpointConfigName=name)
    bench.wait_until("it is in service", lambda: bench.describe()["EndpointStatus"] == "InService")
    with pytest.raises(AirflowFailException, match="has a shadow variant already"):
        bench.roll_out(bench.package("green", labels=3), **QUICK)
    assert bench.live_config() == name
    assert bench.alarms() == []
