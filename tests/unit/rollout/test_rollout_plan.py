"""A plan refuses what AWS would refuse, when the DAG is parsed."""

from __future__ import annotations

import botocore.session
import pytest
from botocore.validate import ParamValidator

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.wire import from_json, to_json
from airflow_dlaws.rollout.plan import OnNoTraffic, RolloutPlan, Strategy, plan_from_text


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"canary_percent": 51}, "canary_percent"),
        ({"canary_percent": 0}, "canary_percent"),
        ({"strategy": Strategy.LINEAR, "linear_step_percent": 9}, "linear_step_percent"),
        ({"wait_seconds": 3601}, "wait_seconds"),
        ({"termination_wait_seconds": -1}, "termination_wait_seconds"),
        ({"maximum_execution_seconds": 599}, "maximum_execution_seconds"),
        ({"maximum_execution_seconds": 28801}, "maximum_execution_seconds"),
        ({"maximum_execution_seconds": 900, "wait_seconds": 600, "termination_wait_seconds": 300}, "900"),
        ({"strategy": Strategy.LINEAR, "linear_step_percent": 10, "wait_seconds": 3600}, "28800"),
        ({"wait_seconds": 0}, "wait_seconds"),
        ({"strategy": Strategy.ALL_AT_ONCE, "termination_wait_seconds": 0}, "termination_wait_seconds"),
        ({"strategy": Strategy.ROLLING}, "initial_instance_count"),
        ({"strategy": Strategy.ROLLING, "instance_count": 4, "maximum_batch_percent": 51}, "maximum_batch_percent"),
        ({"strategy": Strategy.ROLLING, "instance_count": 40, "maximum_batch_percent": 4}, "maximum_batch_percent"),
        ({"strategy": Strategy.ROLLING, "instance_count": 4, "wait_seconds": 0}, "wait_seconds"),
        (
            {"strategy": Strategy.ROLLING, "instance_count": 9, "wait_seconds": 3600, "maximum_batch_percent": 5},
            "28800",
        ),
        ({"shadow_seconds": -1}, "shadow_seconds"),
        ({"smallest_agreement": 1.0}, "smallest_agreement"),
        ({"alpha": 0.9}, "alpha"),
        ({"smallest_harm": 1.0}, "smallest_harm"),
        ({"min_requests": 0}, "min_requests"),
    ],
)
def test_a_plan_outside_the_limits_is_refused_by_name(values: dict[str, object], field: str) -> None:
    with pytest.raises(SpecificationError, match=field):
        RolloutPlan(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("strategy", list(Strategy))
def test_the_deployment_config_satisfies_botocores_model(strategy: Strategy) -> None:
    plan = RolloutPlan(strategy=strategy, instance_count=4)
    operation = botocore.session.get_session().get_service_model("sagemaker").operation_model("UpdateEndpoint")
    request = {
        "EndpointName": "e",
        "EndpointConfigName": "c",
        "DeploymentConfig": plan.deployment_config(["one", "two"]),
    }
    for config in (request, {**request, "DeploymentConfig": plan.restore_config()}):
        assert ParamValidator().validate(config, operation.input_shape).generate_report() == ""
    assert request["DeploymentConfig"]["AutoRollbackConfiguration"]["Alarms"] == [  # type: ignore[index]
        {"AlarmName": "one"},
        {"AlarmName": "two"},
    ]


def test_the_gate_comes_before_the_bake_is_over_and_not_before_its_middle() -> None:
    for wait in (1, 10, 60, 600, 3600):
        plan = RolloutPlan(wait_seconds=wait)
        assert wait / 2 <= plan.gate_seconds < wait


def test_a_linear_plan_is_watched_until_the_last_step() -> None:
    plan = RolloutPlan(strategy=Strategy.LINEAR, linear_step_percent=30, wait_seconds=100)
    assert plan.steps == 4
    assert plan.bake_seconds == 300


@pytest.mark.parametrize(
    ("count", "percent", "batch", "steps"), [(4, 25, 1, 4), (3, 40, 1, 3), (10, 33, 3, 4), (2, 5, 1, 2)]
)
def test_rolling_counts_its_batches_in_whole_instances(count: int, percent: int, batch: int, steps: int) -> None:
    plan = RolloutPlan(strategy=Strategy.ROLLING, instance_count=count, maximum_batch_percent=percent, wait_seconds=100)
    policy = plan.deployment_config([])["RollingUpdatePolicy"]
    assert policy["MaximumBatchSize"] == {"Type": "CAPACITY_PERCENT", "Value": percent}
    assert policy["RollbackMaximumBatchSize"] == {"Type": "CAPACITY_PERCENT", "Value": 100}
    # AWS bakes after the last batch as well, but blue serves nothing any more then.
    assert (plan.steps, plan.bake_seconds, plan.first_share) == (steps, 100 * (steps - 1), batch / count)
    assert plan.execution_seconds > 100 * steps


def test_templates_may_render_numbers_as_text() -> None:
    plan = plan_from_text(
        {
            "strategy": "linear",
            "wait_seconds": "120",
            "alpha": "0.01",
            "on_no_traffic": "promote",
            "maximum_execution_seconds": "None",
        }
    )
    expected = RolloutPlan(strategy=Strategy.LINEAR, wait_seconds=120, alpha=0.01, on_no_traffic=OnNoTraffic.PROMOTE)
    assert plan == expected


@pytest.mark.parametrize("values", [{"strategy": "shadow"}, {"wait_seconds": "soon"}, {"alpha": "small"}])
def test_text_that_is_no_plan_is_refused_with_what_is_allowed(values: dict[str, str]) -> None:
    with pytest.raises(SpecificationError, match=next(iter(values))):
        plan_from_text(values)


def test_a_plan_survives_the_wire() -> None:
    plan = RolloutPlan(strategy=Strategy.LINEAR, maximum_execution_seconds=7200)
    assert from_json(RolloutPlan, to_json(plan)) == plan
