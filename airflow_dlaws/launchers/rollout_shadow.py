"""Green as a shadow of the model in service: its endpoint configuration, what is seen of it, and its end.

The configuration has production's variant as it is, the new model under `ShadowProductionVariants` (one of each is what
AWS allows), and captures all requests of both. Sources: CreateEndpointConfig's API reference; developer guide, "Testing
models with shadow variants".
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import ClientError

from airflow_dlaws.errors import ServiceUnavailable, SpecificationError
from airflow_dlaws.launchers.aws_errors import error_text, service_errors
from airflow_dlaws.launchers.endpoint import EndpointPort, capture_config, capture_uri
from airflow_dlaws.launchers.rollout_metrics import RolloutMetrics
from airflow_dlaws.launchers.rollout_pairs import PairReader
from airflow_dlaws.rollout.agreement import AgreementMeter
from airflow_dlaws.rollout.machine import BROKEN_STATUSES
from airflow_dlaws.rollout.order import RolloutNames, RolloutOrder
from airflow_dlaws.rollout.plan import AT_ONCE
from airflow_dlaws.rollout.shadow import ShadowEvidence, judge_shadow
from airflow_dlaws.rollout.state import EndpointStatus, EndpointView, RolloutState
from airflow_dlaws.storage import ObjectStore, S3Uri

log = logging.getLogger(__name__)

#: What of production's configuration belongs to all its variants, and stays.
_KEPT = ("KmsKeyId", "ExecutionRoleArn", "VpcConfig", "EnableNetworkIsolation", "MetricsConfig", "ExplainerConfig")
#: AWS watches the alarms for so long after the shadow came, so that a killed task's alarm is heard.
_BAKE_SECONDS = 60


class Shadow:
    """The shadow of one rollout. `client` gives the boto3 client of a service."""

    def __init__(self, client: Callable[[str], Any], order: RolloutOrder, names: RolloutNames) -> None:
        self._sagemaker, self._order, self._names = client("sagemaker"), order, names
        self._endpoint, self._store = EndpointPort(self._sagemaker), ObjectStore(client("s3"))
        self._metrics = RolloutMetrics(
            client("cloudwatch"), endpoint_name=order.endpoint_name, variant_name=order.variant_name
        )
        self._since = 0.0
        self._meter = self._empty_meter()
        self._reader: PairReader | None = None
        #: Of the shadow in service, which an earlier try may have asked for.
        self._percent = order.plan.shadow_percent

    @property
    def variant_name(self) -> str:
        """Another name than production's variant has."""
        return "shadow" if self._order.variant_name.lower() != "shadow" else "shadow-of-new"

    def begin(self, state: RolloutState, alarm_names: tuple[str, ...]) -> bool:
        """Ask for the configuration with the shadow; return False where the endpoint is moving already.

        :raises SpecificationError: the configuration in service cannot have a shadow.
        """
        self._ensure_config(state.previous_config)
        bake = min(_BAKE_SECONDS, self._order.plan.shadow_seconds)
        deployment = {
            "BlueGreenUpdatePolicy": {**AT_ONCE["BlueGreenUpdatePolicy"], "TerminationWaitInSeconds": bake},
            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": name} for name in alarm_names]},
        }
        return self._endpoint.update(self._order.endpoint_name, state.shadow_config, deployment, keep_size=True)

    def end(self, state: RolloutState) -> bool:
        """Ask for the configuration that was in service before; return False where the endpoint is moving already."""
        return self._endpoint.update(self._order.endpoint_name, state.previous_config, AT_ONCE, keep_size=True)

    def is_there(self, state: RolloutState) -> bool:
        """Tell whether the endpoint is on the configuration with the shadow."""
        live = self._endpoint.describe(self._order.endpoint_name)
        return live is not None and bool(state.shadow_config) and live.config_name == state.shadow_config

    def is_seen(self, state: RolloutState, endpoint: EndpointView | None) -> bool:
        """Tell whether the shadow is in service, so that there is something to compare."""
        on_shadow = endpoint is not None and bool(state.shadow_config) and endpoint.config_name == state.shadow_config
        return on_shadow and endpoint.status is EndpointStatus.IN_SERVICE  # type: ignore[union-attr]

    def evidence(self, state: RolloutState, now: float) -> ShadowEvidence:
        """Return what is seen of the shadow up to `now` (epoch seconds)."""
        since = state.shadow_since or now
        with service_errors(f"read what {state.shadow_config} has captured"):
            reader = self._pairs(state, since)
            for pair in reader.new_pairs():
                self._meter.add(pair)
        minutes = self._metrics.minutes(
            green=state.shadow_config,
            blue=state.shadow_config,
            green_variant=self.variant_name,
            since=since,
            until=now,
            latency=state.latency,
        )
        answers = dataclasses.replace(self._meter.evidence, repeated=reader.repeated)
        plan = dataclasses.replace(self._order.plan, shadow_percent=self._percent)
        return judge_shadow(plan, minutes, answers, began=since, latency=state.latency)

    def _empty_meter(self) -> AgreementMeter:
        return AgreementMeter(self._order.plan.smallest_agreement, self._order.plan.agreement_tolerance)

    def _pairs(self, state: RolloutState, since: float) -> PairReader:
        if self._reader is None or since != self._since:
            self._since, self._meter = since, self._empty_meter()
            config = self._described(state.shadow_config)
            self._percent = self._percent_of(config)
            folder = S3Uri.parse(config["DataCaptureConfig"]["DestinationS3Uri"]) / self._order.endpoint_name
            self._reader = PairReader(
                self._store, folder, production=self._order.variant_name, shadow=self.variant_name, since=since
            )
        return self._reader

    def _percent_of(self, config: Mapping[str, Any]) -> int:
        (production,), (shadow,) = config["ProductionVariants"], config["ShadowProductionVariants"]
        ratio: float = shadow["InitialVariantWeight"] / (production.get("InitialVariantWeight") or 1.0)
        percent, asked = min(100, max(1, round(100 * ratio))), self._order.plan.shadow_percent
        if percent != asked:
            log.warning(
                "shadow_percent=%d, and the shadow that an earlier try has brought up gets %d %% of the requests: it "
                "stays so. Clear the task for a shadow of %d %%",
                asked, percent, asked,
            )  # fmt: skip
        return percent

    def _ensure_config(self, blue: str) -> None:
        """Create the configuration, or keep the one that an earlier try has made of the same configuration."""
        found = self._described(blue)
        if problem := _no_shadow_because(found):
            raise SpecificationError(
                f"shadow_seconds={self._order.plan.shadow_seconds}, but {blue} in service {problem}: set "
                "shadow_seconds=0"
            )
        (production,) = found["ProductionVariants"]
        weight = production.get("InitialVariantWeight") or 1.0
        shadow = {
            "VariantName": self.variant_name,
            "ModelName": self._names.model_name,
            "InstanceType": self._order.instance_type,
            "InitialInstanceCount": self._order.initial_instance_count,
            # The share of the requests that is copied is the ratio of the weights.
            "InitialVariantWeight": weight * self._order.plan.shadow_percent / 100,
        }
        request = {
            "EndpointConfigName": self._names.shadow_config_name,
            "ProductionVariants": [production],
            "ShadowProductionVariants": [shadow],
            "DataCaptureConfig": self._capture(found.get("DataCaptureConfig") or {}),
            "Tags": self._endpoint.tags(self._names),
            **{member: found[member] for member in _KEPT if found.get(member)},
        }
        if not self._create(request) and not self._equals(request):
            # An earlier try's: somebody has deployed since, or the plan was edited. Users must get what is in service
            # now, and the shadow what this try asks for.
            self._endpoint.delete_config(request["EndpointConfigName"])
            self._create(request)

    def _equals(self, request: Mapping[str, Any]) -> bool:
        found = self._described(request["EndpointConfigName"])
        (made,) = found["ShadowProductionVariants"]
        (asked,) = request["ShadowProductionVariants"]
        same_share = math.isclose(made["InitialVariantWeight"], asked["InitialVariantWeight"], rel_tol=1e-4)
        return bool(found["ProductionVariants"] == request["ProductionVariants"]) and same_share

    def _create(self, request: Mapping[str, Any]) -> bool:
        """Create an endpoint configuration; return False where one of that name is there."""
        with service_errors(f"create endpoint configuration {request['EndpointConfigName']}"):
            try:
                self._sagemaker.create_endpoint_config(**request)
            except ClientError as error:
                if "already exist" not in error_text(error):
                    raise
                return False
        return True

    def _capture(self, before: Mapping[str, Any]) -> dict[str, Any]:
        """Capture everything where production is captured already: who watches it for drift misses nothing."""
        own = self._order.data_capture_s3_uri or str(S3Uri.parse(self._order.state_s3_uri) / "shadows")
        where = before.get("DestinationS3Uri") or capture_uri(own, self._names.shadow_config_name)
        key = {"KmsKeyId": before["KmsKeyId"]} if before.get("KmsKeyId") else {}
        return {**capture_config(where, 100), **key}

    def _described(self, config_name: str) -> Mapping[str, Any]:
        with service_errors(f"describe endpoint configuration {config_name}"):
            found: Mapping[str, Any] = self._sagemaker.describe_endpoint_config(EndpointConfigName=config_name)
        return found

    def clean_up(self, state: RolloutState) -> bool:
        """Delete the configuration with the shadow; return False where the endpoint is on it or on its way to it."""
        return remove_shadow_config(self._sagemaker, state)


