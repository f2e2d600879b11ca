"""Which model an endpoint serves now: the champion a challenger is compared with, and a rollout starts from.

Follows DescribeEndpoint -> DescribeEndpointConfig -> DescribeModel -> DescribeModelPackage, or stops at a model whose
container is written out in full. Says nothing about whether the model is any good.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from airflow_dlaws.errors import ServiceRefused, ServiceUnavailable, SpecificationError

#: SageMaker answers ValidationException for many faults; a missing resource is told by its wording.
_NOT_FOUND = "Could not find"
_TRANSIENT = frozenset({"ThrottlingException", "Throttling", "ServiceUnavailable", "InternalFailure"})


@dataclass(frozen=True, kw_only=True)
class LiveModel:
    """The model behind one variant of an endpoint, as read from AWS."""

    endpoint_name: str
    endpoint_config_name: str
    variant_name: str
    model_name: str
    #: None for a model made from a container written out in full.
    model_package_arn: str | None
    image: str
    artifact_uri: str
    environment: Mapping[str, str] = field(default_factory=dict)
    #: Where captured requests go; None where data capture is off.
    data_capture_s3_uri: str | None = None
    #: SageMaker's EndpointStatus: only "InService" serves for certain.
    endpoint_status: str


def live_model(sagemaker_client: Any, endpoint_name: str, *, variant_name: str | None = None) -> LiveModel | None:
    """Return the model that `endpoint_name` serves, or None where there is no such endpoint.

    :param sagemaker_client: a boto3 SageMaker client.
    :param variant_name: which variant to look at; needed only for an endpoint with several.
    :raises SpecificationError: the endpoint has several variants, or not the one named.
    :raises ServiceRefused: a resource the endpoint stands on is gone, or has no single container.
    :raises ServiceUnavailable: AWS throttled the question or had an outage.
    """
    try:
        endpoint = sagemaker_client.describe_endpoint(EndpointName=endpoint_name)
    except ClientError as error:
        if _NOT_FOUND in str(error):
            return None
        raise _refusal(f"cannot describe endpoint {endpoint_name!r}", error) from error
    config_name = endpoint["EndpointConfigName"]
    config = _describe(sagemaker_client.describe_endpoint_config, endpoint_name, EndpointConfigName=config_name)
    variant = _the_variant(endpoint_name, config["ProductionVariants"], variant_name)
    model = _describe(sagemaker_client.describe_model, endpoint_name, ModelName=variant["ModelName"])
    container = _the_container(variant["ModelName"], model)
    package_arn = container.get("ModelPackageName")
    if package_arn:
        package = _describe(sagemaker_client.describe_model_package, endpoint_name, ModelPackageName=package_arn)
        container = _merged(package, container)
    return LiveModel(
        endpoint_name=endpoint_name,
        endpoint_config_name=config_name,
        variant_name=variant["VariantName"],
        model_name=variant["ModelName"],
        model_package_arn=package_arn,
        image=container.get("Image", ""),
        artifact_uri=_artifact(variant["ModelName"], container),
        environment=container.get("Environment") or {},
        data_capture_s3_uri=_capture_uri(config.get("DataCaptureConfig") or {}),
        endpoint_status=endpoint["EndpointStatus"],
    )


def _the_variant(endpoint_name: str, variants: list[dict[str, Any]], wanted: str | None) -> dict[str, Any]:
    by_name = {variant["VariantName"]: variant for variant in variants}
    if wanted is not None:
        if wanted not in by_name:
            raise SpecificationError(f"endpoint {endpoint_name!r} has no variant {wanted!r}; it has {sorted(by_name)}")
        return by_name[wanted]
    if len(variants) != 1:
        raise SpecificationError(
            f"endpoint {endpoint_name!r} has {len(variants)} variants {sorted(by_name)}: say which with variant_name"
        )
    return variants[0]


def _the_container(model_name: str, model: dict[str, Any]) -> dict[str, Any]:
    containers = model.get("Containers") or []
    primary = model.get("PrimaryContainer") or (containers[0] if len(containers) == 1 else None)
    if primary is None:
        raise ServiceRefused(
            f"model {model_name!r} is an inference pipeline of {len(containers)} containers: only models with one "
            "container can be compared and rolled out"
        )
    return dict(primary)


def _merged(package: dict[str, Any], container: dict[str, Any]) -> dict[str, Any]:
    """Lay what the model sets over what its package says, as SageMaker does with the environment."""
    base = package["InferenceSpecification"]["Containers"][0]
    environment = {**(base.get("Environment") or {}), **(container.get("Environment") or {})}
    return {**base, "Environment": environment}


def _artifact(model_name: str, container: dict[str, Any]) -> str:
    source = (container.get("ModelDataSource") or {}).get("S3DataSource") or {}
    uri = container.get("ModelDataUrl") or source.get("S3Uri")
    if not uri:
        raise ServiceRefused(f"model {model_name!r} names no model data in S3: nothing to compare with")
    return str(uri)


def _capture_uri(capture: dict[str, Any]) -> str | None:
    return str(capture["DestinationS3Uri"]) if capture.get("EnableCapture") else None


def _describe(call: Any, endpoint_name: str, **what: str) -> dict[str, Any]:
    try:
        return dict(call(**what))
    except ClientError as error:
        (name,) = what.values()
        raise _refusal(f"endpoint {endpoint_name!r} stands on {name!r}, which cannot be described", error) from error


def _refusal(message: str, error: ClientError) -> ServiceRefused | ServiceUnavailable:
    detail = error.response.get("Error", {})
    text = f"{message}: {detail.get('Code')}: {detail.get('Message')}"
    return ServiceUnavailable(text) if detail.get("Code") in _TRANSIENT else ServiceRefused(text)
