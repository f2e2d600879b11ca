"""One variant of one endpoint configuration, serving: the image's `serve` program as a process, with its model.

The process finds its files at /opt/ml (or, where the kernel gives no namespaces, at SAGEMAKER_BASE_DIR) and must listen
on SAGEMAKER_BIND_TO_PORT of the loopback interface: the containers of one machine cannot all have port 8080. It stands
for all instances of its variant. If it dies it is started again, as SageMaker does; requests fail meanwhile.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import shutil
import socket
import tarfile
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from airflow_dlaws.local.container_log import ContainerLog
from airflow_dlaws.local.context import LocalContext, RequestContext
from airflow_dlaws.local.http_pool import HOST, ContainerAnswer, HttpPool
from airflow_dlaws.local.images import SYSTEM_PATH
from airflow_dlaws.local.isolation import OPT_ML, HostProgram
from airflow_dlaws.local.models import ServingContainer
from airflow_dlaws.local.sandbox import Sandbox

#: "Your containers must respond to ping requests within 2 seconds" (developer guide, own inference code).
PING_SECONDS = 2.0
#: A container that never passes stays Creating for about 24 minutes (seen by many; see the reference notes).
PING_LIMIT_SECONDS = 24 * 60.0
#: However short the time scale, a real process needs real seconds: importing torch on a busy machine takes ten.
SHORTEST_PING_LIMIT = 40.0
#: The same where the variant itself sets ContainerStartupHealthCheckTimeoutInSeconds.
SHORTEST_ASKED_LIMIT = 5.0
#: AWS goes on restarting a container that exits; here the third exit before the first good ping settles it.
EXITS_BEFORE_GIVING_UP = 3
#: "A customer's model containers must respond to requests within 60 seconds" (InvokeEndpoint).
INVOCATION_SECONDS = 60.0
#: What docker stop gives a container; SageMaker's own grace is not documented.
STOP_SECONDS = 10.0
#: How often a thread that waits for the end of a container looks up.
LOOK_SECONDS = 60.0
#: Ports for containers: under Linux's ephemeral range (32768 and up).
PORTS = range(20000, 32000)
#: Pause before a dead container is started again.
RESTART_SECONDS = 0.5


class ServingFailed(Exception):
    """A variant cannot serve; the message is the endpoint's FailureReason."""


@dataclass(frozen=True, kw_only=True)
class VariantSpec:
    """One production variant of a configuration, with its model looked up."""

    name: str
    instance_type: str
    instance_count: int
    weight: float
    container: ServingContainer
    startup_limit: float | None = None