def only_shadowed(state: RolloutState) -> bool:
    """Tell whether the endpoint has had nothing but a shadow from this rollout."""
    return bool(state.shadow_config) and state.shadow_passed_at is None


def has_shadow(sagemaker: Any, state: RolloutState) -> bool:
    """Tell whether the endpoint is on the configuration with this rollout's shadow, or on its way to it."""
    return _is_on_shadow(EndpointPort(sagemaker).describe(state.endpoint_name), state)


def _is_on_shadow(live: EndpointView | None, state: RolloutState) -> bool:
    if live is None or not state.shadow_config:
        return False
    return state.shadow_config in (live.config_name, live.pending_config_name)


def remove_shadow_config(sagemaker: Any, state: RolloutState) -> bool:
    """Delete the configuration with a shadow; return False where the endpoint is on it or on its way to it."""
    if not state.shadow_config or state.updated_at is None:
        return True
    if has_shadow(sagemaker, state):
        return False
    EndpointPort(sagemaker).delete_config(state.shadow_config)
    return True


def end_shadow(sagemaker: Any, state: RolloutState) -> bool:
    """Ask for the configuration before, if the shadow is in service and nothing moves; tell whether that was done."""
    port = EndpointPort(sagemaker)
    live = port.describe(state.endpoint_name)
    if live is None or live.config_name != state.shadow_config or live.status is not EndpointStatus.IN_SERVICE:
        return False
    return port.update(state.endpoint_name, state.previous_config, AT_ONCE, keep_size=True)


