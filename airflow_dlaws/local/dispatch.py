"""From an HTTP request to the handler of a SageMaker operation: find, check, do, answer."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from botocore.model import OperationModel
from werkzeug.wrappers import Request, Response

from airflow_dlaws.local import model_codec, protocol, service_model
from airflow_dlaws.local.context import Handler, LocalContext, RequestContext, Resource
from airflow_dlaws.local.errors import ServiceError, internal_failure, throttled, unsupported_operation

_TARGET_PREFIX = "SageMaker."


class SageMaker:
    """The services `sagemaker` and `sagemaker-runtime`, made of the operations of their resources."""

    def __init__(self, context: LocalContext, resources: Iterable[Resource]) -> None:
        self._context = context
        self._resources = list(resources)
        self.operations = _table(resource.operations() for resource in self._resources)
        self.runtime_operations = _table(resource.runtime_operations() for resource in self._resources)

    def close(self) -> None:
        """End what the resources have started."""
        for resource in self._resources:
            resource.close()

    def answer(self, request: Request, region: str) -> Response:
        """Answer a request signed for `sagemaker`."""
        target = request.headers.get("X-Amz-Target", "")
        if target.startswith(_TARGET_PREFIX):
            return guarded(protocol.json_error, lambda: self._answer_json(request, target, region))
        return guarded(protocol.rest_error, lambda: self._answer_rest(request, region))

    def _answer_json(self, request: Request, target: str, region: str) -> Response:
        model, name = service_model.load("sagemaker"), target.removeprefix(_TARGET_PREFIX)
        if name not in model.operation_names or name not in self.operations:
            raise unsupported_operation(name, list(self.operations))
        operation = model.operation_model(name)
        document = protocol.json_body(request)
        answer = perform(self._context, self.operations[name], operation, document, region)
        return protocol.json_answer(operation, answer)

    def _answer_rest(self, request: Request, region: str) -> Response:
        found = protocol.rest_operation(service_model.load("sagemaker-runtime"), request)
        if found is None or found[0].name not in self.runtime_operations:
            name = found[0].name if found else f"{request.method} {request.path}"
            raise unsupported_operation(name, list(self.runtime_operations))
        operation, path = found
        document = protocol.rest_parameters(operation, request, path)
        answer = perform(self._context, self.runtime_operations[operation.name], operation, document, region)
        return protocol.rest_answer(operation, answer)


def perform(
    context: LocalContext, handler: Handler, operation: OperationModel, document: Any, region: str
) -> Mapping[str, Any]:
    """Check a request by the service's model and let the operation's handler answer it.

    :raises ServiceError: the request is refused, or a fault ordered for this operation is due.
    """
    _strike(context, operation.name)
    parameters = model_codec.decode(operation.input_shape, document)
    service_model.check(operation.input_shape, parameters)
    return handler(parameters or {}, RequestContext(region=region))


def _strike(context: LocalContext, operation: str) -> None:
    """Make the fault ordered for this operation, if one is due."""
    if context.faults.take("throttle", operation):
        raise throttled()
    fault = context.faults.take("error", operation)
    if fault:
        raise ServiceError(fault.code, fault.message, status=fault.status)


def _table(tables: Iterable[dict[str, Handler]]) -> dict[str, Handler]:
    merged: dict[str, Handler] = {}
    for table in tables:
        twice = merged.keys() & table.keys()
        if twice:
            raise ValueError(f"two resources answer the operations {sorted(twice)}")
        merged |= table
    return merged


def guarded(write_error: Callable[[ServiceError], Response], answer: Callable[[], Response]) -> Response:
    """Turn refusals into AWS errors, and faults of ours into an InternalFailure that says what broke."""
    try:
        return answer()
    except ServiceError as error:
        return write_error(error)
    except Exception as error:
        traceback.print_exc()
        return write_error(internal_failure(f"the local AWS failed: {error!r}"))
