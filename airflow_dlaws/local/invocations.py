"""InvokeEndpoint: one request to one variant, its metrics, and its capture."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from airflow_dlaws.local.capture import Message
from airflow_dlaws.local.cloudwatch import metric_store
from airflow_dlaws.local.context import LocalContext, RequestContext
from airflow_dlaws.local.endpoint_state import NOT_FOUND_BY_REQUESTS, Endpoint
from airflow_dlaws.local.errors import ServiceError
from airflow_dlaws.local.fleet import Fleet
from airflow_dlaws.local.http_pool import ContainerAnswer
from airflow_dlaws.local.metric_store import MetricName
from airflow_dlaws.local.model_server import ModelServer
from airflow_dlaws.local.shadow import Mirrors, shadow_for

NAMESPACE = "AWS/SageMaker"

_UNSUPPORTED = (
    "TargetModel", "TargetContainerHostname", "InferenceComponentName", "EnableExplanations", "SessionId",
)  # fmt: skip

#: What is passed on to the container, and the header it goes in.
_FORWARDED = {
    "ContentType": "Content-Type",
    "Accept": "Accept",
    "CustomAttributes": "X-Amzn-SageMaker-Custom-Attributes",
}

_TIMED_OUT = (
    "Your invocation timed out while waiting for a response from container primary. Review the latency metrics for "
    "each container in Amazon CloudWatch, resolve the issue, and try again."
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one request came to: the container's answer, or why there is none."""

    answer: ContainerAnswer | None
    #: The status the metrics count: the container's, 504 after a timeout, 503 if it could not be reached.
    status: int
    message: str
    model_seconds: float


