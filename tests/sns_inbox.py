"""An HTTP endpoint that keeps what SNS sends it."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Iterator
from typing import Any


class Inbox:
    """Listens on the loopback interface while `opened`."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        inbox = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                inbox.messages.append(json.loads(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"

    @contextlib.contextmanager
    def opened(self) -> Iterator[Inbox]:
        """Listen."""
        thread = threading.Thread(target=self.server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            self.server.server_close()
            thread.join()

    def wait_for(self, text: str) -> dict[str, Any]:
        """Return the first message with this text, once there is one."""
        deadline = time.monotonic() + 20
        while True:
            for message in self.messages:
                if text in message.get("Message", ""):
                    return message
            assert time.monotonic() < deadline, self.messages
            time.sleep(0.05)
