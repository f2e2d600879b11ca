"""A shadow variant gets copies of the requests; users see production's answers alone."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from serving import VARIANT, Serving, Traffic, deployment, percent, unique, variant

SHADOW = "Candidate"


def shadowed(serving: Serving, *, weight: float = 1.0, **behaviour: Any) -> str:
    """A configuration with "blue" in production and "green" in its shadow, all captured."""
    capture = {
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": f"s3://{serving.bucket}/captured",
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"], "JsonContentTypes": ["application/json"]},
    }
    shadow = variant(serving.model(name="green", **behaviour), SHADOW, InitialVariantWeight=weight)
    return serving.config(serving.model(name="blue"), ShadowProductionVariants=[shadow], DataCaptureConfig=capture)


def count(serving: Serving, endpoint: str, config: str, name: str, metric: str) -> float:
    now = datetime.now(UTC)
    pairs = {"EndpointName": endpoint, "VariantName": name, "EndpointConfigName": config}
    answer = serving.cloudwatch.get_metric_statistics(
        Namespace="AWS/SageMaker",
        MetricName=metric,
        Dimensions=[{"Name": key, "Value": value} for key, value in pairs.items()],
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(minutes=2),
        Period=60,
        Statistics=["Sum"],
    )
    return float(sum(point["Sum"] for point in answer["Datapoints"]))


def counted(serving: Serving, endpoint: str, config: str, metric: str, wanted: tuple[float, float]) -> None:
    """Wait until production and shadow have these sums."""
    deadline = time.monotonic() + 20
    while (found := tuple(count(serving, endpoint, config, name, metric) for name in (VARIANT, SHADOW))) != wanted:
        assert time.monotonic() < deadline, (metric, found)
        time.sleep(0.1)


def test_a_shadow_is_asked_measured_and_captured_but_never_heard(serving: Serving) -> None:
    config = shadowed(serving)
    endpoint = serving.endpoint(config)
    assert [serving.served_by(endpoint, body=b"%d" % number) for number in range(12)] == ["blue"] * 12
    counted(serving, endpoint, config, "Invocations", (12.0, 12.0))
    counted(serving, endpoint, config, "Invocation5XXErrors", (0.0, 0.0))
    description = serving.describe(endpoint)
    assert [one["VariantName"] for one in description["ProductionVariants"]] == [VARIANT]
    assert [one["VariantName"] for one in description["ShadowProductionVariants"]] == [SHADOW]
    with pytest.raises(ClientError, match="Variant Candidate"):
        serving.invoke(endpoint, TargetVariant=SHADOW)
    answers: dict[str, dict[str, str]] = {}
    deadline = time.monotonic() + 20
    while sum(map(len, answers.values())) < 24:
        assert time.monotonic() < deadline, answers
        time.sleep(0.1)
        for row in serving.s3.list_objects_v2(Bucket=serving.bucket, Prefix=f"captured/{endpoint}/").get(
            "Contents", []
        ):
            body = serving.s3.get_object(Bucket=serving.bucket, Key=row["Key"])["Body"].read()
            for line in body.splitlines():
                data = json.loads(line)["captureData"]
                side = answers.setdefault(row["Key"].split("/")[2], {})
                side[data["endpointInput"]["data"]] = json.loads(data["endpointOutput"]["data"])["served_by"]
    assert set(answers[VARIANT].values()) == {"blue"}
    assert set(answers[SHADOW].values()) == {"green"}
    assert answers[VARIANT].keys() == answers[SHADOW].keys() == {str(number) for number in range(12)}


def test_a_shadow_that_fails_or_is_left_out_at_times_harms_no_user(serving: Serving) -> None:
    config = shadowed(serving, weight=0.5, fail_every=1)
    endpoint = serving.endpoint(config)
    with Traffic(serving, endpoint) as traffic:
        traffic.more(200)
    assert traffic.errors == []
    assert set(traffic.answers) == {"blue"}
    copies = count(serving, endpoint, config, SHADOW, "Invocations")
    total = traffic.answers.total()
    # Draws at one half: five standard deviations either side.
    assert abs(copies - total / 2) < 2.5 * total**0.5 + 3
    failed = count(serving, endpoint, config, SHADOW, "Invocation5XXErrors")
    assert failed > 0
    assert count(serving, endpoint, config, VARIANT, "Invocation5XXErrors") == 0


def test_a_shadow_comes_and_goes_by_updates_that_lose_no_request(serving: Serving) -> None:
    plain = serving.config_of("blue")
    endpoint = serving.endpoint(plain)
    children = set(serving.aws.children())
    config = shadowed(serving)
    with Traffic(serving, endpoint) as traffic:
        serving.update(endpoint, config, DeploymentConfig=deployment("ALL_AT_ONCE"))
        assert serving.settled(endpoint)["EndpointConfigName"] == config
        traffic.more(20)
        serving.update(endpoint, plain, DeploymentConfig=deployment("ALL_AT_ONCE"))
        description = serving.settled(endpoint)
        traffic.more(10)
    assert traffic.errors == []
    assert set(traffic.answers) == {"blue"}
    assert "ShadowProductionVariants" not in description
    assert count(serving, endpoint, config, SHADOW, "Invocations") > 0
    assert len(set(serving.aws.children())) == len(children)


def test_a_shadow_that_does_not_start_leaves_the_endpoint_as_it_was(serving: Serving) -> None:
    plain = serving.config_of("blue")
    endpoint = serving.endpoint(plain)
    serving.update(endpoint, shadowed(serving, exits=True))
    description = serving.settled(endpoint)
    assert (description["EndpointStatus"], description["EndpointConfigName"]) == ("InService", plain)
    assert SHADOW in description["FailureReason"]


def test_what_aws_refuses_of_shadow_variants_is_refused(serving: Serving) -> None:
    model = serving.model(name="any")
    for production, shadows, says in (
        ([variant(model, "A"), variant(model, "B")], [variant(model, "C")], "2 and 1"),
        ([variant(model, "A")], [variant(model, "B"), variant(model, "C")], "1 and 2"),
        ([variant(model, "A")], [variant(model, "A")], "unique"),
        ([variant(model, "A")], [variant("no-such-model", "B")], "no-such-model"),
    ):
        with pytest.raises(ClientError, match=says):
            serving.sagemaker.create_endpoint_config(
                EndpointConfigName=unique("config"), ProductionVariants=production, ShadowProductionVariants=shadows
            )


def test_a_canary_from_a_shadowed_endpoint_shifts_as_any_other(serving: Serving) -> None:
    endpoint = serving.endpoint(shadowed(serving))
    green = serving.config_of("green")
    with Traffic(serving, endpoint) as traffic:
        config = deployment("CANARY", wait=30, CanarySize=percent(50))
        serving.update(endpoint, green, DeploymentConfig=config)
        assert serving.settled(endpoint)["EndpointConfigName"] == green
    assert traffic.errors == []
