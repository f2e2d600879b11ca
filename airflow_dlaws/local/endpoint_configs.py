"""Endpoint configurations: which models serve under which variants, and what is captured. Immutable.

Not here: serverless and asynchronous variants, inference components, managed instance scaling.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow_dlaws.local import listing
from airflow_dlaws.local.context import Handler, LocalContext, PerRegion, RequestContext
from airflow_dlaws.local.errors import ServiceError, unsupported, validation_error
from airflow_dlaws.local.models import Models

_UNSUPPORTED = (
    "AsyncInferenceConfig", "ExplainerConfig", "VpcConfig", "CrossRegionTrafficConfig",
)  # fmt: skip
_UNSUPPORTED_IN_VARIANT = (
    "ServerlessConfig", "ManagedInstanceScaling", "InstancePools", "CapacityReservationConfig",
    "AcceleratorPartitionLayouts", "CoreDumpConfig",
)  # fmt: skip

_VARIANT_LISTS = ("ProductionVariants", "ShadowProductionVariants")

#: API reference, MetricsConfig: MetricPublishFrequencyInSeconds.
_PUBLISH_FREQUENCIES = (10, 30, 60, 120, 180, 240, 300)


@dataclass(frozen=True, kw_only=True)
class EndpointConfig:
    """An endpoint configuration as it was asked for."""

    name: str
    arn: str
    created: datetime
    request: Mapping[str, Any]

    @property
    def variants(self) -> list[dict[str, Any]]:
        """ProductionVariants."""
        return list(self.request["ProductionVariants"])

    @property
    def shadow_variants(self) -> list[dict[str, Any]]:
        """ShadowProductionVariants: at most one."""
        return list(self.request.get("ShadowProductionVariants", ()))

    @property
    def instance_counts(self) -> dict[str, int]:
        """InitialInstanceCount by variant name."""
        return {variant["VariantName"]: variant["InitialInstanceCount"] for variant in self.variants}

    @property
    def capture(self) -> Mapping[str, Any] | None:
        """DataCaptureConfig, or None."""
        return self.request.get("DataCaptureConfig")

    @property
    def metric_resolution(self) -> int:
        """Seconds between two datapoints of the invocation metrics: 60, or less with enhanced metrics."""
        config = self.request.get("MetricsConfig") or {}
        return int(config.get("MetricPublishFrequencyInSeconds", 60)) if config.get("EnableEnhancedMetrics") else 60


class EndpointConfigs:
    """The operations on endpoint configurations."""

    def __init__(self, context: LocalContext, models: Models) -> None:
        self._context, self._models = context, models
        self._configs: PerRegion[dict[str, EndpointConfig]] = PerRegion(dict)
        self._lock = threading.Lock()

    def operations(self) -> dict[str, Handler]:
        """See `Resource`."""
        return {
            "CreateEndpointConfig": self._create,
            "DescribeEndpointConfig": self._describe,
            "DeleteEndpointConfig": self._delete,
            "ListEndpointConfigs": self._list,
        }

    def runtime_operations(self) -> dict[str, Handler]:
        """See `Resource`."""
        return {}

    def close(self) -> None:
        """See `Resource`."""

    def find(self, name: str, request: RequestContext) -> EndpointConfig:
        """Return a configuration.

        :raises ServiceError: there is none.
        """
        config = self._configs[request.region].get(name)
        if config is None:
            raise validation_error(f'Could not find endpoint configuration "{request.arn("endpoint-config", name)}".')
        return config

    def _create(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        name = parameters["EndpointConfigName"]
        arn = request.arn("endpoint-config", name)
        for problem in _problems(parameters):
            raise problem
        for variant in _all_variants(parameters):
            self._models.find(variant["ModelName"], request)
        with self._lock:
            configs = self._configs[request.region]
            if name in configs:
                raise validation_error(f'Cannot create already existing endpoint configuration "{arn}".')
            configs[name] = EndpointConfig(
                name=name, arn=arn, created=self._context.now(), request=_with_defaults(parameters)
            )
            self._context.tags.create(arn, parameters.get("Tags"))
        return {"EndpointConfigArn": arn}

    def _describe(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        config = self.find(parameters["EndpointConfigName"], request)
        echoed = {member: value for member, value in config.request.items() if member != "Tags"}
        return {**echoed, "EndpointConfigArn": config.arn, "CreationTime": config.created}

    def _delete(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        """Delete a configuration, in use or not. AWS allows it, and later updates of the endpoint break on it."""
        with self._lock:
            config = self.find(parameters["EndpointConfigName"], request)
            del self._configs[request.region][config.name]
            self._context.tags.forget(config.arn)
        return {}

    def _list(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        summaries = [
            {"EndpointConfigName": config.name, "EndpointConfigArn": config.arn, "CreationTime": config.created}
            for config in list(self._configs[request.region].values())
        ]
        return listing.page(summaries, parameters, into="EndpointConfigs", name="EndpointConfigName")


def _with_defaults(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The request with the API reference's defaults: a weight of 1, and capture enabled where it is configured."""
    filled = dict(parameters)
    for member in _VARIANT_LISTS:
        if member in parameters:
            filled[member] = [{"InitialVariantWeight": 1.0, **one} for one in parameters[member]]
    if "DataCaptureConfig" in parameters:
        filled["DataCaptureConfig"] = {"EnableCapture": True, **parameters["DataCaptureConfig"]}
    return filled


