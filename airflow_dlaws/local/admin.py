"""The server's own door, /_dlaws/...: health, and faults on order."""

from __future__ import annotations

import json
from typing import Any

from werkzeug.wrappers import Request, Response

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs import wire
from airflow_dlaws.local.context import LocalContext
from airflow_dlaws.local.faults import FaultOrder
from airflow_dlaws.local.isolation import available

PREFIX = "/_dlaws/"


def answer(context: LocalContext, request: Request) -> Response:
    """Answer a request under `PREFIX`."""
    route = (request.method, request.path.removeprefix(PREFIX))
    if route == ("GET", "health"):
        return _json(_health(context))
    if route == ("POST", "faults"):
        return _order(context, request)
    if route == ("DELETE", "faults"):
        context.faults.clear()
        return _json({})
    return _json({"error": f"no such page; there are GET {PREFIX}health, POST and DELETE {PREFIX}faults"}, 404)


def _health(context: LocalContext) -> dict[str, Any]:
    return {
        "status": "ok",
        "endpoint_url": context.endpoint_url,
        "time_scale": context.time_scale,
        "isolation": available().name.lower(),
        "images": context.images.patterns(),
        "file_systems": sorted(context.file_systems),
    }


def _order(context: LocalContext, request: Request) -> Response:
    try:
        context.faults.order(wire.from_json(FaultOrder, json.loads(request.get_data())))
    except (SpecificationError, ValueError) as error:
        return _json({"error": str(error)}, 400)
    return _json({})


def _json(document: Any, status: int = 200) -> Response:
    return Response(json.dumps(document), status=status, content_type="application/json")
