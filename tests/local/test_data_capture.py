"""Captured requests lie in S3 in AWS's layout, soon."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError
from serving import VARIANT, Serving

HEADERS = {"CsvContentTypes": ["text/csv"], "JsonContentTypes": ["application/json"]}


def capture(serving: Serving, percentage: int = 100, **changes: Any) -> dict[str, Any]:
    return {
        "EnableCapture": True,
        "InitialSamplingPercentage": percentage,
        "DestinationS3Uri": f"s3://{serving.bucket}/captured",
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": HEADERS,
        **changes,
    }


def endpoint_with(serving: Serving, config: dict[str, Any], **behaviour: Any) -> str:
    return serving.endpoint(serving.config(serving.model(**behaviour), DataCaptureConfig=config))


def records(serving: Serving, count: int, prefix: str = "captured/") -> dict[str, list[dict[str, Any]]]:
    """Wait for so many records; return them by key."""
    deadline = time.monotonic() + 20
    while True:
        listed = serving.s3.list_objects_v2(Bucket=serving.bucket, Prefix=prefix).get("Contents", [])
        bodies = {one["Key"]: serving.s3.get_object(Bucket=serving.bucket, Key=one["Key"])["Body"] for one in listed}
        found = {key: [json.loads(line) for line in body.read().splitlines()] for key, body in bodies.items()}
        if sum(map(len, found.values())) >= count:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def test_requests_are_captured_by_endpoint_variant_and_hour(serving: Serving) -> None:
    endpoint = endpoint_with(serving, capture(serving))
    serving.invoke(endpoint, b"1,2,3", "text/csv", InferenceId="my-id")
    ((key, (record,)),) = records(serving, 1).items()
    hour = record["eventMetadata"]["inferenceTime"][:13].replace("-", "/").replace("T", "/")
    assert key.startswith(f"captured/{endpoint}/{VARIANT}/{hour}/")
    assert key.endswith(".jsonl")
    assert record["eventMetadata"]["inferenceId"] == "my-id"
    assert record["captureData"] == {
        "endpointInput": {
            "observedContentType": "text/csv",
            "mode": "INPUT",
            "data": "1,2,3",
            "encoding": "CSV",
        },
        "endpointOutput": {
            "observedContentType": "application/json",
            "mode": "OUTPUT",
            "data": '{"served_by": "model"}',
            "encoding": "JSON",
        },
    }


def test_requests_that_fail_are_not_captured(serving: Serving) -> None:
    endpoint = endpoint_with(serving, capture(serving))
    with pytest.raises(ClientError, match="ModelError"):
        serving.invoke(endpoint, b"500", "application/x-status")
    serving.invoke(endpoint, b"good")
    (found,) = records(serving, 1).values()
    assert [record["captureData"]["endpointInput"]["data"] for record in found] == ["good"]


def test_deleting_the_endpoint_delivers_what_was_still_held_back(serving: Serving) -> None:
    serving.aws.order_fault(kind="capture_delay", seconds=10_000, target="*")
    try:
        endpoint = endpoint_with(serving, capture(serving))
        for _ in range(20):
            serving.invoke(endpoint)
        time.sleep(1)  # longer than a delivery takes when nothing holds it back
        assert "Contents" not in serving.s3.list_objects_v2(Bucket=serving.bucket, Prefix="captured/")
        serving.sagemaker.delete_endpoint(EndpointName=endpoint)
        assert sum(map(len, records(serving, 20).values())) == 20
    finally:
        serving.aws.clear_faults()


def test_sampling_takes_its_percentage(serving: Serving) -> None:
    endpoint = endpoint_with(serving, capture(serving, percentage=50))
    for _ in range(100):
        serving.invoke(endpoint)
    serving.sagemaker.delete_endpoint(EndpointName=endpoint)
    with pytest.raises(ClientError, match="Could not find endpoint"):
        serving.until(endpoint, lambda one: False)
    # 100 draws at 1/2: a standard deviation of 5; five of them either side.
    assert 25 < sum(map(len, records(serving, 1).values())) < 75


def test_describe_endpoint_says_what_is_captured(serving: Serving) -> None:
    endpoint = endpoint_with(serving, capture(serving, percentage=30))
    assert serving.describe(endpoint)["DataCaptureConfig"] == {
        "EnableCapture": True,
        "CaptureStatus": "Started",
        "CurrentSamplingPercentage": 30,
        "DestinationS3Uri": f"s3://{serving.bucket}/captured",
    }


def test_capture_that_is_configured_is_on_unless_it_is_switched_off(serving: Serving) -> None:
    """API reference, EnableCapture: "defaults to enabled"."""
    config = capture(serving)
    del config["EnableCapture"]
    assert serving.describe(endpoint_with(serving, config))["DataCaptureConfig"]["CaptureStatus"] == "Started"
    off = endpoint_with(serving, capture(serving, EnableCapture=False))
    assert serving.describe(off)["DataCaptureConfig"]["CaptureStatus"] == "Stopped"


def test_an_update_changes_where_requests_are_captured(serving: Serving) -> None:
    endpoint = endpoint_with(serving, capture(serving))
    serving.invoke(endpoint, b"before")
    elsewhere = capture(serving, DestinationS3Uri=f"s3://{serving.bucket}/elsewhere")
    serving.update(endpoint, serving.config(serving.model(), DataCaptureConfig=elsewhere))
    serving.until(endpoint, lambda one: one["DataCaptureConfig"]["DestinationS3Uri"] == elsewhere["DestinationS3Uri"])
    serving.invoke(endpoint, b"after")
    (after,) = records(serving, 1, "elsewhere/").values()
    assert [record["captureData"]["endpointInput"]["data"] for record in after] == ["after"]
    (before,) = records(serving, 1).values()
    assert [record["captureData"]["endpointInput"]["data"] for record in before] == ["before"]


def test_while_two_fleets_serve_each_captures_by_its_own_configuration(serving: Serving) -> None:
    """Records do not say who answered (developer guide): destinations are all that tells two configurations apart."""
    endpoint = endpoint_with(serving, capture(serving))
    apart = capture(serving, DestinationS3Uri=f"s3://{serving.bucket}/apart")
    canary = {
        "Type": "CANARY",
        "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 50},
        "WaitIntervalInSeconds": 200,
    }
    serving.update(
        endpoint,
        serving.config(serving.model(), DataCaptureConfig=apart),
        DeploymentConfig={"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": canary}},
    )
    during = serving.until(endpoint, lambda one: "Baking" in str(one.get("PendingDeploymentSummary")))
    assert during["DataCaptureConfig"]["DestinationS3Uri"].endswith("/captured")
    for _ in range(40):
        serving.invoke(endpoint)
    assert records(serving, 1)
    assert records(serving, 1, "apart/")
