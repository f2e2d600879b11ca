"""The servers of one endpoint configuration, and which of two fleets gets the next request.

A request is counted in at the moment its server is chosen, and a fleet is taken out of the table before it is drained:
so moving traffic loses none.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from airflow_dlaws.local.capture import CaptureWriter
from airflow_dlaws.local.context import LocalContext, RequestContext
from airflow_dlaws.local.endpoint_configs import EndpointConfig
from airflow_dlaws.local.model_server import ModelServer, VariantSpec
from airflow_dlaws.local.models import Models
from airflow_dlaws.local.serving_process import ServingFailed


def read_variants(config: EndpointConfig, models: Models, request: RequestContext) -> tuple[VariantSpec, ...]:
    """Look up the models of a configuration.

    :raises ServiceError: a model is gone, or its artifact.
    """
    return tuple(_spec(variant, models, request) for variant in config.variants)


def read_shadows(config: EndpointConfig, models: Models, request: RequestContext) -> tuple[VariantSpec, ...]:
    """Look up the models of its shadow variants.

    :raises ServiceError: a model is gone, or its artifact.
    """
    return tuple(_spec(variant, models, request) for variant in config.shadow_variants)


def _spec(variant: Mapping[str, Any], models: Models, request: RequestContext) -> VariantSpec:
    container = models.find(variant["ModelName"], request).container
    models.check_artifact(container.model_data_url, request.region)
    return VariantSpec(
        name=variant["VariantName"],
        instance_type=variant["InstanceType"],
        instance_count=variant["InitialInstanceCount"],
        weight=variant["InitialVariantWeight"],
        container=container,
        startup_limit=variant.get("ContainerStartupHealthCheckTimeoutInSeconds"),
    )


class Fleet:
    """All variants of one configuration, each served by a process of its own.

    Requests are captured on the instances that serve them ("data capture stops capturing requests at high levels of
    disk usage", developer guide): a fleet goes by the DataCaptureConfig it was started with, also beside another one.
    """

    def __init__(
        self,
        context: LocalContext,
        request: RequestContext,
        endpoint: str,
        config: EndpointConfig,
        specs: Sequence[VariantSpec],
        shadows: Sequence[VariantSpec] = (),
        *,
        capture: Mapping[str, Any] | None = None,
    ) -> None:
        """:param shadows: variants that get copies of the requests, and whose answers nobody sees.

        :param capture: the DataCaptureConfig to go by, None for none.
        """
        self.config, self.capture_config = config, capture
        self.capture: CaptureWriter | None = None
        self._context, self._request, self._endpoint = context, request, endpoint
        self.servers = {spec.name: ModelServer(context, request, endpoint, spec) for spec in specs}
        self.shadows = {spec.name: ModelServer(context, request, endpoint, spec) for spec in shadows}

    def start(self) -> None:
        """Start all servers; on failure none is left running.

        :raises ServingFailed: one did not come up.
        """
        servers = self._all()
        with ThreadPoolExecutor(len(servers)) as pool:
            faults = [fault for fault in pool.map(_start, servers) if fault]
        if faults:
            self.stop()
            raise faults[0]
        if self.capture_config:
            self.capture = CaptureWriter(self._context, self._request, self._endpoint, self.capture_config)

    def stop(self) -> None:
        """Finish the requests at work, then end the servers."""
        servers = self._all()
        with ThreadPoolExecutor(len(servers)) as pool:
            list(pool.map(ModelServer.stop, servers))
        if self.capture is not None:
            self.capture.close()

    def kill(self) -> None:
        """End the servers at once."""
        for server in self._all():
            server.kill()

    def resize(self, name: str, *, weight: float | None = None, instance_count: int | None = None) -> None:
        """Change weight or instance count of a variant."""
        server = self.servers[name]
        if weight is not None:
            server.spec = replace(server.spec, weight=weight)
        if instance_count is not None:
            server.spec = replace(server.spec, instance_count=instance_count)

    def _all(self) -> list[ModelServer]:
        return [*self.servers.values(), *self.shadows.values()]

    @property
    def instance_counts(self) -> dict[str, int]:
        """Instances by variant."""
        return {name: server.spec.instance_count for name, server in self.servers.items()}


def _start(server: ModelServer) -> Exception | None:
    try:
        server.start()
    except Exception as error:
        return error if isinstance(error, ServingFailed) else ServingFailed(f"InternalServerError: {error!r}")
    return None


@dataclass(frozen=True)
class Lane:
    """A server, the fleet it belongs to, and its part of the traffic."""

    fleet: Fleet
    server: ModelServer
    weight: float


class TrafficTable:
    """Who serves an endpoint's requests. Safe for many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lanes: tuple[Lane, ...] = ()
        self._random = random.Random()

    def serve_all(self, fleet: Fleet) -> None:
        """Give all traffic to one fleet, by its variants' weights."""
        self._set(_lanes(fleet, dict.fromkeys(fleet.servers, 1.0)))

    def share(self, blue: Fleet, green: Fleet, green_share: Mapping[str, float]) -> None:
        """Split each variant's traffic between two fleets."""
        rest = {name: 1.0 - share for name, share in green_share.items()}
        self._set([*_lanes(blue, rest), *_lanes(green, green_share)])

    def clear(self) -> None:
        """Serve nothing."""
        self._set([])

    @contextlib.contextmanager
    def lane(self, variant: str | None) -> Iterator[Lane | None]:
        """Choose a server for one request and keep it alive until the request is done; None if there is none."""
        with self._lock:
            lane = self._choose(variant)
            if lane is not None:
                lane.server.enter()
        try:
            yield lane
        finally:
            if lane is not None:
                lane.server.leave()

    def variants(self) -> set[str]:
        """The names of the variants that serve."""
        return {lane.server.spec.name for lane in self._lanes}

    def _set(self, lanes: Sequence[Lane]) -> None:
        with self._lock:
            self._lanes = tuple(lanes)

    def _choose(self, variant: str | None) -> Lane | None:
        lanes = [lane for lane in self._lanes if variant is None or lane.server.spec.name == variant]
        weights = [lane.weight for lane in lanes]
        if not sum(weights):
            # A variant of weight 0 gets no traffic by itself, but may be asked for by name.
            return lanes[0] if lanes and variant is not None else None
        return self._random.choices(lanes, weights)[0]


def _lanes(fleet: Fleet, shares: Mapping[str, float]) -> list[Lane]:
    total = sum(server.spec.weight for server in fleet.servers.values()) or 1.0
    return [
        Lane(fleet, server, shares[name] * server.spec.weight / total)
        for name, server in fleet.servers.items()
        if shares[name] > 0
    ]
