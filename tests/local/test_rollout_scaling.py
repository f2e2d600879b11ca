"""Rollouts on endpoints that scale by themselves: the fleet keeps its size, and autoscaling is as it was in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from rollout_bench import RolloutBench, RolloutTask, remade
from running_task import aws_environment

from airflow_dlaws.cli import main
from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.rollout.result import RolloutOutcome

IMAGES = Path(__file__).parent / "images"
OTHER_TYPE = {"instance_type": "ml.c5.large", "wait_seconds": 40, "poll_interval": 0.1, "timeout": 300}
LONG = {**OTHER_TYPE, "wait_seconds": 2000, "timeout": 3000}
PROMOTED = {**OTHER_TYPE, "on_no_traffic": "promote"}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with LocalAws(
        tmp_path_factory.mktemp("rollout-scaling-aws"),
        time_scale=0.02,
        images={"*/serve-test:*": IMAGES / "serve-test"},
    ) as started:
        yield started


@pytest.fixture
def bench(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> Iterator[RolloutBench]:
    """An endpoint with three instances, grown from one, and one to four allowed."""
    aws_environment(monkeypatch, aws)
    made = RolloutBench(aws)
    made.serve(made.package("blue"))
    made.scale(instances=3)
    yield made
    aws.clear_faults()


def test_a_new_model_on_the_same_instances_keeps_their_number_and_leaves_autoscaling_alone(bench: RolloutBench) -> None:
    operator = bench.operator(bench.package("green"), **{**PROMOTED, "instance_type": "ml.m5.large"})
    calls = watched(operator)
    operator.execute(RolloutTask().context)
    assert bench.instances() == 3
    assert calls == ["UpdateEndpoint"]
    bench.assert_tidy()


def test_for_another_instance_type_autoscaling_is_off_during_the_rollout_and_on_again_after_it(
    bench: RolloutBench,
) -> None:
    operator = bench.operator(bench.package("green"), **PROMOTED)
    calls = watched(operator)
    operator.execute(RolloutTask().context)
    assert bench.instances() == 3
    assert calls == [
        "DeregisterScalableTarget",
        "UpdateEndpoint",
        "RegisterScalableTarget",
        "PutScalingPolicy",
        "PutScheduledAction",
    ]
    bench.assert_tidy()


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="by AWS"),
        pytest.param({"wait_seconds": 1, "termination_wait_seconds": 0, "poll_interval": 1.0}, id="by us"),
    ],
)
def test_taken_back_it_scales_as_before(bench: RolloutBench, options: dict[str, Any]) -> None:
    before = bench.live_config()
    with pytest.raises(AirflowFailException, match="too few requests"):
        bench.roll_out(bench.package("green"), **{**OTHER_TYPE, **options})
    assert bench.live_config() == before
    assert bench.instances() == 3
    bench.assert_tidy()


def test_an_update_that_aws_refuses_leaves_it_scaling(bench: RolloutBench) -> None:
    bench.aws.order_fault(
        kind="error", target="UpdateEndpoint", code="ValidationException", message="no such thing", times=1
    )
    with pytest.raises(AirflowFailException, match="no such thing"):
        bench.roll_out(bench.package("green"), **OTHER_TYPE)
    bench.assert_tidy()


def test_killed_while_it_waits_it_scales_as_before(bench: RolloutBench) -> None:
    before = bench.live_config()
    deferred = bench.begin(bench.package("green"), RolloutTask(), **LONG)
    assert bench.scaling() is None
    asyncio.run(remade(deferred.trigger).on_kill())
    assert bench.live_config() == before
    bench.assert_tidy()


def test_the_next_rollout_puts_back_what_a_dead_one_took_off(bench: RolloutBench) -> None:
    bench.begin(bench.package("left"), RolloutTask(max_tries=0), **LONG)
    assert bench.scaling() is None
    # The first takeover fails: the lock still says whose leavings these are.
    bench.aws.order_fault(kind="error", target="RegisterScalableTarget", code="ConcurrentUpdateException", times=1)
    with pytest.raises(AirflowException, match="cannot register"):
        bench.roll_out(bench.package("green"), RolloutTask(max_tries=1, try_number=2), **PROMOTED)
    result = bench.roll_out(bench.package("green"), RolloutTask(max_tries=2, try_number=3), **PROMOTED)
    assert result.outcome is RolloutOutcome.PROMOTED
    bench.assert_tidy()


def test_a_promotion_is_not_green_before_autoscaling_is_back(bench: RolloutBench) -> None:
    package, task = bench.package("green"), RolloutTask(max_tries=1)
    bench.aws.order_fault(kind="error", target="PutScalingPolicy", code="ConcurrentUpdateException", times=1)
    with pytest.raises(AirflowException, match=r"the rollout is promoted .* autoscaling is still off"):
        bench.roll_out(package, task, **PROMOTED)
    assert bench.scaling().policies == ()
    result = bench.roll_out(package, RolloutTask(max_tries=1, try_number=2), **PROMOTED)
    assert result.outcome is RolloutOutcome.PROMOTED
    bench.assert_tidy()


def test_the_command_line_puts_it_back_where_airflow_is_gone(
    bench: RolloutBench, capsys: pytest.CaptureFixture[str]
) -> None:
    before = bench.live_config()
    bench.begin(bench.package("green"), RolloutTask(), **LONG)
    words = [bench.name, "--state", f"s3://{bench.name}/state"]
    main(["rollout", "status", *words])
    assert "off: 1 to 4 instances by tracking, morning" in capsys.readouterr().out
    assert main(["rollout", "abort", *words]) == 0
    assert "autoscaling is as it was" in capsys.readouterr().out
    bench.wait_until("AWS is back", lambda: bench.describe()["EndpointStatus"] == "InService")
    assert bench.live_config() == before
    assert bench.scaling() is not None


def test_step_scaling_is_refused_where_its_alarms_would_call_nothing_afterwards(bench: RolloutBench) -> None:
    bench.aws.client("application-autoscaling").put_scaling_policy(
        ServiceNamespace="sagemaker",
        ResourceId=f"endpoint/{bench.name}/variant/AllTraffic",
        ScalableDimension="sagemaker:variant:DesiredInstanceCount",
        PolicyName="steps",
        PolicyType="StepScaling",
        StepScalingPolicyConfiguration={
            "AdjustmentType": "ChangeInCapacity",
            "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}],
        },
    )
    with pytest.raises(AirflowFailException, match=r"steps.*other ARNs"):
        bench.roll_out(bench.package("green"), **OTHER_TYPE)
    after = bench.scaling()
    assert [policy["PolicyName"] for policy in after.policies] == ["tracking", "steps"]


def watched(operator: Any) -> list[str]:
    """Return a list that fills with the operator's changes of autoscaling and its updates of the endpoint."""
    calls: list[str] = []

    def note(model: Any, **_: Any) -> None:
        name = model.name
        changes = "Scal" in name or "Scheduled" in name or name == "UpdateEndpoint"
        if changes and not name.startswith("Describe"):
            calls.append(name)

    for service in ("application-autoscaling", "sagemaker"):
        operator.aws.client(service).meta.events.register("before-call", note)
    return calls
