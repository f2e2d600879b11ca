"""Endpoints: the operations on them, and who may do what in which status.

Not here: asynchronous and serverless endpoints, inference components. Autoscaling: `scaling`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from airflow_dlaws.local import guardrails, listing
from airflow_dlaws.local.context import Handler, LocalContext, PerRegion, RequestContext
from airflow_dlaws.local.deployment import Deployment, missing_alarms
from airflow_dlaws.local.endpoint_configs import EndpointConfigs
from airflow_dlaws.local.endpoint_state import IN_PROGRESS, Endpoint, EndpointStatus
from airflow_dlaws.local.errors import unsupported, validation_error
from airflow_dlaws.local.fleet import Fleet, read_shadows, read_variants
from airflow_dlaws.local.guardrails import DeploymentPlan
from airflow_dlaws.local.invocations import Invocations
from airflow_dlaws.local.model_server import VariantSpec
from airflow_dlaws.local.models import Models
from airflow_dlaws.local.serving_process import ServingFailed

#: From these an update may start. From Failed only DeleteEndpoint leads on (DescribeEndpoint, EndpointStatus).
_UPDATABLE = frozenset(
    {EndpointStatus.IN_SERVICE, EndpointStatus.UPDATE_ROLLBACK_FAILED, EndpointStatus.OUT_OF_SERVICE}
)


class Endpoints:
    """The operations on endpoints."""

    def __init__(self, context: LocalContext, models: Models, configs: EndpointConfigs) -> None:
        self._context, self._models, self._configs = context, models, configs
        self._endpoints: PerRegion[dict[str, Endpoint]] = PerRegion(dict)
        self._lock = threading.Lock()
        self._invocations = Invocations(context, lambda name, request: self._endpoints[request.region].get(name))

    def operations(self) -> dict[str, Handler]:
        """See `Resource`."""
        return {
            "CreateEndpoint": self._create,
            "DescribeEndpoint": self._describe,
            "UpdateEndpoint": self._update,
            "UpdateEndpointWeightsAndCapacities": self._update_weights,
            "DeleteEndpoint": self._delete,
            "ListEndpoints": self._list,
        }

    def runtime_operations(self) -> dict[str, Handler]:
        """See `Resource`."""
        return {"InvokeEndpoint": self._invocations.invoke}

    def close(self) -> None:
        """End every server. Captured records go with the S3 they would be written to."""
        fleets = [fleet for region in self._endpoints.all() for one in list(region.values()) for fleet in one.fleets()]
        if fleets:
            with ThreadPoolExecutor(len(fleets)) as pool:
                list(pool.map(Fleet.kill, fleets))

    def _find(self, name: str, request: RequestContext) -> Endpoint:
        endpoint = self._endpoints[request.region].get(name)
        if endpoint is None:
            raise validation_error(f'Could not find endpoint "{request.arn("endpoint", name)}".')
        self._strike(endpoint)
        return endpoint

    def _strike(self, endpoint: Endpoint) -> None:
        """Put the endpoint in the status a fault orders: {"kind": "endpoint_status", "code": "SystemUpdating"}."""
        fault = self._context.faults.take("endpoint_status", endpoint.name)
        if fault is None or endpoint.fleet is None:
            return
        endpoint.settle(EndpointStatus(fault.code), self._context.now())
        if fault.code == EndpointStatus.OUT_OF_SERVICE:
            endpoint.traffic.clear()
        if fault.seconds:
            self._in_thread(self._recover, endpoint, fault.seconds)

    def _recover(self, endpoint: Endpoint, seconds: float) -> None:
        if self._context.wait(seconds) and endpoint.fleet is not None:
            endpoint.traffic.serve_all(endpoint.fleet)
            endpoint.settle(EndpointStatus.IN_SERVICE, self._context.now())

    def _create(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        name = parameters["EndpointName"]
        arn = request.arn("endpoint", name)
        if name in self._endpoints[request.region]:
            raise validation_error(f'Cannot create already existing endpoint "{arn}".')
        config = self._configs.find(parameters["EndpointConfigName"], request)
        self._plan(parameters.get("DeploymentConfig"), config.instance_counts, request)
        specs, shadows = read_variants(config, self._models, request), read_shadows(config, self._models, request)
        now = self._context.now()
        endpoint = Endpoint(
            name=name,
            arn=arn,
            created=now,
            modified=now,
            config=config,
            deployment_config=parameters.get("DeploymentConfig"),
        )
        with self._lock:
            if name in self._endpoints[request.region]:
                raise validation_error(f'Cannot create already existing endpoint "{arn}".')
            self._endpoints[request.region][name] = endpoint
        self._context.tags.create(arn, parameters.get("Tags"))
        self._in_thread(self._launch, endpoint, specs, shadows, request)
        return {"EndpointArn": arn}

    def _launch(
        self,
        endpoint: Endpoint,
        specs: Sequence[VariantSpec],
        shadows: Sequence[VariantSpec],
        request: RequestContext,
    ) -> None:
        config = endpoint.config
        fleet = Fleet(self._context, request, endpoint.name, config, specs, shadows, capture=config.capture)
        endpoint.fleet = fleet
        try:
            if self._context.faults.take("capacity", "CreateEndpoint"):
                raise ServingFailed(
                    "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error."
                )
            fleet.start()
        except ServingFailed as error:
            endpoint.settle(EndpointStatus.FAILED, self._context.now(), str(error))
            return
        endpoint.traffic.serve_all(fleet)
        endpoint.settle(EndpointStatus.IN_SERVICE, self._context.now())

    def _describe(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        return self._find(parameters["EndpointName"], request).describe()

    def _update(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        endpoint = self._find(parameters["EndpointName"], request)
        _refuse_unless(endpoint, _UPDATABLE)
        config = self._configs.find(parameters["EndpointConfigName"], request)
        deployment_config = parameters.get("DeploymentConfig")
        if parameters.get("RetainDeploymentConfig"):
            deployment_config = endpoint.deployment_config
        specs = self._retained(parameters, endpoint, read_variants(config, self._models, request))
        shadows = read_shadows(config, self._models, request)
        plan = self._plan(deployment_config, {spec.name: spec.instance_count for spec in specs}, request)
        assert endpoint.fleet is not None
        self._refuse_scaled(endpoint, specs, request)
        if not guardrails.shifts_traffic(plan, endpoint.fleet.servers, [spec.name for spec in specs]):
            plan = DeploymentPlan()  # AWS replaces the fleet plainly, and watches no alarm, without a word
        with endpoint.lock:
            _refuse_unless(endpoint, _UPDATABLE)
            endpoint.status, endpoint.failure_reason = EndpointStatus.UPDATING, None
            endpoint.modified, endpoint.deployment_config = self._context.now(), deployment_config
        capture = endpoint.fleet.capture_config if _keeps_capture(parameters) else config.capture
        green = Fleet(self._context, request, endpoint.name, config, specs, shadows, capture=capture)
        self._in_thread(Deployment(self._context, request, endpoint, green, plan).run)
        return {"EndpointArn": endpoint.arn}

    def _refuse_scaled(self, endpoint: Endpoint, specs: Sequence[VariantSpec], request: RequestContext) -> None:
        """Refuse to remove a variant that is a scalable target, or to change its instance type."""
        scaled = self._context.scalable_targets.variants(request.region, endpoint.name)
        live = {variant["VariantName"]: variant.get("InstanceType") for variant in endpoint.config.variants}
        new = {spec.name: spec.instance_type for spec in specs}
        changed = [name for name in scaled if name in live and new.get(name) != live[name]]
        if changed:
            # That AWS refuses is documented ("Update endpoints that use auto scaling"); its sentence is not.
            raise validation_error(
                f"The variant(s) {changed} must be deregistered as scalable targets with AWS Application Auto Scaling "
                "before they can be removed or have their instance type updated."
            )

    def _retained(
        self, parameters: Mapping[str, Any], endpoint: Endpoint, specs: Sequence[VariantSpec]
    ) -> tuple[VariantSpec, ...]:
        if not parameters.get("RetainAllVariantProperties") or endpoint.fleet is None:
            return tuple(specs)
        excluded = _excluded(parameters)
        live = {name: server.spec for name, server in endpoint.fleet.servers.items()}
        kept = []
        for spec in specs:
            old = live.get(spec.name, spec)
            count = spec.instance_count if "DesiredInstanceCount" in excluded else old.instance_count
            weight = spec.weight if "DesiredWeight" in excluded else old.weight
            kept.append(replace(spec, instance_count=count, weight=weight))
        return tuple(kept)

    def _plan(
        self, config: Mapping[str, Any] | None, instance_counts: Mapping[str, int], request: RequestContext
    ) -> DeploymentPlan:
        problem = guardrails.refusal(config, instance_counts)
        if problem:
            raise validation_error(problem)
        plan = guardrails.read_plan(config)
        missing = missing_alarms(self._context, request.region, plan.alarms)
        if missing:
            raise validation_error(f"CloudWatch alarms {missing} of AutoRollbackConfiguration do not exist.")
        return plan

    def _update_weights(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        endpoint = self._find(parameters["EndpointName"], request)
        wanted = parameters["DesiredWeightsAndCapacities"]
        with endpoint.lock:
            _refuse_unless(endpoint, frozenset({EndpointStatus.IN_SERVICE}))
            assert endpoint.fleet is not None
            for change in wanted:
                if change["VariantName"] not in endpoint.fleet.servers:
                    raise validation_error(
                        f'Could not find variant {change["VariantName"]} of endpoint "{endpoint.arn}"; it has '
                        f"{sorted(endpoint.fleet.servers)}."
                    )
                if "ServerlessUpdateConfig" in change:
                    raise unsupported("ServerlessUpdateConfig")
            endpoint.status = EndpointStatus.UPDATING
        self._in_thread(self._resize, endpoint, wanted)
        return {"EndpointArn": endpoint.arn}

    def _resize(self, endpoint: Endpoint, wanted: Sequence[Mapping[str, Any]]) -> None:
        fleet = endpoint.fleet
        assert fleet is not None
        for change in wanted:
            fleet.resize(
                change["VariantName"],
                weight=change.get("DesiredWeight"),
                instance_count=change.get("DesiredInstanceCount"),
            )
        endpoint.traffic.serve_all(fleet)
        endpoint.settle(EndpointStatus.IN_SERVICE, self._context.now())

    def _delete(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        endpoint = self._find(parameters["EndpointName"], request)
        with endpoint.lock:
            if endpoint.status in IN_PROGRESS:
                raise validation_error(f'Cannot update in-progress endpoint "{endpoint.arn}".')
            endpoint.status = EndpointStatus.DELETING
        self._in_thread(self._end, endpoint, request)
        return {}

    def _end(self, endpoint: Endpoint, request: RequestContext) -> None:
        endpoint.traffic.clear()
        for fleet in endpoint.fleets():
            fleet.stop()
        del self._endpoints[request.region][endpoint.name]
        for variant in self._context.scalable_targets.variants(request.region, endpoint.name):
            self._context.scalable_targets.remove(request.region, f"endpoint/{endpoint.name}/variant/{variant}")
        self._context.tags.forget(endpoint.arn)

    def _list(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        summaries = [endpoint.summary() for endpoint in list(self._endpoints[request.region].values())]
        return listing.page(
            summaries, parameters, into="Endpoints", name="EndpointName", exact={"StatusEquals": "EndpointStatus"}
        )

    def _in_thread(self, work: Callable[..., None], *arguments: Any) -> None:
        threading.Thread(target=work, args=arguments, daemon=True).start()


def _refuse_unless(endpoint: Endpoint, allowed: frozenset[EndpointStatus]) -> None:
    if endpoint.status in IN_PROGRESS:
        raise validation_error(f'Cannot update in-progress endpoint "{endpoint.arn}".')
    if endpoint.status not in allowed:
        # That AWS refuses is documented; its sentence for this status could not be verified.
        raise validation_error(f'Cannot update endpoint "{endpoint.arn}" in status {endpoint.status}.')


def _excluded(parameters: Mapping[str, Any]) -> set[str]:
    return {one["VariantPropertyType"] for one in parameters.get("ExcludeRetainedVariantProperties", [])}


def _keeps_capture(parameters: Mapping[str, Any]) -> bool:
    """Whether the endpoint goes on capturing as it did, whatever the new configuration says."""
    return bool(parameters.get("RetainAllVariantProperties")) and "DataCaptureConfig" not in _excluded(parameters)
