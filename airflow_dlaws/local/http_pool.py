"""Kept-alive HTTP connections to one serving container."""

from __future__ import annotations

import contextlib
import http.client
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

HOST = "127.0.0.1"
#: A kept connection that the container has closed meanwhile says so in one of these ways, before it has read anything.
_STALE = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError, http.client.CannotSendRequest)


@dataclass(frozen=True)
class ContainerAnswer:
    """What a container answered to one request."""

    status: int
    content_type: str
    body: bytes
    custom_attributes: str | None = None


class HttpPool:
    """Connections to `port` on this machine, as many as there are requests at once. Safe for many threads."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._idle: deque[http.client.HTTPConnection] = deque()

    def request(
        self, method: str, path: str, *, timeout: float, body: bytes | None = None, headers: Mapping[str, str]
    ) -> ContainerAnswer:
        """Send a request and read the whole answer.

        :raises OSError: the container does not listen, or hung up; TimeoutError where it took too long.
        :raises http.client.HTTPException: what it answered is no HTTP.
        """
        connection = self._take()
        reused = connection.sock is not None
        try:
            return self._exchange(connection, method, path, timeout, body, headers)
        except _STALE:
            connection.close()
            if not reused:
                raise
        except BaseException:
            connection.close()
            raise
        return self._fresh(method, path, timeout, body, headers)

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> http.client.HTTPConnection:
        with contextlib.suppress(IndexError):
            return self._idle.pop()
        return http.client.HTTPConnection(HOST, self.port)

    def _fresh(
        self, method: str, path: str, timeout: float, body: bytes | None, headers: Mapping[str, str]
    ) -> ContainerAnswer:
        connection = http.client.HTTPConnection(HOST, self.port)
        try:
            return self._exchange(connection, method, path, timeout, body, headers)
        except BaseException:
            connection.close()
            raise

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        timeout: float,
        body: bytes | None,
        headers: Mapping[str, str],
    ) -> ContainerAnswer:
        connection.timeout = timeout
        if connection.sock is not None:
            connection.sock.settimeout(timeout)
        connection.request(method, path, body=body, headers=dict(headers))
        response = connection.getresponse()
        content = response.read()
        answer = ContainerAnswer(
            status=response.status,
            content_type=response.getheader("Content-Type", "application/octet-stream"),
            body=content,
            custom_attributes=response.getheader("X-Amzn-SageMaker-Custom-Attributes"),
        )
        if connection.sock is not None:
            self._idle.append(connection)
        return answer
