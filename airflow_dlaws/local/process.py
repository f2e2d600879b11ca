"""Start and stop the local AWS from Python: `with LocalAws(folder) as aws: aws.client("s3")`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow_dlaws.errors import DlawsError
from airflow_dlaws.local.clients import CREDENTIALS, REGION, make_client
from airflow_dlaws.local.leftovers import ServerRecord, children_on_record, end_everything

#: Importing moto and botocore on a busy machine; a healthy start takes two seconds.
START_SECONDS = 60.0


class LocalAwsError(DlawsError):
    """The local AWS did not start, or is not running."""


class LocalAws:
    """The server process of one state folder.

    :param state_dir: folder for all its files.
    :param port: on 127.0.0.1; 0 picks a free one.
    :param time_scale: multiplies the waits that AWS makes.
    :param images: image URI patterns and the folders of programs that stand for them.
    :param spot_price: what spot instances cost, as a share of the price on demand.
    :param prices: file of products for the price list.
    :param file_systems: folders that stand for file systems of FSx and EFS, by id.
    :param tied: end the server when this Python process ends.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        port: int = 0,
        time_scale: float = 1.0,
        images: Mapping[str, Path] | None = None,
        spot_price: float = 0.3,
        prices: Path | None = None,
        file_systems: Mapping[str, Path] | None = None,
        tied: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.state_dir = Path(state_dir).resolve()
        self._port, self._time_scale, self._images = port, time_scale, dict(images or {})
        self._spot_price, self._prices = spot_price, prices
        self._file_systems = dict(file_systems or {})
        self._tied, self._environment = tied, dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> LocalAws:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and return when it answers. What a killed server left behind is ended first.

        :raises LocalAwsError: one is running here already, or it did not start; the message has the log's last lines.
        """
        self.state_dir.mkdir(parents=True, exist_ok=True)
        record = ServerRecord.read(self.state_dir)
        if record and record.process.alive:
            raise LocalAwsError(f"a local AWS is running in {self.state_dir} at {record.endpoint_url}: stop it first")
        end_everything(self.state_dir)
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "airflow_dlaws.local.server", *self._arguments()],
                stdin=subprocess.PIPE if self._tied else subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **self._environment},
            )
        self._wait_until_healthy(self._process)

    def stop(self) -> bool:
        """End the server, its jobs and its endpoints; return whether it ran. Stopping twice is no error."""
        ran = end_everything(self.state_dir)
        if self._process is not None:
            if self._process.stdin:
                self._process.stdin.close()
            self._process.wait()
            self._process = None
        return ran

    def wait(self) -> None:
        """Wait until the server that this object started ends."""
        if self._process is not None:
            self._process.wait()

    @property
    def running(self) -> bool:
        """Whether a server runs in this state folder, whoever started it."""
        record = ServerRecord.read(self.state_dir)
        return record is not None and record.process.alive

    @property
    def log_file(self) -> Path:
        """Where the server's own output goes."""
        return self.state_dir / "server.log"

    @property
    def endpoint_url(self) -> str:
        """The one URL for all services.

        :raises LocalAwsError: it is not running.
        """
        record = ServerRecord.read(self.state_dir)
        if record is None or not record.process.alive:
            raise LocalAwsError(f"no local AWS is running in {self.state_dir}: run `dlaws local up`")
        return record.endpoint_url

    def environment(self) -> dict[str, str]:
        """Return the environment variables with which any AWS client uses this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            **{name.upper(): value for name, value in CREDENTIALS.items()},
            "AWS_DEFAULT_REGION": REGION,
        }

    def client(self, service: str, region: str = REGION) -> Any:
        """Return a boto3 client of this server."""
        return make_client(self.endpoint_url, service, region)

    def order_fault(self, **order: Any) -> None:
        """Order a fault; see `faults.FaultOrder` for the fields.

        :raises LocalAwsError: the order makes no sense.
        """
        self._admin("POST", "faults", order)

    def clear_faults(self) -> None:
        """Cancel all ordered faults."""
        self._admin("DELETE", "faults")

    def health(self) -> dict[str, Any]:
        """Return what the server says of itself."""
        return self._admin("GET", "health")

    def children(self) -> list[int]:
        """Return the ids of the recorded child processes that still run (jobs and endpoints)."""
        return [record.pid for record in children_on_record(self.state_dir)]

    def _arguments(self) -> list[str]:
        images = [f"--image={pattern}={Path(folder).resolve()}" for pattern, folder in self._images.items()]
        mounted = [f"--file-system={name}={Path(folder).resolve()}" for name, folder in self._file_systems.items()]
        tied = ["--tied"] if self._tied else []
        options = [
            f"--port={self._port}",
            f"--state-dir={self.state_dir}",
            f"--time-scale={self._time_scale}",
            f"--spot-price={self._spot_price}",
            *([f"--prices={Path(self._prices).resolve()}"] if self._prices else []),
        ]
        return [*options, *images, *mounted, *tied]

    def _wait_until_healthy(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            record = ServerRecord.read(self.state_dir)
            if record and record.pid == process.pid and self._answers():
                return
            time.sleep(0.05)
        self.stop()
        raise LocalAwsError(f"the local AWS did not start; {self.log_file} ends with:\n{self._log_tail()}")

    def _answers(self) -> bool:
        try:
            return bool(self.health()["status"] == "ok")
        except OSError:
            return False

    def _log_tail(self) -> str:
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-15:])

    def _admin(self, method: str, page: str, document: Any = None) -> dict[str, Any]:
        body = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(f"{self.endpoint_url}/_dlaws/{page}", data=body, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            raise LocalAwsError(error.read().decode(errors="replace")) from error
