"""The server of training_scripts/serve.py, as a process: which handlers it takes, and which bodies."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVE = Path(__file__).parents[3] / "training_scripts" / "serve.py"
DEADLINE_S = 60
#: Says how long the body was, and is written as handlers are today.
HANDLER = """
from __future__ import annotations
from dataclasses import dataclass

@dataclass
class Model:
    folder: str

def load(model_dir: str) -> Model:
    return Model(model_dir)

def predict(model: Model, body: bytes, content_type: str) -> tuple[bytes, str]:
    return str(len(body)).encode(), content_type
"""


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    base = tmp_path_factory.mktemp("base")
    (base / "model" / "code").mkdir(parents=True)
    (base / "model" / "code" / "inference.py").write_text(HANDLER)
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    where = {"SAGEMAKER_BASE_DIR": str(base), "SAGEMAKER_BIND_HOST": "127.0.0.1", "SAGEMAKER_BIND_TO_PORT": str(number)}
    with (base / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, str(SERVE)], env={**os.environ, **where}, stderr=log)
    try:
        await_ping(process, number, base / "log")
        yield number
    finally:
        process.terminate()
        assert process.wait(DEADLINE_S) == 0


def await_ping(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if ask(port, "GET", "/ping") == (200, b"\n"):
                return
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise AssertionError(log.read_text())


def ask(port: int, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_body_may_be_as_large_as_batch_transform_makes_them(port: int) -> None:
    largest = 100 * 2**20
    assert ask(port, "POST", "/invocations", bytes(largest), Content_Type="x") == (200, str(largest).encode())
    assert ask(port, "POST", "/invocations", Content_Length=str(largest + 1))[0] == 413


@pytest.mark.parametrize("length", ["", "-1", "1e3", "\u00b2"])
def test_a_length_that_is_no_number_is_refused(port: int, length: str) -> None:
    assert ask(port, "POST", "/invocations", Content_Length=length)[0] == 411


def test_half_a_body_is_not_taken_for_a_whole_one(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as connection:
        connection.sendall(b"POST /invocations HTTP/1.1\r\nHost: here\r\nContent-Length: 10\r\n\r\nhalf\n")
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"the body ended after 5 of 10 bytes\n")
