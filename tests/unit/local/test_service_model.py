"""Requests are checked against botocore's own model, in AWS's words."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.local import model_codec, service_model
from airflow_dlaws.local.errors import ServiceError

ROLE = "arn:aws:iam::123456789012:role/dlaws-sagemaker"
MINIMAL = {"TrainingJobName": "my-job", "RoleArn": ROLE, "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"}}


def refusal(operation: str, request: dict[str, Any], service: str = "sagemaker") -> str:
    """Return the message with which a request is refused; "" where it is accepted."""
    shape = service_model.load(service).operation_model(operation).input_shape
    try:
        service_model.check(shape, model_codec.decode(shape, request))
    except ServiceError as error:
        return error.message if error.code == "ValidationException" else str(error)
    return ""


def test_a_right_request_passes() -> None:
    assert refusal("CreateTrainingJob", MINIMAL) == ""


def test_a_bad_name_is_refused_with_the_words_of_aws() -> None:
    assert refusal("CreateTrainingJob", MINIMAL | {"TrainingJobName": "my_job"}) == (
        "1 validation error detected: Value 'my_job' at 'trainingJobName' failed to satisfy constraint: "
        "Member must satisfy regular expression pattern: [a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"RoleArn": "dlaws-sagemaker-but-no-arn"},
            "at 'roleArn' failed to satisfy constraint: Member must satisfy reg",
        ),
        ({"TrainingJobName": "a" * 64}, "at 'trainingJobName'"),
        ({"RoleArn": None}, "Value null at 'roleArn' failed to satisfy constraint: Member must not be null"),
        ({"Colour": "red"}, "Value 'red' at 'colour' is no member of CreateTrainingJobRequest"),
        ({"HyperParameters": {"lr": "x" * 2501}}, "Map value must satisfy constraint: [Member must have length less"),
        ({"Environment": {"1A": "x"}}, "at 'environment' failed to satisfy constraint: Map keys must satisfy"),
        ({"HyperParameters": {str(n): "" for n in range(101)}}, "Member must have length less than or equal to 100"),
        (
            {"ResourceConfig": {"InstanceType": "ml.z9.large"}},
            "at 'resourceConfig.instanceType' failed to satisfy cons",
        ),
        (
            {"ResourceConfig": {"KeepAlivePeriodInSeconds": 99_999}},
            "'resourceConfig.keepAlivePeriodInSeconds' failed to satisfy constraint: Member must have value less than",
        ),
        ({"StoppingCondition": {"MaxRuntimeInSeconds": 0}}, "Member must have value greater than or equal to 1"),
        (
            {"Tags": [{"Key": "k", "Value": "v"}] * 51},
            "at 'tags' failed to satisfy constraint: Member must have length",
        ),
        ({"Tags": [{"Key": "a;b", "Value": "v"}]}, "Value 'a;b' at 'tags.1.member.key'"),
    ],
)
def test_each_kind_of_fault_is_found(change: dict[str, Any], words: str) -> None:
    assert words in refusal("CreateTrainingJob", MINIMAL | change)


def test_all_faults_are_counted() -> None:
    message = refusal("CreateTrainingJob", MINIMAL | {"TrainingJobName": "my_job", "RoleArn": "x"})
    assert message.startswith("3 validation errors detected: ")  # the role is too short, and no ARN


def test_java_character_classes_are_understood() -> None:
    arn = "arn:aws:sagemaker:us-east-1:123456789012:model/m"
    assert refusal("AddTags", {"ResourceArn": arn, "Tags": [{"Key": "Größe", "Value": "数 1"}]}) == ""
    assert "tags.1.member.value" in refusal("AddTags", {"ResourceArn": arn, "Tags": [{"Key": "k", "Value": "a;b"}]})


def test_the_runtime_is_checked_by_its_own_model() -> None:
    assert "endpointName" in refusal("InvokeEndpoint", {"EndpointName": "no_name", "Body": b""}, "sagemaker-runtime")


@pytest.mark.parametrize("service", ["sagemaker", "sagemaker-runtime"])
def test_every_pattern_of_the_model_can_be_compiled(service: str) -> None:
    model = service_model.load(service)
    patterns = [shape["pattern"] for shape in _shapes(model).values() if "pattern" in shape]
    assert patterns
    for pattern in patterns:
        service_model.pattern_of(pattern)


def _shapes(model: ServiceModel) -> dict[str, dict[str, Any]]:
    return {name: model._service_description["shapes"][name] for name in model.shape_names}


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        ({"TrainingJobName": 5}, "TrainingJobName"),
        ({"Tags": {"a": "b"}}, "TagList"),
        ({"HyperParameters": {"lr": 0.1}}, "Hy"),
    ],
)
def test_a_value_of_another_type_is_a_serialization_error(request_: dict[str, Any], word: str) -> None:
    shape = service_model.load("sagemaker").operation_model("CreateTrainingJob").input_shape
    with pytest.raises(ServiceError, match=word) as refused:
        model_codec.decode(shape, MINIMAL | request_)
    assert refused.value.code == "SerializationException"


def test_a_model_that_many_first_calls_ask_for_at_once_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    callers, read, reads = 20, Loader.load_service_model, []
    together = threading.Barrier(callers)

    def counted(loader: Loader, *which: str) -> Any:
        reads.append(which)
        return read(loader, *which)

    def ask(_: int) -> ServiceModel:
        together.wait(timeout=30)
        return service_model.load("sagemaker-a2i-runtime")

    monkeypatch.setattr(Loader, "load_service_model", counted)
    with ThreadPoolExecutor(callers) as pool:
        models = set(pool.map(ask, range(callers)))
    assert (len(models), len(reads)) == (1, 1)


def test_an_answer_with_an_unknown_member_is_our_fault_and_says_so() -> None:
    shape = service_model.load("sagemaker").operation_model("DescribeTrainingJob").output_shape
    with pytest.raises(ServiceError, match="Colour") as failed:
        model_codec.encode(shape, {"Colour": "red"}, "DescribeTrainingJob")
    assert failed.value.code == "InternalFailure"


@given(st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1)), st.text(max_size=20))
def test_what_is_encoded_is_decoded_to_the_same(when: datetime, reason: str) -> None:
    shape = service_model.load("sagemaker").operation_model("DescribeTrainingJob").output_shape
    when = when.replace(tzinfo=UTC, microsecond=when.microsecond // 1000 * 1000)
    answer = {"CreationTime": when, "FailureReason": reason, "TrainingTimeInSeconds": 3}
    wire = json.loads(json.dumps(model_codec.encode(shape, answer)))
    assert model_codec.decode(shape, wire) == answer