def _problems(parameters: Mapping[str, Any]) -> Iterator[ServiceError]:
    for member in _UNSUPPORTED:
        if parameters.get(member):
            yield unsupported(f"{member} in CreateEndpointConfig")
    names = [variant["VariantName"] for variant in _all_variants(parameters)]
    if len(set(names)) < len(names):
        yield validation_error(f"Variant names must be unique within an endpoint configuration; they are {names}.")
    for variant in _all_variants(parameters):
        yield from _variant_problems(variant)
    yield from _shadow_problems(parameters)
    if not sum(variant.get("InitialVariantWeight", 1.0) for variant in parameters["ProductionVariants"]):
        yield validation_error("At least one production variant must have a weight larger than 0.")
    yield from _capture_problems(parameters.get("DataCaptureConfig") or {})
    frequency = (parameters.get("MetricsConfig") or {}).get("MetricPublishFrequencyInSeconds", 60)
    if frequency not in _PUBLISH_FREQUENCIES:
        yield validation_error(
            f"MetricPublishFrequencyInSeconds {frequency} is not valid. Valid values: {list(_PUBLISH_FREQUENCIES)}."
        )


def _variant_problems(variant: Mapping[str, Any]) -> Iterator[ServiceError]:
    name = variant["VariantName"]
    for member in _UNSUPPORTED_IN_VARIANT:
        if member in variant:
            yield unsupported(f"{member} in a production variant ({name})")
    if "AcceleratorType" in variant:
        yield validation_error(f"AcceleratorType of variant {name}: Amazon Elastic Inference is no longer available.")
    if "ModelName" not in variant:
        yield unsupported(f"a variant without ModelName ({name}): inference components")
    for member in ("InstanceType", "InitialInstanceCount"):
        if member not in variant:
            yield validation_error(f"{member} is required for production variant {name}.")


def _shadow_problems(parameters: Mapping[str, Any]) -> Iterator[ServiceError]:
    """API reference, ShadowProductionVariants: one production and one shadow variant. AWS's sentence is not known."""
    counts = [len(parameters.get(member, ())) for member in _VARIANT_LISTS]
    if counts[1] and counts != [1, 1]:
        yield validation_error(
            "If you use ShadowProductionVariants, you can only specify one variant for ProductionVariants and one "
            f"variant for ShadowProductionVariants; there are {counts[0]} and {counts[1]}."
        )


def _all_variants(parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [variant for member in _VARIANT_LISTS for variant in parameters.get(member, ())]


def _capture_problems(capture: Mapping[str, Any]) -> Iterator[ServiceError]:
    """AWS makes a destination a prefix in a bucket; a bucket that does not exist only shows when files are written."""
    destination = capture.get("DestinationS3Uri")
    if destination is not None and not destination.startswith("s3://"):
        yield validation_error(f"DestinationS3Uri {destination!r} of DataCaptureConfig must begin with s3://.")
