"""A serving container: the image's `serve` program as a process, with its model. Endpoints and transform jobs use it.

The process finds its files at /opt/ml (or, where the kernel gives no namespaces, at SAGEMAKER_BASE_DIR) and must listen
on SAGEMAKER_BIND_TO_PORT of the loopback interface: the containers of one machine cannot all have port 8080. If it dies
it is started again, as SageMaker does; requests fail meanwhile.
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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from airflow_dlaws.local.container_log import ContainerLog
from airflow_dlaws.local.context import LocalContext
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
#: What docker stop gives a container; SageMaker's own grace is not documented.
STOP_SECONDS = 10.0
#: How often a thread that waits for the end of a container looks up.
LOOK_SECONDS = 60.0
#: Ports for containers: under Linux's ephemeral range (32768 and up).
PORTS = range(20000, 32000)
#: Pause before a dead container is started again.
RESTART_SECONDS = 0.5


class ServingFailed(Exception):
    """A model cannot serve; the message is the endpoint's FailureReason."""


class PingFailed(ServingFailed):
    """The container runs, or tries to, and does not answer its ping."""


@dataclass(frozen=True, kw_only=True)
class ServingRole:
    """What a container serves.

    :param owner: the endpoint or the transform job; faults are ordered by it.
    :param title: how messages call the container.
    :param log_group: of CloudWatch Logs; `log_stream` its stream.
    """

    owner: str
    title: str
    log_group: str
    log_stream: str
    #: ContainerStartupHealthCheckTimeoutInSeconds.
    startup_limit: float | None = None


class ServingProcess:
    """One serving container with one model."""

    def __init__(self, context: LocalContext, region: str, container: ServingContainer, role: ServingRole) -> None:
        self._context, self._region, self._container, self._role = context, region, container, role
        self._stopping = threading.Event()
        self._exits = 0
        self._sandbox: Sandbox | None = None
        self._pool = HttpPool(_free_port())
        self._folder = _make_folder(context.state_dir)
        self._log = ContainerLog(
            self._folder / "container.log", context.client("logs", region), role.log_group, role.log_stream
        )

    def start(self) -> None:
        """Unpack the model, start the process and wait until it answers its ping.

        :raises ServingFailed: the image or the model is not there, or the ping was not answered in time.
        """
        program = self._program()
        self._unpack()
        threading.Thread(target=self._keep_running, args=(program,), daemon=True).start()
        self._wait_for_ping()

    def retire(self) -> None:
        """Let the process live, but do not start it again should it die."""
        self._stopping.set()

    def stop(self) -> None:
        """End the process and remove its files. Stopping twice is no error."""
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

    def request(
        self, method: str, path: str, *, timeout: float, body: bytes | None = None, headers: Mapping[str, str]
    ) -> ContainerAnswer:
        """Send one request to the container.

        :raises OSError: it does not listen or hung up; TimeoutError after `timeout` seconds.
        :raises http.client.HTTPException: what it answered is no HTTP.
        """
        return self._pool.request(method, path, timeout=timeout, body=body, headers=headers)

    def _program(self) -> Path:
        image = self._container.image
        if self._context.images.folder(image) is None:
            raise ServingFailed(f"The image '{image}' does not exist. {self._context.images.how_to_register(image)}")
        program = self._context.images.program(image, "serve")
        if program is None:
            raise ServingFailed(
                f'{self._role.title} could not be started: exec: "serve": '
                f"executable file not found in $PATH of image '{image}'."
            )
        return program

    def _unpack(self) -> None:
        model = self._folder / "ml" / "model"
        model.mkdir(parents=True)
        url = self._container.model_data_url
        if url is None:
            return
        bucket, _, key = url.removeprefix("s3://").partition("/")
        archive = self._folder / "model.tar.gz"
        try:
            self._context.client("s3", self._region).download_file(bucket, key, str(archive))
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
            "AWS_REGION": self._region,
            "AWS_DEFAULT_REGION": self._region,
            "AWS_ENDPOINT_URL": self._context.endpoint_url,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            **self._container.environment,
            "SAGEMAKER_BASE_DIR": OPT_ML,
            "SAGEMAKER_BIND_TO_PORT": str(self._pool.port),
        }

    def _wait_for_ping(self) -> None:
        deadline = time.monotonic() + self._ping_limit()
        while time.monotonic() < deadline and self._exits < EXITS_BEFORE_GIVING_UP:
            if self._context.faults.take("ping", self._role.owner):
                break
            if self._pings():
                return
            if self._stopping.wait(0.1) or self._context.closing.is_set():
                break
        raise PingFailed(
            f"{self._role.title} did not pass the ping health check. Please check CloudWatch logs for this endpoint."
        )

    def _ping_limit(self) -> float:
        if self._role.startup_limit is not None:
            return max(SHORTEST_ASKED_LIMIT, self._context.scaled(self._role.startup_limit))
        return max(SHORTEST_PING_LIMIT, self._context.scaled(PING_LIMIT_SECONDS))

    def _pings(self) -> bool:
        try:
            return self._pool.request("GET", "/ping", timeout=PING_SECONDS, headers={}).status == 200
        except (OSError, http.client.HTTPException):
            return False


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
