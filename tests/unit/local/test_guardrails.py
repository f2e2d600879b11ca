"""The schedule of blue/green updates, and what AWS refuses."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.local import guardrails
from airflow_dlaws.local.guardrails import DeploymentPlan, Routing, StepSize


def deployment(
    kind: str, *, wait: int = 0, end: int = 0, timeout: int | None = None, alarms: int = 0, **sizes: Any
) -> dict[str, Any]:
    policy: dict[str, Any] = {
        "TrafficRoutingConfiguration": {"Type": kind, "WaitIntervalInSeconds": wait, **sizes},
        "TerminationWaitInSeconds": end,
    }
    if timeout:
        policy["MaximumExecutionTimeoutInSeconds"] = timeout
    names = [{"AlarmName": f"alarm-{number}"} for number in range(alarms)]
    return {"BlueGreenUpdatePolicy": policy, "AutoRollbackConfiguration": {"Alarms": names}}


def percent(value: int) -> dict[str, Any]:
    return {"Type": "CAPACITY_PERCENT", "Value": value}


def instances(value: int) -> dict[str, Any]:
    return {"Type": "INSTANCE_COUNT", "Value": value}


def rolling(size: dict[str, Any], *, wait: int = 0, back: Any = None, timeout: int | None = None) -> dict[str, Any]:
    policy = {"MaximumBatchSize": size, "WaitIntervalInSeconds": wait}
    if back:
        policy["RollbackMaximumBatchSize"] = back
    if timeout:
        policy["MaximumExecutionTimeoutInSeconds"] = timeout
    return {"RollingUpdatePolicy": policy}


def shares(config: dict[str, Any], count: int = 1) -> list[tuple[float, int]]:
    stages = guardrails.schedule(guardrails.read_plan(config), {"AllTraffic": count})
    return [(round(stage.green_share["AllTraffic"], 6), stage.wait_seconds) for stage in stages]


def test_without_a_deployment_config_everything_moves_at_once_and_nothing_waits() -> None:
    assert shares({}) == [(1.0, 0)]


def test_all_at_once_bakes_for_the_termination_wait() -> None:
    assert shares(deployment("ALL_AT_ONCE", wait=60, end=300)) == [(1.0, 300)]


def test_a_canary_bakes_on_its_share_and_then_on_everything() -> None:
    assert shares(deployment("CANARY", wait=600, end=120, CanarySize=percent(10))) == [(0.1, 600), (1.0, 120)]


def test_a_canary_of_instances_is_its_part_of_the_fleet() -> None:
    assert shares(deployment("CANARY", CanarySize=instances(1)), count=4) == [(0.25, 0), (1.0, 0)]


def test_linear_steps_reach_everything_in_equal_steps() -> None:
    assert [share for share, _ in shares(deployment("LINEAR", LinearStepSize=percent(25)))] == [0.25, 0.5, 0.75, 1.0]


def test_the_last_linear_step_is_what_is_left() -> None:
    assert [share for share, _ in shares(deployment("LINEAR", LinearStepSize=percent(40)))] == [0.4, 0.8, 1.0]


def test_rolling_replaces_whole_instances_and_bakes_after_each_batch() -> None:
    assert shares(rolling(percent(30), wait=60), count=4) == [(0.25, 60), (0.5, 60), (0.75, 60), (1.0, 60)]
    assert shares(rolling(instances(2), wait=60), count=5) == [(0.4, 60), (0.8, 60), (1.0, 60)]


def test_a_rolling_update_goes_back_at_once_or_by_batches() -> None:
    def back(config: dict[str, Any]) -> list[float]:
        ways = guardrails.way_back(guardrails.read_plan(config), {"AllTraffic": 4}, {"AllTraffic": 0.75})
        return [share["AllTraffic"] for share in ways]

    assert back(rolling(percent(25))) == [0.0]
    assert back(rolling(percent(25), back=percent(25))) == [0.5, 0.25, 0.0]


@pytest.mark.parametrize(
    ("config", "count", "says"),
    [
        (deployment("CANARY", CanarySize=percent(51)), 1, "less than or equal to 50%"),
        (deployment("CANARY", CanarySize=instances(1)), 1, "100% of the 1 instance"),
        (deployment("CANARY"), 1, "needs CanarySize"),
        (deployment("LINEAR"), 1, "needs LinearStepSize"),
        (deployment("LINEAR", LinearStepSize=percent(9)), 1, "10-50%"),
        (deployment("LINEAR", LinearStepSize=percent(60)), 1, "10-50%"),
        (deployment("ALL_AT_ONCE", CanarySize=percent(10)), 1, "only allowed with traffic routing type CANARY"),
        (deployment("ALL_AT_ONCE", end=600, timeout=600), 1, "must be larger than the total waiting time"),
        (deployment("LINEAR", wait=300, timeout=800, LinearStepSize=percent(25)), 1, "(900)"),
        (deployment("ALL_AT_ONCE", alarms=11), 1, "at most 10"),
        (rolling(percent(51)), 10, "5-50%"),
        (rolling(percent(4)), 30, "5-50%"),
        (rolling(instances(1)), 1, "100% of the 1 instance"),
        (rolling(instances(2), back=instances(5)), 4, "RollbackMaximumBatchSize"),
        (rolling(percent(50), wait=300, timeout=600), 2, "(600)"),
        ({**rolling(percent(50)), **deployment("ALL_AT_ONCE")}, 2, "not both"),
    ],
)
def test_what_aws_would_refuse_is_refused(config: dict[str, Any], count: int, says: str) -> None:
    assert says in (guardrails.refusal(config, {"AllTraffic": count}) or "")


@pytest.mark.parametrize(
    ("config", "count"),
    [
        ({}, 1),
        (deployment("CANARY", wait=60, end=60, timeout=600, alarms=10, CanarySize=percent(50)), 1),
        (deployment("CANARY", CanarySize=instances(1)), 2),
        (deployment("LINEAR", CanarySize=None) | {"BlueGreenUpdatePolicy": None}, 1),
        (deployment("LINEAR", LinearStepSize=percent(10)), 1),
    ],
)
def test_what_aws_accepts_is_accepted(config: dict[str, Any], count: int) -> None:
    assert guardrails.refusal(config, {"AllTraffic": count}) is None


def test_guardrails_need_the_same_variant_names() -> None:
    assert guardrails.shifts_traffic(DeploymentPlan(), ["a", "b"], ["b", "a"])
    assert not guardrails.shifts_traffic(DeploymentPlan(), ["AllTraffic"], ["Blue"])


def test_rolling_takes_no_endpoint_of_several_variants() -> None:
    rolling_plan = guardrails.read_plan(rolling(percent(50)))
    assert guardrails.shifts_traffic(rolling_plan, ["a"], ["a"])
    assert not guardrails.shifts_traffic(rolling_plan, ["a", "b"], ["a", "b"])


def test_messages_name_the_wait_and_the_capacity() -> None:
    config = deployment("CANARY", wait=60, end=180, CanarySize=percent(25))
    canary, full = guardrails.schedule(guardrails.read_plan(config), {"v": 4})
    assert guardrails.activating_message(canary, "v", 4) == "Activating traffic on canary capacity of 1 instance(s)."
    assert guardrails.baking_message(full, "v", 4) == (
        "Baking for 180 seconds (TerminationWaitInSeconds) with traffic enabled on full capacity of 4 instance(s)."
    )


plans = st.builds(
    DeploymentPlan,
    routing=st.sampled_from(Routing),
    step=st.builds(StepSize, unit=st.sampled_from(["CAPACITY_PERCENT", "INSTANCE_COUNT"]), value=st.integers(1, 100)),
    wait_seconds=st.integers(0, 3600),
    termination_wait_seconds=st.integers(0, 3600),
)
fleets = st.dictionaries(st.sampled_from("abc"), st.integers(1, 20), min_size=1)


@given(plan=plans, fleet=fleets)
def test_greens_share_never_falls_and_ends_at_everything(plan: DeploymentPlan, fleet: dict[str, int]) -> None:
    stages = guardrails.schedule(plan, fleet)
    for variant in fleet:
        run = [stage.green_share[variant] for stage in stages]
        assert run == sorted(run)
        assert run[0] > 0
        assert run[-1] == 1.0
        assert all(share <= 1.0 for share in run)
    assert [stage.is_full for stage in stages] == [False] * (len(stages) - 1) + [True]


@given(
    value=st.integers(1, 100), count=st.integers(1, 20), unit=st.sampled_from(["CAPACITY_PERCENT", "INSTANCE_COUNT"])
)
def test_no_accepted_step_moves_more_than_half_of_the_fleet(value: int, count: int, unit: str) -> None:
    for kind, field in (("CANARY", "CanarySize"), ("LINEAR", "LinearStepSize")):
        config = deployment(kind, **{field: {"Type": unit, "Value": value}})
        if guardrails.refusal(config, {"v": count}) is None:
            assert shares_of(config, count)[0] <= 0.5 + guardrails.ROUNDING


def shares_of(config: dict[str, Any], count: int) -> list[float]:
    return [stage.green_share["v"] for stage in guardrails.schedule(guardrails.read_plan(config), {"v": count})]
