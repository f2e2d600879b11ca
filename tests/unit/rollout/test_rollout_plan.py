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
    plan = RolloutPlan(strategy=strategy)
    operation = botocore.session.get_session().get_service_model("sagemaker").operation_model("UpdateEndpoint")
    request = {
        "EndpointName": "e",
        "EndpointConfigName": "c",
        "DeploymentConfig": plan.deployment_config(["one", "two"]),
    }
    report = ParamValidator().validate(request, operation.input_shape)
    assert report.generate_report() == ""
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
