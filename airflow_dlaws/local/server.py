"""The process of the local AWS: `python -m airflow_dlaws.local.server --state-dir DIR [--port P] [--time-scale S]`.

One HTTP server on 127.0.0.1. A request signed for SageMaker goes to our own operations, one for a service that moto
serves well goes to moto, any other is refused. When the process ends, however it ends, its jobs and endpoints end.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from werkzeug.wrappers import Request, Response

from airflow_dlaws.local import admin, moto_seams
from airflow_dlaws.local.context import LocalContext
from airflow_dlaws.local.dispatch import SageMaker
from airflow_dlaws.local.images import BUILT_IN_PATTERN, ImageRegistry, make_built_in_image
from airflow_dlaws.local.leftovers import ServerRecord
from airflow_dlaws.local.options import add_arguments
from airflow_dlaws.local.price_file import read_products
from airflow_dlaws.local.prices import Prices
from airflow_dlaws.local.resources import make_resources
from airflow_dlaws.local.scaling import ApplicationAutoScaling
from airflow_dlaws.local.service_jobs.service import Batch
from airflow_dlaws.local.tagging_api import TaggingApi
from airflow_dlaws.local.training import TrainingJobs

#: AWS4-HMAC-SHA256 Credential=KEY/20261123/us-east-1/sagemaker/aws4_request
_CREDENTIAL_SCOPE = re.compile(r"Credential=[^/]+/\d+/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request")


class Router:
    """The WSGI application: one door for all services."""

    def __init__(self, context: LocalContext) -> None:
        self._context = context
        self._moto = moto_seams.moto_application()
        self._prices = Prices(context)
        self._scaling = ApplicationAutoScaling(context)
        self._tagging = TaggingApi(context.tags, context.faults)
        training = TrainingJobs(context)
        self._batch = Batch(context, training)
        self._sagemaker = SageMaker(context, make_resources(context, training))

    def close(self) -> None:
        """End what the services have started."""
        self._batch.close()
        self._sagemaker.close()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return self._application(environ)(environ, start_response)  # type: ignore[no-any-return]

    def _application(self, environ: dict[str, Any]) -> Any:
        if environ["PATH_INFO"].startswith(admin.PREFIX):
            return admin.answer(self._context, Request(environ))
        scope = _CREDENTIAL_SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
        if scope is None:
            # Presigned URLs and anonymous reads carry no header; a target header means another service.
            return self._moto if "HTTP_X_AMZ_TARGET" not in environ else _refusal(environ, "unsigned requests")
        if scope["service"] == "sagemaker":
            return self._sagemaker.answer(Request(environ), scope["region"])
        if scope["service"] == "batch":
            return self._batch.answer(Request(environ), scope["region"])
        if scope["service"] == "pricing":
            return self._prices.answer(Request(environ))
        if scope["service"] == "application-autoscaling":
            return self._scaling.answer(Request(environ), scope["region"])
        if scope["service"] == "tagging":
            return self._tagging.answer(Request(environ), scope["region"])
        if scope["service"] in moto_seams.MOTO_SERVICES:
            return self._moto
        return _refusal(environ, f"the service {scope['service']!r}")


def _refusal(environ: dict[str, Any], what: str) -> Response:
    code = "NotSupportedByLocalAws"
    services = ", ".join(
        ["sagemaker", "application-autoscaling", "batch", "pricing", "tagging", *sorted(moto_seams.MOTO_SERVICES)]
    )
    message = f"The local AWS does not support {what}; it has {services}."
    if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        xml = f"<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
        return Response(xml, status=501, content_type="text/xml")
    answer = Response(json.dumps({"__type": code, "message": message}), status=501, content_type="application/json")
    answer.headers["x-amzn-ErrorType"] = code
    return answer


class _LateApplication:
    """Stands in for the router until the port, which the router needs, is known."""

    router: Any = None

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return self.router(environ, start_response)  # type: ignore[no-any-return]


def serve(arguments: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT, or (with --tied) until standard input is closed."""
    state_dir: Path = arguments.state_dir.resolve()
    (state_dir / "tmp").mkdir(parents=True, exist_ok=True)
    os.environ["TMPDIR"] = str(state_dir / "tmp")  # moto spools large objects to temporary files
    images = ImageRegistry({BUILT_IN_PATTERN: make_built_in_image(state_dir / "images" / "dlaws-torch")})
    for pattern, folder in arguments.image:
        images.register(pattern, Path(folder))
    application = _LateApplication()
    server = moto_seams.http_server(application, arguments.port)
    context = LocalContext(
        state_dir=state_dir,
        endpoint_url=f"http://127.0.0.1:{server.server_port}",
        images=images,
        time_scale=arguments.time_scale,
        spot_price=arguments.spot_price,
        file_systems=dict(arguments.file_system),
        products=read_products(arguments.prices) if arguments.prices else None,
    )
    application.router = router = Router(context)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        # In a thread: a handler interrupts the main thread, which may hold the event's lock.
        signal.signal(number, lambda *_: threading.Thread(target=stopping.set).start())
    if arguments.tied:
        threading.Thread(target=_follow_standard_input, args=(stopping,), daemon=True).start()
    record = ServerRecord.write(state_dir, endpoint_url=context.endpoint_url, time_scale=context.time_scale)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stopping.wait()
    context.closing.set()
    router.close()  # while the server still serves: jobs have logs to ship
    record.remove(state_dir)
    server.server_close()


def _follow_standard_input(stopping: threading.Event) -> None:
    while os.read(0, 1024):  # not through sys.stdin, whose lock would trip the interpreter's shutdown
        pass
    stopping.set()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve the local AWS.")
    add_arguments(parser)
    parser.add_argument("--tied", action="store_true", help="end when standard input is closed")
    serve(parser.parse_args())
