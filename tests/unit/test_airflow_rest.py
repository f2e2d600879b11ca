"""What is asked of an Airflow from outside goes to that Airflow, and to nobody else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from airflow_dlaws.airflow_rest import AirflowTasks, RestDoor
from airflow_dlaws.errors import ServiceRefused


class LoginPage(BaseHTTPRequestHandler):
    """Sends every path but its own login page there, under another name of this machine or under the same."""

    host = "localhost"
    seen: list[tuple[str, str | None]] = []

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers.get("Authorization")))
        moved = self.path != "/login"
        self.send_response(302 if moved else 200)
        if moved:
            self.send_header("Location", f"http://{self.host}:{self.server.server_port}/login")  # type: ignore[attr-defined]
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(params=["localhost", "127.0.0.1"])
def page(request: pytest.FixtureRequest) -> Iterator[tuple[str, type[LoginPage]]]:
    """The address of such a server, and what it was asked."""
    handler = type("Handler", (LoginPage,), {"host": request.param, "seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()


def test_a_token_is_not_carried_to_another_host(page: tuple[str, type[LoginPage]]) -> None:
    url, handler = page
    with pytest.raises(ServiceRefused, match="does not answer as an Airflow 3 does"):
        AirflowTasks(RestDoor(url, token="secret")).check()
    followed = [("/login", "Bearer secret")] if handler.host == "127.0.0.1" else []
    assert handler.seen == [("/api/v2/monitor/health", "Bearer secret"), *followed]
