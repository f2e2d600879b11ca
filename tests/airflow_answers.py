"""An Airflow that gives the answers a test orders, over HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HEALTH = {"metadatabase": {"status": "healthy"}, "scheduler": {"status": "healthy"}}
GONE = (404, {"detail": "The DagRun with dag_id: `d` and run_id: `r` was not found"})


class Answers:
    """An Airflow's answers by path, or what makes them, and the paths that were asked for."""

    def __init__(self) -> None:
        self.by_path: dict[str, Any] = {
            "/auth/token": (201, {"access_token": "t"}),
            "/api/v2/monitor/health": (200, HEALTH),
        }
        self.otherwise: tuple[int, Any] = GONE
        self.asked: list[str] = []


@contextmanager
def answering() -> Iterator[tuple[str, Answers]]:
    """Serve answers on a port of this machine."""
    answers = Answers()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers.asked.append(self.path)
            found = answers.by_path.get(self.path, answers.otherwise)
            status, document = found() if callable(found) else found
            body = document.encode() if isinstance(document, str) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", answers
    server.shutdown()
    server.server_close()
