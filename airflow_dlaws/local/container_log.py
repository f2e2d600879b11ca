"""What a serving container prints, shipped to CloudWatch Logs while it runs."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from airflow_dlaws.local.job_logs import LogFile, LogStream

#: How long a line may wait for others that go with it.
SHIP_SECONDS = 1.0


class ContainerLog:
    """Ships the growing file `path` into one log stream until closed."""

    def __init__(self, path: Path, logs_client: Any, group: str, stream: str) -> None:
        self.path = path
        self._file, self._stream = LogFile(path), LogStream(logs_client, group, stream)
        self._closed = threading.Event()
        self._shipper = threading.Thread(target=self._ship_until_closed, daemon=True)
        self._shipper.start()

    def note(self, line: str) -> None:
        """Add a line of ours."""
        with self.path.open("a") as file:
            file.write(f"{line}\n")

    def close(self) -> None:
        """Ship what is left, and stop."""
        self._closed.set()
        self._shipper.join()

    def _ship_until_closed(self) -> None:
        while not self._closed.wait(SHIP_SECONDS):
            self._ship(last=False)
        self._ship(last=True)

    def _ship(self, *, last: bool) -> None:
        # Logs are best effort, on AWS too; a server that is going down takes no more of them.
        with contextlib.suppress(BotoCoreError, ClientError):
            self._stream.put(self._file.new_lines(last=last))
