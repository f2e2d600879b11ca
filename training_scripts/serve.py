"""Serve a model over HTTP the way SageMaker endpoints and batch transform ask for: GET /ping, POST /invocations.

    SAGEMAKER_BASE_DIR=DIR SAGEMAKER_BIND_HOST=127.0.0.1 SAGEMAKER_BIND_TO_PORT=8123 python serve.py

The model lies unpacked under $SAGEMAKER_BASE_DIR/model (/opt/ml/model in a container). Its code/inference.py defines

    load(model_dir: str) -> model
    predict(model, body: bytes, content_type: str) -> (body: bytes, content_type: str)

in one file that imports no other of the model's. The server starts to listen when the model is loaded, so /ping answers
200 or not at all; a model that does not load ends the process with exit code 1 and the reason on stderr. ValueError
from predict is the client's fault (HTTP 400), any other exception the model's (HTTP 500, traceback on stderr). SIGTERM
answers what is in flight, then ends with 0.

It listens on 0.0.0.0, as a container must; $SAGEMAKER_BIND_HOST set to 127.0.0.1 keeps it on this machine.
Port: $SAGEMAKER_BIND_TO_PORT, else 8080. One process serves from threads; more workers are more instances.
"""

import importlib.util
import json
import os
import pathlib
import signal
import sys
import threading
import traceback
import types
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch

#: MaxPayloadInMB of batch transform may be 100 (CreateTransformJob in the API reference); SageMaker itself refuses
#: bodies over 25 MB on their way to an endpoint.
LARGEST_BODY = 100 * 2**20
#: An idle connection is closed after this many seconds; SageMaker gives a request 60.
IDLE_SECONDS = 65
#: How batch transform should ask where the job leaves it open: each request is one thread's work. All of them together
#: may be 100 MB: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-batch-code.html
EXECUTION_PARAMETERS = {
    "MaxConcurrentTransforms": min(os.cpu_count() or 1, 16),
    "BatchStrategy": "MULTI_RECORD",
    "MaxPayloadInMB": 6,
}


def main() -> int:
    # Threads share the cores by requests; a request that takes all of them makes the others wait.
    torch.set_num_threads(1)
    model_dir = pathlib.Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"), "model")
    try:
        code = import_handler(model_dir)
        model = code.load(str(model_dir))
    except Exception as error:
        traceback.print_exc()
        print(f"serve: the model under {model_dir} does not load: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    address = os.environ.get("SAGEMAKER_BIND_HOST", "0.0.0.0"), int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))
    handler = type("Handler", (Handler,), {"ask": staticmethod(lambda body, kind: code.predict(model, body, kind))})
    with Server(address, handler) as server:
        # shutdown() waits for serve_forever() to return, so it must not be called by the thread that runs it.
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        print(f"serve: {model_dir} on {address[0]}:{server.server_port}", file=sys.stderr, flush=True)
        server.serve_forever(poll_interval=0.1)
        server.finish()
    return 0


def import_handler(model_dir: pathlib.Path) -> types.ModuleType:
    path = model_dir / "code" / "inference.py"
    spec = importlib.util.spec_from_file_location("inference", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses and pickle look for it
    spec.loader.exec_module(module)
    for name in ("load", "predict"):
        if not callable(getattr(module, name, None)):
            raise TypeError(f"{path} defines no function {name}()")
    return module


class Server(ThreadingHTTPServer):
    """Counts the requests in work, so that the end can wait for them."""

    daemon_threads = True
    #: Connections that may wait to be accepted: a burst of clients is not refused.
    request_queue_size = 128

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.busy = 0
        self.idle = threading.Condition()

    def begin(self) -> None:
        with self.idle:
            self.busy += 1

    def end(self) -> None:
        with self.idle:
            self.busy -= 1
            self.idle.notify_all()

    def finish(self, seconds: float = 30) -> None:
        """Wait until no request is in work."""
        with self.idle:
            self.idle.wait_for(lambda: self.busy == 0, timeout=seconds)


class Handler(BaseHTTPRequestHandler):
    """One connection. HTTP/1.1 keeps it open, which is most of the speed."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    #: Head and body leave in one packet; without it the second waits for the first to be acknowledged (40 ms).
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if self.path == "/execution-parameters":
            self.answer(200, json.dumps(EXECUTION_PARAMETERS).encode(), "application/json")
        else:
            self.answer(*((200, b"\n") if self.path == "/ping" else (404, b"ask GET /ping or POST /invocations\n")))

    def do_POST(self) -> None:
        self.server.begin()
        try:
            self.answer(*self.invoke())
        finally:
            self.server.end()

    def invoke(self) -> tuple:
        length = self.headers.get("Content-Length", "")
        known = length.isascii() and length.isdigit()
        if not known or int(length) > LARGEST_BODY:
            self.close_connection = True  # the body stays unread, so the connection cannot be used again
            return 413 if known else 411, f"send Content-Length, at most {LARGEST_BODY}\n".encode()
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            self.close_connection = True  # whoever sent it has left, and half a body may look like a whole one
            return 400, f"the body ended after {len(body)} of {length} bytes\n".encode()
        if self.path != "/invocations":
            return 404, b"ask GET /ping or POST /invocations\n"
        try:
            answer, kind = self.ask(body, self.headers.get("Content-Type", ""))
        except ValueError as error:
            return 400, f"{error}\n".encode()
        except Exception as error:
            traceback.print_exc()
            return 500, f"{type(error).__name__}: {error}\n".encode()
        return 200, answer, kind

    def answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """A line for each request would cost more than the request."""


if __name__ == "__main__":
    sys.exit(main())
