"""UpdateEndpoint moves real traffic by the guardrails, loses no request, and goes back when it must."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from serving import VARIANT, Serving, Traffic, deployment, percent, rolling, variant

from airflow_dlaws.local.process import LocalAws


def baking(share_of: str) -> Any:
    """Whether the update bakes on "canary" or "full" capacity."""

    def reached(one: dict[str, Any]) -> bool:
        return f"{share_of} capacity" in message(one) and "Baking" in message(one)

    return reached


def message(one: dict[str, Any]) -> str:
    pending = one.get("PendingDeploymentSummary")
    return str(pending["ProductionVariants"][0]["VariantStatus"][0]["StatusMessage"]) if pending else ""


@pytest.mark.slow
def test_a_canary_serves_its_share_and_a_promotion_loses_no_request(serving: Serving) -> None:
    endpoint = serving.endpoint(serving.config_of("blue"))
    green = serving.config_of("green")
    with Traffic(serving, endpoint) as traffic:
        traffic.more(10)
        serving.update(endpoint, green, DeploymentConfig=deployment("CANARY", wait=120, end=20, CanarySize=percent(25)))
        during = serving.until(endpoint, baking("canary"))
        counts = traffic.more(120)
        description = serving.settled(endpoint)
        assert set(traffic.more(30)) == {"green"}
    assert traffic.errors == []
    # 120 draws at 1/4: a standard deviation of 4 per cent; five of them either side.
    assert 0.05 < counts["green"] / counts.total() < 0.45
    assert during["EndpointStatus"] == "Updating"
    assert during["PendingDeploymentSummary"]["EndpointConfigName"] == green
    assert message(during) == (
        "Baking for 120 seconds (WaitIntervalInSeconds) with traffic enabled on canary capacity of 1 instance(s)."
    )
    assert (description["EndpointStatus"], description["EndpointConfigName"]) == ("InService", green)
    assert description["LastDeploymentConfig"]["BlueGreenUpdatePolicy"]["TerminationWaitInSeconds"] == 20
    assert "PendingDeploymentSummary" not in description


def test_linear_steps_raise_greens_share(serving: Serving) -> None:
    endpoint = serving.endpoint(serving.config_of("blue"))
    green = serving.config_of("green")
    with Traffic(serving, endpoint) as traffic:
        config = deployment("LINEAR", wait=60, LinearStepSize=percent(50))
        serving.update(endpoint, green, DeploymentConfig=config)
        serving.until(endpoint, baking("canary"))
        half = traffic.more(60)
        assert serving.settled(endpoint)["EndpointConfigName"] == green
        assert set(traffic.more(20)) == {"green"}
    assert traffic.errors == []
    assert min(half["green"], half["blue"]) > 10


def test_an_alarm_while_the_canary_bakes_brings_the_old_model_back_without_losing_a_request(serving: Serving) -> None:
    blue = serving.config_of("blue")
    endpoint = serving.endpoint(blue)
    alarm = serving.alarm()
    children = set(serving.aws.children())
    with Traffic(serving, endpoint) as traffic:
        config = deployment("CANARY", alarm, wait=3600, CanarySize=percent(50))
        serving.update(endpoint, serving.config_of("green"), DeploymentConfig=config)
        serving.until(endpoint, baking("canary"))
        assert traffic.more(40)["green"] > 0
        serving.cloudwatch.set_alarm_state(AlarmName=alarm, StateValue="ALARM", StateReason="tripped by a test")
        description = serving.settled(endpoint)
        assert set(traffic.more(30)) == {"blue"}
    assert traffic.errors == []
    assert (description["EndpointStatus"], description["EndpointConfigName"]) == ("InService", blue)
    assert alarm in description["FailureReason"]
    assert set(serving.aws.children()) <= children


def test_an_alarm_after_all_traffic_moved_still_brings_the_old_model_back(serving: Serving) -> None:
    blue = serving.config_of("blue")
    endpoint = serving.endpoint(blue)
    alarm = serving.alarm()
    serving.update(endpoint, serving.config_of("green"), DeploymentConfig=deployment("ALL_AT_ONCE", alarm, end=3600))
    serving.until(endpoint, baking("full"))
    assert serving.served_by(endpoint) == "green"
    serving.cloudwatch.set_alarm_state(AlarmName=alarm, StateValue="ALARM", StateReason="tripped by a test")
    assert serving.settled(endpoint)["EndpointConfigName"] == blue
    assert serving.served_by(endpoint) == "blue"


def fleet_of_four(serving: Serving, name: str, **behaviour: Any) -> str:
    """A configuration of four instances."""
    return serving.config(variants=[variant(serving.model(name=name, **behaviour), InitialInstanceCount=4)])


def running(one: dict[str, Any]) -> tuple[int, int]:
    """How many instances of blue and of green run."""
    pending = one["PendingDeploymentSummary"]["ProductionVariants"][0]["CurrentInstanceCount"]
    return one["ProductionVariants"][0]["CurrentInstanceCount"], pending


@pytest.mark.slow
def test_a_rolling_update_replaces_batches_of_instances_and_loses_no_request(serving: Serving) -> None:
    endpoint = serving.endpoint(fleet_of_four(serving, "blue"))
    green = fleet_of_four(serving, "green")
    with Traffic(serving, endpoint) as traffic:
        serving.update(endpoint, green, DeploymentConfig=rolling(percent(25), wait=50))
        first = serving.until(endpoint, lambda one: message(one).startswith("Baking"))
        counts = traffic.more(60)
        second = serving.until(endpoint, lambda one: running(one)[1] == 2)
        assert serving.settled(endpoint)["EndpointConfigName"] == green
        assert set(traffic.more(30)) == {"green"}
    assert traffic.errors == []
    assert running(first) == (4, 1)
    assert running(second)[0] == 3
    assert counts["blue"] > counts["green"] > 0


def test_an_alarm_in_a_rolling_update_brings_the_old_instances_back_by_batches(serving: Serving) -> None:
    blue = fleet_of_four(serving, "blue")
    endpoint = serving.endpoint(blue)
    alarm = serving.alarm()
    with Traffic(serving, endpoint) as traffic:
        config = rolling(percent(50), alarm, wait=3600, RollbackMaximumBatchSize=percent(25))
        serving.update(endpoint, fleet_of_four(serving, "green"), DeploymentConfig=config)
        serving.until(endpoint, lambda one: message(one).startswith("Baking"))
        assert traffic.more(40)["green"] > 0
        serving.cloudwatch.set_alarm_state(AlarmName=alarm, StateValue="ALARM", StateReason="tripped by a test")
        description = serving.settled(endpoint)
        assert set(traffic.more(20)) == {"blue"}
    assert traffic.errors == []
    assert (description["EndpointStatus"], description["EndpointConfigName"]) == ("InService", blue)
    assert description["ProductionVariants"][0]["CurrentInstanceCount"] == 4


def test_an_alarm_that_rings_before_the_update_fails_it(serving: Serving) -> None:
    blue = serving.config_of("blue")
    endpoint = serving.endpoint(blue)
    alarm = serving.alarm()
    serving.cloudwatch.set_alarm_state(AlarmName=alarm, StateValue="ALARM", StateReason="before")
    serving.update(endpoint, serving.config_of("green"), DeploymentConfig=deployment("ALL_AT_ONCE", alarm))
    description = serving.settled(endpoint)
    assert (description["EndpointStatus"], description["EndpointConfigName"]) == ("InService", blue)
    assert alarm in description["FailureReason"]


def test_a_new_model_that_does_not_pass_its_ping_never_gets_traffic(serving: Serving) -> None:
    blue = serving.config_of("blue")
    endpoint = serving.endpoint(blue)
    serving.update(endpoint, serving.config_of("green", exits=True))
    description = serving.settled(endpoint)
    assert (description["EndpointStatus"], description["EndpointConfigName"]) == ("InService", blue)
    assert "did not pass the ping health check" in description["FailureReason"]
    assert serving.served_by(endpoint) == "blue"


def test_without_a_deployment_config_all_traffic_moves_at_once(serving: Serving) -> None:
    endpoint = serving.endpoint(serving.config_of("blue"))
    green = serving.config_of("green")
    with Traffic(serving, endpoint) as traffic:
        serving.update(endpoint, green)
        assert serving.settled(endpoint)["EndpointConfigName"] == green
        assert set(traffic.more(10)) == {"green"}
    assert traffic.errors == []


def test_other_variant_names_make_it_a_plain_update_that_watches_no_alarm(serving: Serving) -> None:
    endpoint = serving.endpoint(serving.config_of("blue"))
    alarm = serving.alarm()
    serving.cloudwatch.set_alarm_state(AlarmName=alarm, StateValue="ALARM", StateReason="before")
    other = serving.config(variants=[variant(serving.model(name="green"), "Other")])
    config = deployment("CANARY", alarm, wait=3600, CanarySize=percent(10))
    serving.update(endpoint, other, DeploymentConfig=config)
    assert serving.settled(endpoint)["EndpointConfigName"] == other
    assert serving.invoke(endpoint)["InvokedProductionVariant"] == "Other"


def test_a_second_update_is_refused_while_one_is_under_way(serving: Serving) -> None:
    endpoint = serving.endpoint(serving.config_of("blue"))
    green = serving.config_of("green")
    serving.update(endpoint, green, DeploymentConfig=deployment("ALL_AT_ONCE", end=100))
    for change in (
        lambda: serving.update(endpoint, green),
        lambda: serving.sagemaker.delete_endpoint(EndpointName=endpoint),
        lambda: serving.sagemaker.update_endpoint_weights_and_capacities(
            EndpointName=endpoint, DesiredWeightsAndCapacities=[{"VariantName": VARIANT, "DesiredWeight": 1}]
        ),
    ):
        with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
            change()
    assert serving.settled(endpoint)["EndpointConfigName"] == green


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (deployment("CANARY", CanarySize=percent(60)), "less than or equal to 50%"),
        (deployment("LINEAR", LinearStepSize=percent(5)), "10-50%"),
        (deployment("ALL_AT_ONCE", "an-alarm-nobody-made"), "'an-alarm-nobody-made'"),
        (rolling(percent(60)), "5-50%"),
    ],
)
def test_a_deployment_config_that_aws_would_refuse_is_refused_at_once(
    serving: Serving, config: dict[str, Any], says: str
) -> None:
    blue = serving.config_of("blue")
    endpoint = serving.endpoint(blue)
    with pytest.raises(ClientError, match=says):
        serving.update(endpoint, blue, DeploymentConfig=config)
    assert serving.describe(endpoint)["EndpointStatus"] == "InService"


def test_a_failed_rollback_can_be_ordered_and_left_by_another_update(serving: Serving) -> None:
    blue, bad = serving.config_of("blue"), serving.config_of("bad", exits=True)
    endpoint = serving.endpoint(blue)
    serving.aws.order_fault(kind="rollback", target=endpoint, times=1)
    serving.update(endpoint, bad)
    assert serving.settled(endpoint)["EndpointStatus"] == "UpdateRollbackFailed"
    serving.update(endpoint, blue)
    assert serving.settled(endpoint)["EndpointStatus"] == "InService"


def test_missing_capacity_leaves_the_old_configuration_in_service(serving: Serving, local_aws: LocalAws) -> None:
    blue = serving.config_of("blue")
    endpoint = serving.endpoint(blue)
    local_aws.order_fault(kind="capacity", target="UpdateEndpoint", times=1)
    serving.update(endpoint, serving.config_of("green"))
    description = serving.settled(endpoint)
    assert description["EndpointConfigName"] == blue
    assert "InsufficientInstanceCapacity" in description["FailureReason"]


def test_weights_and_counts_can_be_kept_over_an_update(serving: Serving) -> None:
    endpoint = serving.endpoint(serving.config_of("blue"))
    wanted = [{"VariantName": VARIANT, "DesiredInstanceCount": 4}]
    serving.sagemaker.update_endpoint_weights_and_capacities(EndpointName=endpoint, DesiredWeightsAndCapacities=wanted)
    serving.settled(endpoint)
    serving.update(endpoint, serving.config_of("green"), RetainAllVariantProperties=True)
    assert serving.settled(endpoint)["ProductionVariants"][0]["CurrentInstanceCount"] == 4


@pytest.mark.slow
def test_a_bad_model_is_rolled_back_by_the_metrics_of_its_own_requests(serving: Serving) -> None:
    """No state is set by hand: real errors of green alone, a real alarm on them, a real rollback."""
    blue = serving.config_of("blue")
    endpoint = serving.endpoint(blue)
    enhanced = {"EnableEnhancedMetrics": True, "MetricPublishFrequencyInSeconds": 10}
    bad = serving.config(serving.model(name="bad", fail_every=2), MetricsConfig=enhanced)
    alarm = serving.alarm(
        Namespace="AWS/SageMaker",
        MetricName="Invocation5XXErrors",
        Dimensions=[
            {"Name": "EndpointName", "Value": endpoint},
            {"Name": "VariantName", "Value": VARIANT},
            {"Name": "EndpointConfigName", "Value": bad},
        ],
        Statistic="Average",
        Period=10,
        Threshold=0.2,
        TreatMissingData="notBreaching",
    )
    with Traffic(serving, endpoint, threads=1) as traffic:
        config = deployment("CANARY", alarm, wait=3600, CanarySize=percent(50))
        serving.update(endpoint, bad, DeploymentConfig=config)
        description = serving.settled(endpoint)
        assert set(traffic.more(20)) == {"blue"}
    assert (description["EndpointStatus"], description["EndpointConfigName"]) == ("InService", blue)
    assert alarm in description["FailureReason"]
    assert traffic.errors
    assert all("ModelError" in str(error) for error in traffic.errors)
    history = serving.cloudwatch.describe_alarm_history(AlarmName=alarm, HistoryItemType="StateUpdate")
    assert "to ALARM" in history["AlarmHistoryItems"][0]["HistorySummary"]