class Invocations:
    """The runtime operation on endpoints."""

    def __init__(self, context: LocalContext, find: Callable[[str, RequestContext], Endpoint | None]) -> None:
        self._context, self._find = context, find
        self._mirrors = Mirrors()

    def invoke(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        """Answer InvokeEndpoint.

        :raises ServiceError: ValidationError, ModelError (the container said no), ServiceUnavailable (it said nothing).
        """
        began = time.perf_counter()
        for member in _UNSUPPORTED:
            if member in parameters:
                raise _invalid(f"The local AWS does not support {member}.")
        endpoint = self._existing(parameters["EndpointName"], request)
        with endpoint.traffic.lane(parameters.get("TargetVariant")) as lane:
            if lane is None:
                raise _no_lane(endpoint, parameters.get("TargetVariant"))
            outcome = _exchange(lane.server, parameters)
            self._measure(endpoint, lane.fleet, lane.server, outcome, time.perf_counter() - began, request)
            if shadow := shadow_for(lane.fleet, lane.server.spec.weight):
                self._mirrors.send(shadow, lambda: self._shadow(endpoint, lane.fleet, shadow, parameters, request))
            if outcome.answer is None or not 200 <= outcome.answer.status < 300:
                raise _model_error(endpoint, outcome, request)
            self._capture(lane.fleet, lane.server, parameters, outcome.answer)
        return {
            "Body": outcome.answer.body,
            "ContentType": outcome.answer.content_type,
            "InvokedProductionVariant": lane.server.spec.name,
            "CustomAttributes": outcome.answer.custom_attributes,
        }

    def _shadow(
        self,
        endpoint: Endpoint,
        fleet: Fleet,
        server: ModelServer,
        parameters: dict[str, Any],
        request: RequestContext,
    ) -> None:
        """Send a copy to the shadow: measured and captured under its own name, answered to nobody."""
        began = time.perf_counter()
        outcome = _exchange(server, parameters)
        self._measure(endpoint, fleet, server, outcome, time.perf_counter() - began, request)
        if outcome.answer is not None and 200 <= outcome.answer.status < 300:
            self._capture(fleet, server, parameters, outcome.answer)

    def _existing(self, name: str, request: RequestContext) -> Endpoint:
        endpoint = self._find(name, request)
        if endpoint is None or endpoint.status in NOT_FOUND_BY_REQUESTS:
            raise _invalid(f"Endpoint {name} of account {request.account} not found.")
        return endpoint

    def _measure(
        self,
        endpoint: Endpoint,
        fleet: Fleet,
        server: ModelServer,
        outcome: Outcome,
        seconds: float,
        request: RequestContext,
    ) -> None:
        values = (
            ("Invocations", 1.0, "None"),
            ("InvocationsPerInstance", 1.0 / server.spec.instance_count, "None"),
            ("Invocation4XXErrors", float(400 <= outcome.status < 500), "None"),
            ("Invocation5XXErrors", float(outcome.status >= 500), "None"),
            ("InvocationModelErrors", float(not 200 <= outcome.status < 300), "None"),
            ("ModelLatency", round(outcome.model_seconds * 1e6), "Microseconds"),
            ("OverheadLatency", round((seconds - outcome.model_seconds) * 1e6), "Microseconds"),
        )
        variant = (("EndpointName", endpoint.name), ("VariantName", server.spec.name))
        with_config = (("EndpointConfigName", fleet.config.name), *variant)
        samples = [
            (MetricName(NAMESPACE, name, dimensions), value, unit)
            for dimensions in (variant, with_config)
            for name, value, unit in values
        ]
        metric_store(request.region, request.account).record(samples, int(time.time()), fleet.config.metric_resolution)

    def _capture(self, fleet: Fleet, server: ModelServer, parameters: dict[str, Any], answer: ContainerAnswer) -> None:
        capture = fleet.capture
        if capture is None:
            return
        capture.offer(
            server.spec.name,
            request=Message(content_type=parameters.get("ContentType", ""), body=parameters.get("Body", b"")),
            answer=Message(content_type=answer.content_type, body=answer.body),
            inference_id=parameters.get("InferenceId"),
            at=self._context.now(),
        )


def _exchange(server: ModelServer, parameters: dict[str, Any]) -> Outcome:
    headers = {header: parameters[member] for member, header in _FORWARDED.items() if member in parameters}
    began = time.perf_counter()
    answer, status, message = None, 503, ""
    try:
        answer = server.invoke(parameters.get("Body", b""), headers)
        status = answer.status
    except TimeoutError:
        status, message = 504, _TIMED_OUT
    except (OSError, http.client.HTTPException) as error:
        message = f"The container did not answer: {error!r}."
    return Outcome(answer=answer, status=status, message=message, model_seconds=time.perf_counter() - began)


def _invalid(message: str) -> ServiceError:
    """The runtime's name for what the control plane calls ValidationException."""
    return ServiceError("ValidationError", message)


def _no_lane(endpoint: Endpoint, variant: str | None) -> ServiceError:
    names = endpoint.traffic.variants()
    if variant is not None and names and variant not in names:
        return _invalid(f"Variant {variant} of endpoint {endpoint.name} not found; it has {sorted(names)}.")
    return ServiceError("ServiceUnavailable", f"Endpoint {endpoint.name} is {endpoint.status}.", status=503)


def _model_error(endpoint: Endpoint, outcome: Outcome, request: RequestContext) -> ServiceError:
    if outcome.answer is None and outcome.status == 503:
        return ServiceError("ServiceUnavailable", outcome.message, status=503)
    group = f"/aws/sagemaker/Endpoints/{endpoint.name}"
    # A timeout has no status of the container's; AWS then says 0.
    status = outcome.answer.status if outcome.answer else 0
    text = outcome.answer.body.decode(errors="replace") if outcome.answer else outcome.message
    side = "client" if 400 <= status < 500 else "server"
    message = (
        f'Received {side} error ({status}) from primary with message "{text}". See https://{request.region}.console.aws.'
        f"amazon.com/cloudwatch/home?region={request.region}#logEventViewer:group={group} in account {request.account} "
        "for more information."
    )
    return ServiceError(
        "ModelError",
        message,
        status=424,
        OriginalStatusCode=status,
        OriginalMessage=text,
        LogStreamArn=f"arn:aws:logs:{request.region}:{request.account}:log-group:{group}",
    )
