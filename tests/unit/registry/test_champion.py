"""The chain from an endpoint to its model, against moto's SageMaker (descriptions only, nothing runs)."""

from __future__ import annotations

import boto3
import pytest
from moto import mock_aws

from airflow_dlaws.errors import ServiceRefused, SpecificationError
from airflow_dlaws.jobs import wire
from airflow_dlaws.registry.champion import LiveModel, live_model

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/dlaws-torch:2.13"
ROLE = "arn:aws:iam::123456789012:role/dlaws-sagemaker"
ARTIFACT = "s3://bucket/models/a/model.tar.gz"
KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}


@pytest.fixture
def sagemaker():
    with mock_aws():
        yield boto3.client("sagemaker", region_name="us-east-1", **KEYS)


def deploy(sagemaker, *, container, variants=("AllTraffic",), capture=None):
    sagemaker.create_model(ModelName="m", ExecutionRoleArn=ROLE, PrimaryContainer=container)
    options = {"DataCaptureConfig": capture} if capture else {}
    rows = [
        {"VariantName": name, "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        for name in variants
    ]
    sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=rows, **options)
    sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")


def test_an_endpoint_that_is_not_there_has_no_live_model(sagemaker):
    assert live_model(sagemaker, "nobody") is None


def test_a_written_out_container_is_read_as_it_is(sagemaker):
    capture = {
        "EnableCapture": True,
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": "s3://bucket/capture",
        "CaptureOptions": [{"CaptureMode": "Input"}],
    }
    deploy(
        sagemaker,
        container={"Image": IMAGE, "ModelDataUrl": ARTIFACT, "Environment": {"A": "1"}},
        capture=capture,
    )

    live = live_model(sagemaker, "e")

    assert live == LiveModel(
        endpoint_name="e",
        endpoint_config_name="c",
        variant_name="AllTraffic",
        model_name="m",
        model_package_arn=None,
        image=IMAGE,
        artifact_uri=ARTIFACT,
        environment={"A": "1"},
        data_capture_s3_uri="s3://bucket/capture",
        endpoint_status="InService",
    )
    assert wire.from_json(LiveModel, wire.to_json(live)) == live


def test_a_model_made_from_a_package_takes_image_and_artifact_from_the_package(sagemaker):
    sagemaker.create_model_package_group(ModelPackageGroupName="g")
    arn = sagemaker.create_model_package(
        ModelPackageGroupName="g",
        InferenceSpecification={
            "Containers": [{"Image": IMAGE, "ModelDataUrl": ARTIFACT, "Environment": {"A": "1", "B": "1"}}],
            "SupportedContentTypes": ["text/csv"],
            "SupportedResponseMIMETypes": ["text/csv"],
        },
    )["ModelPackageArn"]
    deploy(sagemaker, container={"ModelPackageName": arn, "Environment": {"B": "2"}})

    live = live_model(sagemaker, "e")

    assert live is not None
    assert (live.model_package_arn, live.image, live.artifact_uri) == (arn, IMAGE, ARTIFACT)
    assert live.environment == {"A": "1", "B": "2"}


def test_with_several_variants_one_has_to_be_named(sagemaker):
    deploy(sagemaker, container={"Image": IMAGE, "ModelDataUrl": ARTIFACT}, variants=("blue", "green"))

    with pytest.raises(SpecificationError, match=r"2 variants \['blue', 'green'\]"):
        live_model(sagemaker, "e")
    assert live_model(sagemaker, "e", variant_name="green").variant_name == "green"
    with pytest.raises(SpecificationError, match="has no variant 'red'"):
        live_model(sagemaker, "e", variant_name="red")


def test_a_model_deleted_under_its_endpoint_is_named(sagemaker):
    deploy(sagemaker, container={"Image": IMAGE, "ModelDataUrl": ARTIFACT})
    sagemaker.delete_model(ModelName="m")

    with pytest.raises(ServiceRefused, match="endpoint 'e' stands on 'm'"):
        live_model(sagemaker, "e")
