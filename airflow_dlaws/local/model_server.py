"""One variant of one endpoint configuration, serving: a container that stands for all instances of its variant."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from airflow_dlaws.local.context import LocalContext, RequestContext
from airflow_dlaws.local.http_pool import ContainerAnswer
from airflow_dlaws.local.models import ServingContainer
from airflow_dlaws.local.serving_process import ServingProcess, ServingRole

#: "A customer's model containers must respond to requests within 60 seconds" (InvokeEndpoint).
INVOCATION_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class VariantSpec:
    """One production variant of a configuration, with its model looked up."""

    name: str
    instance_type: str
    instance_count: int
    weight: float
    container: ServingContainer
    startup_limit: float | None = None


class ModelServer:
    """The serving process of one variant, and the requests it is working on."""

    def __init__(self, context: LocalContext, request: RequestContext, endpoint: str, spec: VariantSpec) -> None:
        self.spec = spec
        role = ServingRole(
            owner=endpoint,
            title=f"The primary container for production variant {spec.name}",
            log_group=f"/aws/sagemaker/Endpoints/{endpoint}",
            log_stream=f"{spec.name}/i-{uuid.uuid4().hex[:17]}",
            startup_limit=spec.startup_limit,
        )
        self._process = ServingProcess(context, request.region, spec.container, role)
        self._in_flight = 0
        self._idle = threading.Condition()

    def start(self) -> None:
        """Start the process and wait until it answers its ping.

        :raises ServingFailed: the image or the model is not there, or the ping was not answered in time.
        """
        self._process.start()

    def stop(self) -> None:
        """End the process after the requests it is working on. Stopping twice is no error."""
        self._process.retire()
        with self._idle:
            self._idle.wait_for(lambda: self._in_flight == 0, timeout=INVOCATION_SECONDS)
        self._process.stop()

    def kill(self) -> None:
        """End the process without waiting for its requests (SIGTERM, then SIGKILL); it is not started again."""
        self._process.kill()

    def enter(self) -> None:
        """Count a request in. The caller calls `leave` when it is answered."""
        with self._idle:
            self._in_flight += 1

    def leave(self) -> None:
        """Count a request out."""
        with self._idle:
            self._in_flight -= 1
            self._idle.notify_all()

    def invoke(self, body: bytes, headers: Mapping[str, str]) -> ContainerAnswer:
        """Send one request to the container.

        :raises OSError: it does not listen or hung up; TimeoutError after 60 s.
        :raises http.client.HTTPException: what it answered is no HTTP.
        """
        return self._process.request("POST", "/invocations", timeout=INVOCATION_SECONDS, body=body, headers=headers)
