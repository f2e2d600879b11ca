"""The two wire protocols of SageMaker, by botocore's model: JSON with a target header, and REST with JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from botocore.model import OperationModel, ServiceModel
from werkzeug.wrappers import Request, Response

from airflow_dlaws.local import model_codec
from airflow_dlaws.local.errors import ServiceError

JSON = "application/x-amz-json-1.1"


def json_body(request: Request) -> Any:
    """Return the request's JSON document.

    :raises ServiceError: SerializationException where it is none.
    """
    try:
        return json.loads(request.get_data() or b"{}")
    except ValueError as error:
        raise ServiceError("SerializationException", f"the request is no JSON document: {error}") from error


def json_answer(operation: OperationModel, answer: Mapping[str, Any]) -> Response:
    """Write an answer in the JSON protocol."""
    document = model_codec.encode(operation.output_shape, answer, operation.name)
    return Response(json.dumps(document), content_type=JSON)


def json_error(error: ServiceError) -> Response:
    """Write an error in the JSON protocol."""
    document = {"__type": error.code, "message": error.message, **error.fields}
    return Response(json.dumps(document), status=error.status, content_type=JSON)


def rest_operation(model: ServiceModel, request: Request) -> tuple[OperationModel, dict[str, str]] | None:
    """Return the operation a REST request asks for, with the values in its path."""
    for name in model.operation_names:
        operation = model.operation_model(name)
        template = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", operation.http["requestUri"].partition("?")[0])
        match = re.fullmatch(template, request.path)
        if match and request.method == operation.http["method"]:
            return operation, {key: unquote(value) for key, value in match.groupdict().items()}
    return None


def rest_parameters(operation: OperationModel, request: Request, path: Mapping[str, str]) -> dict[str, Any]:
    """Collect the request's members from path, headers and body. A payload blob is bytes as they came."""
    shape: Any = operation.input_shape
    payload = shape.serialization.get("payload")
    found: dict[str, Any] = {}
    for name, member in shape.members.items():
        location, wire_name = member.serialization.get("location"), member.serialization.get("name", name)
        if location == "uri":
            found[name] = path[wire_name]
        elif location == "header" and wire_name in request.headers:
            found[name] = request.headers[wire_name]
        elif name == payload:
            found[name] = request.get_data()
    if payload is None and request.get_data():
        found |= json_body(request)
    return found


def rest_answer(operation: OperationModel, answer: Mapping[str, Any]) -> Response:
    """Write an answer in the REST protocol."""
    shape: Any = operation.output_shape
    model_codec.encode(shape, answer, operation.name)
    payload = shape.serialization.get("payload")
    response = Response(answer[payload] if payload else "", status=operation.http.get("responseCode", 200))
    in_body = {}
    for name, member in shape.members.items():
        if answer.get(name) is None or name == payload:
            continue
        if member.serialization.get("location") == "header":
            response.headers[member.serialization["name"]] = str(answer[name])
        else:
            in_body[name] = model_codec.encode(member, answer[name], name)
    if payload is None:
        response.data = json.dumps(in_body)
    return response


def rest_error(error: ServiceError) -> Response:
    """Write an error in the REST protocol."""
    document = {"Message": error.message, "message": error.message, **error.fields}
    response = Response(json.dumps(document), status=error.status, content_type="application/json")
    response.headers["x-amzn-ErrorType"] = error.code
    return response
