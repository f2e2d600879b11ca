"""Endpoints are real servers: they start, serve, fail and go as AWS says."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from typing import Any

import pytest
from botocore.exceptions import ClientError
from serving import IMAGE, ROLE, VARIANT, Serving, unique, variant

PING_FAILED = (
    "The primary container for production variant AllTraffic did not pass the ping health check. Please check "
    "CloudWatch logs for this endpoint."
)


def test_an_endpoint_serves_the_model_of_its_configuration(serving: Serving) -> None:
    config = serving.config_of("blue")
    endpoint = serving.endpoint(config)
    description = serving.describe(endpoint)
    assert description["EndpointConfigName"] == config
    assert description["ProductionVariants"][0]["CurrentInstanceCount"] == 1
    assert "PendingDeploymentSummary" not in description
    assert "FailureReason" not in description
    answer = serving.invoke(endpoint)
    assert json.loads(answer["Body"]) == {"served_by": "blue"}
    assert answer["InvokedProductionVariant"] == VARIANT
    assert answer["ContentType"] == "application/json"


def test_bytes_types_and_attributes_pass_through_unchanged(serving: Serving) -> None:
    endpoint = serving.endpoint(serving.config_of("blue"))
    body = bytes(range(256)) * 1000
    answer = serving.invoke(endpoint, body, "application/x-echo", Accept="image/png", CustomAttributes="trace=1")
    assert answer["Body"] == body
    assert answer["ContentType"] == "image/png"
    assert answer["CustomAttributes"] == "trace=1"


def test_what_the_container_prints_is_in_cloudwatch_logs(serving: Serving) -> None:
    endpoint = serving.endpoint(serving.config_of("printer"))
    assert any("serving printer from" in line for line in log_lines(serving, endpoint, 1))


def test_an_image_that_nobody_registered_fails_and_says_how_to_register_it(serving: Serving) -> None:
    endpoint = serving.create(serving.config(serving.model(image="nowhere.example/unknown:1")))
    description = serving.settled(endpoint)
    assert description["EndpointStatus"] == "Failed"
    assert "The image 'nowhere.example/unknown:1' does not exist." in description["FailureReason"]
    assert "dlaws local up --image" in description["FailureReason"]


def test_a_container_that_exits_fails_its_health_check(serving: Serving) -> None:
    endpoint = serving.create(serving.config(serving.model(exits=True)))
    description = serving.settled(endpoint)
    assert (description["EndpointStatus"], description["FailureReason"]) == ("Failed", PING_FAILED)
    assert "The container exited with code 4." in log_lines(serving, endpoint, 2)


def test_a_container_that_answers_no_200_to_ping_fails_its_health_check(serving: Serving) -> None:
    model = serving.model(ping=500)
    config = serving.config(variants=[variant(model, ContainerStartupHealthCheckTimeoutInSeconds=60)])
    description = serving.settled(serving.create(config))
    assert (description["EndpointStatus"], description["FailureReason"]) == ("Failed", PING_FAILED)


def test_a_failed_health_check_can_be_ordered(serving: Serving) -> None:
    serving.aws.order_fault(kind="ping", times=1)
    assert serving.settled(serving.create(serving.config_of("blue")))["FailureReason"] == PING_FAILED


def test_from_failed_only_deletion_leads_on(serving: Serving) -> None:
    good = serving.config_of("good")
    endpoint = serving.create(serving.config(serving.model(exits=True)))
    serving.settled(endpoint)
    with pytest.raises(ClientError, match="in status Failed"):
        serving.update(endpoint, good)
    with pytest.raises(ClientError, match=r"ValidationError.*not found"):
        serving.invoke(endpoint)
    serving.sagemaker.delete_endpoint(EndpointName=endpoint)
    with pytest.raises(ClientError, match="Could not find endpoint"):
        serving.until(endpoint, lambda one: False)


def test_an_error_of_the_container_is_a_model_error_with_its_status(serving: Serving) -> None:
    endpoint = serving.endpoint(serving.config_of("blue"))
    for status, side in ((418, "client"), (503, "server")):
        with pytest.raises(ClientError) as caught:
            serving.invoke(endpoint, str(status).encode(), "application/x-status")
        answer: dict[str, Any] = dict(caught.value.response)
        assert answer["Error"]["Code"] == "ModelError"
        assert answer["Error"]["Message"].startswith(f'Received {side} error ({status}) from primary with message "as')
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 424
        assert (answer["OriginalStatusCode"], answer["OriginalMessage"]) == (status, "as asked")
        assert answer["LogStreamArn"].endswith(f"log-group:/aws/sagemaker/Endpoints/{endpoint}")


def test_a_request_to_no_endpoint_is_a_validation_error(serving: Serving) -> None:
    with pytest.raises(ClientError, match=r"\(ValidationError\).*Endpoint nowhere of account 123456789012 not found\."):
        serving.invoke("nowhere")


def test_a_body_over_six_mebibytes_is_refused(serving: Serving) -> None:
    endpoint = serving.endpoint(serving.config_of("blue"))
    assert len(serving.invoke(endpoint, b"x" * 6_291_456, "application/x-echo")["Body"]) == 6_291_456
    with pytest.raises(ClientError, match="6291456"):
        serving.invoke(endpoint, b"x" * 6_291_457, "application/x-echo")


def test_a_container_that_dies_is_started_again_and_requests_fail_meanwhile(serving: Serving) -> None:
    endpoint = serving.endpoint(serving.config_of("phoenix"))
    with pytest.raises(ClientError, match="ServiceUnavailable"):
        serving.invoke(endpoint, b"", "application/x-die")
    deadline = time.monotonic() + 20
    answer = ""
    while answer != "phoenix":
        assert time.monotonic() < deadline
        with contextlib.suppress(ClientError):
            answer = serving.served_by(endpoint)
    assert serving.describe(endpoint)["EndpointStatus"] == "InService"


def test_variants_get_their_weight_of_the_traffic_and_can_be_named(serving: Serving) -> None:
    heavy, light = serving.model(name="heavy"), serving.model(name="light")
    variants = [variant(heavy, "Heavy", InitialVariantWeight=3), variant(light, "Light", InitialVariantWeight=1)]
    endpoint = serving.endpoint(serving.config(variants=variants))
    counts = Counter(serving.served_by(endpoint) for _ in range(200))
    # 200 draws at 1/4: a standard deviation of 6.1; five of them either side.
    assert 19 < counts["light"] < 81
    assert {serving.served_by(endpoint, TargetVariant="Light") for _ in range(5)} == {"light"}
    with pytest.raises(ClientError, match="Variant Other of endpoint"):
        serving.invoke(endpoint, TargetVariant="Other")
    serving.sagemaker.update_endpoint_weights_and_capacities(
        EndpointName=endpoint,
        DesiredWeightsAndCapacities=[{"VariantName": "Heavy", "DesiredWeight": 0, "DesiredInstanceCount": 2}],
    )
    description = serving.settled(endpoint)
    assert {serving.served_by(endpoint) for _ in range(20)} == {"light"}
    assert serving.served_by(endpoint, TargetVariant="Heavy") == "heavy"
    shown = {one["VariantName"]: one for one in description["ProductionVariants"]}
    assert (shown["Heavy"]["CurrentWeight"], shown["Heavy"]["CurrentInstanceCount"]) == (0.0, 2)


def test_names_that_do_not_exist_are_refused_in_awss_words(serving: Serving) -> None:
    sagemaker, arn = serving.sagemaker, "arn:aws:sagemaker:us-east-1:123456789012"
    config = serving.config_of("blue")
    for call, words in (
        (lambda: sagemaker.describe_endpoint(EndpointName="no"), f'Could not find endpoint "{arn}:endpoint/no"'),
        (lambda: sagemaker.delete_endpoint(EndpointName="no"), f'Could not find endpoint "{arn}:endpoint/no"'),
        (
            lambda: sagemaker.update_endpoint(EndpointName="no", EndpointConfigName=config),
            f'Could not find endpoint "{arn}:endpoint/no"',
        ),
        (
            lambda: sagemaker.create_endpoint(EndpointName="no", EndpointConfigName="no"),
            f'Could not find endpoint configuration "{arn}:endpoint-config/no"',
        ),
        (lambda: sagemaker.describe_model(ModelName="no"), f'Could not find model "{arn}:model/no"'),
        (lambda: serving.config("no"), f'Could not find model "{arn}:model/no"'),
    ):
        with pytest.raises(ClientError) as caught:
            call()
        assert caught.value.response["Error"]["Code"] == "ValidationException"
        assert words in caught.value.response["Error"]["Message"]


def test_names_that_are_taken_are_refused(serving: Serving) -> None:
    model = serving.model()
    config = serving.config(model)
    endpoint = serving.create(config)
    with pytest.raises(ClientError, match="Cannot create already existing model"):
        serving.sagemaker.create_model(ModelName=model, ExecutionRoleArn=ROLE, PrimaryContainer={"Image": IMAGE})
    with pytest.raises(ClientError, match="Cannot create already existing endpoint configuration"):
        serving.sagemaker.create_endpoint_config(EndpointConfigName=config, ProductionVariants=[variant(model)])
    with pytest.raises(ClientError, match="Cannot create already existing endpoint "):
        serving.sagemaker.create_endpoint(EndpointName=endpoint, EndpointConfigName=config)


def test_an_endpoint_being_created_takes_no_change(serving: Serving) -> None:
    config = serving.config_of("blue")
    endpoint = serving.create(config)
    for change in (
        lambda: serving.update(endpoint, config),
        lambda: serving.sagemaker.delete_endpoint(EndpointName=endpoint),
    ):
        with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
            change()


def test_a_model_whose_artifact_is_not_in_s3_is_refused(serving: Serving) -> None:
    url = f"s3://{serving.bucket}/nothing/model.tar.gz"
    with pytest.raises(ClientError, match=f"Could not find model data at {url}"):
        serving.sagemaker.create_model(
            ModelName=unique("model"),
            ExecutionRoleArn=ROLE,
            PrimaryContainer={"Image": IMAGE, "ModelDataUrl": url},
        )


def test_an_artifact_that_is_no_archive_fails_the_endpoint(serving: Serving) -> None:
    serving.s3.put_object(Bucket=serving.bucket, Key="bad/model.tar.gz", Body=b"no archive")
    model, url = unique("model"), f"s3://{serving.bucket}/bad/model.tar.gz"
    serving.sagemaker.create_model(
        ModelName=model, ExecutionRoleArn=ROLE, PrimaryContainer={"Image": IMAGE, "ModelDataUrl": url}
    )
    description = serving.settled(serving.create(serving.config(model)))
    assert description["FailureReason"].startswith(f"Failed to extract model data archive from {url}")


def test_a_configuration_in_use_may_be_deleted_and_the_endpoint_serves_on(serving: Serving) -> None:
    config = serving.config_of("blue")
    endpoint = serving.endpoint(config)
    serving.sagemaker.delete_endpoint_config(EndpointConfigName=config)
    assert serving.served_by(endpoint) == "blue"
    assert serving.describe(endpoint)["EndpointConfigName"] == config
    with pytest.raises(ClientError, match="Could not find endpoint configuration"):
        serving.update(endpoint, config)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 1}}, "does not support ServerlessConfig"),
        ({"AcceleratorType": "ml.eia1.medium"}, "no longer available"),
        ({"InstanceType": "ml.none.large"}, "enum value set"),
        ({"InitialVariantWeight": 0.0}, "weight larger than 0"),
    ],
)
def test_variants_that_cannot_be_served_are_refused(serving: Serving, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ClientError, match=says):
        serving.config(variants=[variant(serving.model(), **changes)])


def test_a_pipeline_of_containers_is_refused(serving: Serving) -> None:
    with pytest.raises(ClientError, match="pipeline of 2 containers"):
        serving.sagemaker.create_model(
            ModelName=unique("model"), ExecutionRoleArn=ROLE, Containers=[{"Image": IMAGE}, {"Image": IMAGE}]
        )


def test_aws_maintenance_can_be_ordered_and_blocks_changes(serving: Serving) -> None:
    config = serving.config_of("blue")
    endpoint = serving.endpoint(config)
    serving.aws.order_fault(kind="endpoint_status", target=endpoint, code="SystemUpdating", seconds=20, times=1)
    assert serving.describe(endpoint)["EndpointStatus"] == "SystemUpdating"
    with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
        serving.update(endpoint, config)
    assert serving.settled(endpoint)["EndpointStatus"] == "InService"


def test_an_endpoint_out_of_service_answers_no_request(serving: Serving) -> None:
    endpoint = serving.endpoint(serving.config_of("blue"))
    serving.aws.order_fault(kind="endpoint_status", target=endpoint, code="OutOfService", times=1)
    assert serving.describe(endpoint)["EndpointStatus"] == "OutOfService"
    with pytest.raises(ClientError, match="ServiceUnavailable"):
        serving.invoke(endpoint)


def test_lists_filter_sort_and_page(serving: Serving) -> None:
    prefix = unique("listed")
    for number in range(3):
        serving.sagemaker.create_model(
            ModelName=f"{prefix}-{number}", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": IMAGE}
        )
    asked = {"NameContains": prefix, "SortBy": "Name", "SortOrder": "Ascending", "MaxResults": 2}
    first = serving.sagemaker.list_models(**asked)
    second = serving.sagemaker.list_models(**asked, NextToken=first["NextToken"])
    names = [model["ModelName"] for page in (first, second) for model in page["Models"]]
    assert names == [f"{prefix}-{number}" for number in range(3)]
    assert "NextToken" not in second
    endpoint = serving.create(serving.config_of("blue"))
    listed = serving.sagemaker.list_endpoints(NameContains=endpoint)["Endpoints"]
    assert [one["EndpointName"] for one in listed] == [endpoint]


def test_a_deleted_endpoint_leaves_no_process(serving: Serving) -> None:
    before = set(serving.aws.children())
    endpoint = serving.endpoint(serving.config_of("blue"))
    started = set(serving.aws.children()) - before
    assert started
    serving.sagemaker.delete_endpoint(EndpointName=endpoint)
    with pytest.raises(ClientError, match="Could not find endpoint"):
        serving.until(endpoint, lambda one: False)
    assert not started & set(serving.aws.children())


def log_lines(serving: Serving, endpoint: str, count: int) -> list[str]:
    """Wait for at least so many log lines of an endpoint."""
    logs, group = serving.logs, f"/aws/sagemaker/Endpoints/{endpoint}"
    deadline = time.monotonic() + 20
    lines: list[str] = []
    while len(lines) < count:
        assert time.monotonic() < deadline, lines
        time.sleep(0.1)
        with contextlib.suppress(logs.exceptions.ResourceNotFoundException):
            streams = logs.describe_log_streams(logGroupName=group)["logStreams"]
            assert all(stream["logStreamName"].startswith(f"{VARIANT}/i-") for stream in streams)
            lines = [
                event["message"]
                for stream in streams
                for event in logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"])["events"]
            ]
    return lines