def take_shadow_away(
    sagemaker: Any, state: RolloutState, *, until: float, clock: Callable[[], float], sleep: Callable[[], None]
) -> None:
    """End a shadow that another rollout left on the endpoint: wait for what is moving, then bring production back.

    What is broken is left to the caller's own rollout, which tells a person the way out.

    :param until: epoch seconds.
    :raises ServiceUnavailable: it is still there then.
    :raises ServiceRefused: AWS does not take production's configuration back.
    """
    port = EndpointPort(sagemaker)
    while state.shadow_config and state.previous_config:
        live = port.describe(state.endpoint_name)
        if live is None or not _is_on_shadow(live, state):
            break
        if live.status in BROKEN_STATUSES:
            break
        if clock() >= until:
            raise ServiceUnavailable(
                f"endpoint {state.endpoint_name} still has a shadow ({state.shadow_config}, left behind by a former "
                f"rollout) and is {live.status.value}: try again, or ask for {state.previous_config} by hand"
            )
        if end_shadow(sagemaker, state):
            log.warning("taking away %s, left behind on %s", state.shadow_config, state.endpoint_name)
        sleep()
    remove_shadow_config(sagemaker, state)


def _no_shadow_because(config: Mapping[str, Any]) -> str:
    """Say why a configuration cannot be given a shadow; empty where it can."""
    variants = config["ProductionVariants"]
    if len(variants) != 1:
        return f"has {len(variants)} production variants, and beside a shadow AWS allows one"
    if config.get("ShadowProductionVariants"):
        return "has a shadow variant already, and AWS allows one"
    if config.get("AsyncInferenceConfig") or "ServerlessConfig" in variants[0]:
        return "is asynchronous or serverless, which AWS gives no shadows"
    if "ModelName" not in variants[0]:
        return "serves inference components, which AWS gives no shadows"
    return ""
