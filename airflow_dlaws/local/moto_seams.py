"""Where the local AWS touches moto's insides; so do `cloudwatch` and `cloudwatch_logs`.

All seams are named by tests/local/test_moto_seams.py. moto is pinned in pyproject.toml because of them. None of moto's
SageMaker is used.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server

from airflow_dlaws.local import cloudwatch, cloudwatch_logs

#: Signing names of the services that moto serves here. Everything else is refused: a service that nobody has tried
#: against this project must not look as if it worked.
MOTO_SERVICES = frozenset({"s3", "monitoring", "logs", "sns", "sts", "iam", "dynamodb"})

#: Connections that may wait to be accepted. werkzeug lets 128 wait; the kernel drops more than that without a word, and
#: a triggerer whose thousand triggers connect at once then waits for seconds, as it never would at AWS.
BACKLOG = 4096


class QuietRequestHandler(MotoRequestHandler):
    """moto's request handler (it keeps header names that WSGI would lose) without a line for each request."""

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """Say nothing."""


def moto_application() -> Any:
    """Return moto's WSGI application, all services in one; CloudWatch and its logs are answered by subclasses here."""
    cloudwatch.install()
    cloudwatch_logs.install()
    return DomainDispatcherApplication(create_backend_app)


def http_server(application: Any, port: int) -> BaseWSGIServer:
    """Return a threaded HTTP server on the loopback interface; port 0 picks a free one."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", port, application, threaded=True, request_handler=QuietRequestHandler)
    server.socket.listen(BACKLOG)
    os.environ["MOTO_PORT"] = str(server.server_port)
    return server
