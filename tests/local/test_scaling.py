"""Application Auto Scaling of the local AWS: what it keeps of a variant, and what it and SageMaker refuse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from serving import Clients, Serving, unique, variant

from airflow_dlaws.local.process import LocalAws

IMAGES = Path(__file__).parent / "images"
DIMENSION = "sagemaker:variant:DesiredInstanceCount"
TRACKING = {
    "TargetValue": 70.0,
    "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
}


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with LocalAws(
        tmp_path_factory.mktemp("scaling-aws"), time_scale=0.01, images={"*/serve-test:*": IMAGES / "serve-test"}
    ) as aws:
        clients, bucket = Clients(aws), unique("bucket")
        clients.s3.create_bucket(Bucket=bucket)
        yield Serving(aws, clients, bucket)


class Scaled:
    """An endpoint whose variant is registered with one policy and one scheduled action."""

    def __init__(self, serving: Serving) -> None:
        self.client = serving.aws.client("application-autoscaling")
        self.endpoint = serving.endpoint(serving.config_of("one"))
        self.names: dict[str, Any] = {
            "ServiceNamespace": "sagemaker",
            "ResourceId": f"endpoint/{self.endpoint}/variant/AllTraffic",
            "ScalableDimension": DIMENSION,
        }
        self.client.register_scalable_target(**self.names, MinCapacity=1, MaxCapacity=4, Tags={"team": "flights"})
        self.client.put_scaling_policy(
            **self.names,
            PolicyName="tracking",
            PolicyType="TargetTrackingScaling",
            TargetTrackingScalingPolicyConfiguration=TRACKING,
        )
        self.client.put_scheduled_action(
            **self.names,
            ScheduledActionName="morning",
            Schedule="cron(0 6 * * ? *)",
            ScalableTargetAction={"MinCapacity": 2},
        )

    def targets(self) -> list[dict[str, Any]]:
        answer = self.client.describe_scalable_targets(
            ServiceNamespace="sagemaker", ResourceIds=[self.names["ResourceId"]]
        )
        return list(answer["ScalableTargets"])

    def rest(self) -> tuple[list[str], list[str]]:
        policies = self.client.describe_scaling_policies(**self.names)["ScalingPolicies"]
        actions = self.client.describe_scheduled_actions(**self.names)["ScheduledActions"]
        return [row["PolicyName"] for row in policies], [row["ScheduledActionName"] for row in actions]


@pytest.fixture(scope="module")
def scaled(serving: Serving) -> Scaled:
    return Scaled(serving)


def test_what_is_registered_is_described(scaled: Scaled) -> None:
    (target,) = scaled.targets()
    assert (target["MinCapacity"], target["MaxCapacity"]) == (1, 4)
    assert target["SuspendedState"]["DynamicScalingInSuspended"] is False
    assert scaled.client.list_tags_for_resource(ResourceARN=target["ScalableTargetARN"])["Tags"] == {"team": "flights"}
    assert scaled.rest() == (["tracking"], ["morning"])
    scaled.client.tag_resource(ResourceARN=target["ScalableTargetARN"], Tags={"cost": "low"})
    tags = scaled.client.list_tags_for_resource(ResourceARN=target["ScalableTargetARN"])["Tags"]
    assert tags == {"team": "flights", "cost": "low"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ResourceId": "endpoint/none/variant/AllTraffic", "MinCapacity": 1, "MaxCapacity": 2}, "doesn't exist"),
        ({"MinCapacity": 9}, "cannot be less than"),
        ({"MinCapacity": 1, "MaxCapacity": 4, "Tags": {"team": "flights"}}, "already exists.*use the TagResource API"),
        ({"ResourceId": "endpoint/none"}, "Unsupported service namespace"),
        ({"ServiceNamespace": "ecs", "ScalableDimension": "ecs:service:DesiredCount"}, "does not support ecs"),
    ],
)
def test_a_target_that_cannot_be_is_refused(scaled: Scaled, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ClientError, match=message):
        scaled.client.register_scalable_target(**{**scaled.names, **changes})


def test_a_new_target_needs_both_capacities(scaled: Scaled, serving: Serving) -> None:
    other = serving.endpoint(serving.config_of("other"))
    with pytest.raises(ClientError, match="MaxCapacity is required"):
        scaled.client.register_scalable_target(
            **{**scaled.names, "ResourceId": f"endpoint/{other}/variant/AllTraffic"}, MinCapacity=1
        )


def test_an_update_of_a_registered_variant_may_change_its_model_and_not_its_instance_type(
    scaled: Scaled, serving: Serving
) -> None:
    model = serving.model(name="two")
    for changes in ({"InstanceType": "ml.c5.large"}, {"VariantName": "Other"}):
        other = serving.config(variants=[variant(model, **changes)])
        with pytest.raises(ClientError, match="must be deregistered as scalable targets"):
            serving.update(scaled.endpoint, other)
    serving.update(scaled.endpoint, serving.config(model))
    assert serving.settled(scaled.endpoint)["EndpointStatus"] == "InService"


def test_deregistering_deletes_policies_and_actions_and_so_does_deleting_the_endpoint(serving: Serving) -> None:
    scaled = Scaled(serving)
    scaled.client.deregister_scalable_target(**scaled.names)
    with pytest.raises(ClientError, match="ObjectNotFoundException"):
        scaled.client.deregister_scalable_target(**scaled.names)
    scaled.client.register_scalable_target(**scaled.names, MinCapacity=1, MaxCapacity=4)
    assert scaled.rest() == ([], [])
    serving.sagemaker.delete_endpoint(EndpointName=scaled.endpoint)
    serving.sagemaker.get_waiter("endpoint_deleted").wait(
        EndpointName=scaled.endpoint, WaiterConfig={"Delay": 1, "MaxAttempts": 30}
    )
    assert scaled.targets() == []