class ModelServer:
    """The serving process of one variant."""

    def __init__(self, context: LocalContext, request: RequestContext, endpoint: str, spec: VariantSpec) -> None:
        self.spec = spec
        self._context, self._request, self._endpoint = context, request, endpoint
        self._stopping = threading.Event()
        self._exits = 0
        self._sandbox: Sandbox | None = None
        self._pool = HttpPool(_free_port())
        self._folder = _make_folder(context.state_dir)
        self._log = ContainerLog(
            self._folder / "container.log",
            context.client("logs", request.region),
            f"/aws/sagemaker/Endpoints/{endpoint}",
            f"{spec.name}/i-{uuid.uuid4().hex[:17]}",
        )
        self._in_flight = 0
        self._idle = threading.Condition()

    def start(self) -> None:
        """Unpack the model, start the process and wait until it answers its ping.

        :raises ServingFailed: the image or the model is not there, or the ping was not answered in time.
        """
        program = self._program()
        self._unpack()
        threading.Thread(target=self._keep_running, args=(program,), daemon=True).start()
        self._wait_for_ping()

    def stop(self) -> None:
        """End the process after the requests it is working on. Stopping twice is no error."""
        self._stopping.set()
        self._drain()
        self.kill()
        self._pool.close()
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def kill(self) -> None:
        """End the process without waiting for its requests (SIGTERM, then SIGKILL); it is not started again."""
        self._stopping.set()
        sandbox = self._sandbox
        if sandbox is not None:
            sandbox.terminate()
            sandbox.wait(STOP_SECONDS)
            sandbox.close()

    def enter(self) -> None:
        """Count a request in. The caller calls `leave` when it is answered."""
        with self._idle:
            self._in_flight += 1

    def leave(self) -> None:
        """Count a request out."""
        with self._idle:
            self._in_flight -= 1
            self._idle.notify_all()

    def invoke(self, body: bytes, headers: Mapping[str, str]) -> ContainerAnswer:
        """Send one request to the container.

        :raises OSError: it does not listen or hung up; TimeoutError after 60 s.
        :raises http.client.HTTPException: what it answered is no HTTP.
        """
        return self._pool.request("POST", "/invocations", timeout=INVOCATION_SECONDS, body=body, headers=headers)

    def _program(self) -> Path:
        image = self.spec.container.image
        if self._context.images.folder(image) is None:
            raise ServingFailed(f"The image '{image}' does not exist. {self._context.images.how_to_register(image)}")
        program = self._context.images.program(image, "serve")
        if program is None:
            raise ServingFailed(
                f'The primary container for production variant {self.spec.name} could not be started: exec: "serve": '
                f"executable file not found in $PATH of image '{image}'."
            )
        return program

    def _unpack(self) -> None:
        model = self._folder / "ml" / "model"
        model.mkdir(parents=True)
        url = self.spec.container.model_data_url
        if url is None:
            return
        bucket, _, key = url.removeprefix("s3://").partition("/")
        archive = self._folder / "model.tar.gz"
        try:
            self._context.client("s3", self._request.region).download_file(bucket, key, str(archive))
            with tarfile.open(archive) as tar:
                tar.extractall(model, filter="data")
        except tarfile.TarError as error:
            raise ServingFailed(f"Failed to extract model data archive from {url}: {error}.") from error
        except Exception as error:
            raise ServingFailed(f"Failed to download model data from {url}: {error}.") from error
        finally:
            archive.unlink(missing_ok=True)

    def _keep_running(self, program: Path) -> None:
        while not self._stopping.is_set() and not self._context.closing.is_set():
            sandbox = self._launch(program)
            while not sandbox.wait(LOOK_SECONDS):
                pass
            for host in sandbox.exits:
                self._log.note(host.cannot_start or f"The container exited with code {host.code}.")
            sandbox.close()
            self._exits += 1
            self._pool.close()
            self._pool = HttpPool(_free_port())
            self._stopping.wait(RESTART_SECONDS)

    def _launch(self, program: Path) -> Sandbox:
        host = HostProgram(
            name="model",
            folder=self._folder / "ml",
            argv=(str(program),),
            environment=self._environment(program.parent),
            log=self._log.path,
        )
        sandbox = Sandbox(self._folder, [host], own_network=False, state_dir=self._context.state_dir)
        self._sandbox = sandbox
        if self._stopping.is_set():  # stopped between two lives
            sandbox.close()
        return sandbox

    def _environment(self, image_folder: Path) -> dict[str, str]:
        return {
            "PATH": f"{image_folder}{os.pathsep}{SYSTEM_PATH}",
            "HOME": OPT_ML,
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "AWS_REGION": self._request.region,
            "AWS_DEFAULT_REGION": self._request.region,
            "AWS_ENDPOINT_URL": self._context.endpoint_url,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            **self.spec.container.environment,
            "SAGEMAKER_BASE_DIR": OPT_ML,
            "SAGEMAKER_BIND_TO_PORT": str(self._pool.port),
        }

    def _wait_for_ping(self) -> None:
        deadline = time.monotonic() + self._ping_limit()
        while time.monotonic() < deadline and self._exits < EXITS_BEFORE_GIVING_UP:
            if self._context.faults.take("ping", self._endpoint):
                break
            if self._pings():
                return
            if self._stopping.wait(0.1) or self._context.closing.is_set():
                break
        raise ServingFailed(
            f"The primary container for production variant {self.spec.name} did not pass the ping health check. Please "
            "check CloudWatch logs for this endpoint."
        )

    def _ping_limit(self) -> float:
        if self.spec.startup_limit is not None:
            return max(SHORTEST_ASKED_LIMIT, self._context.scaled(self.spec.startup_limit))
        return max(SHORTEST_PING_LIMIT, self._context.scaled(PING_LIMIT_SECONDS))

    def _pings(self) -> bool:
        try:
            return self._pool.request("GET", "/ping", timeout=PING_SECONDS, headers={}).status == 200
        except (OSError, http.client.HTTPException):
            return False

    def _drain(self) -> None:
        with self._idle:
            self._idle.wait_for(lambda: self._in_flight == 0, timeout=INVOCATION_SECONDS)


def _free_port() -> int:
    """A port nobody listens on, below those the kernel gives to outgoing connections; a lost race costs one restart."""
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise ServingFailed(f"No port of {PORTS.start} to {PORTS.stop - 1} is free on this machine.")


def _make_folder(state_dir: Path) -> Path:
    fleets = state_dir / "fleets"
    fleets.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=fleets))
