"""Log files of hosts, shipped line by line to CloudWatch Logs while they grow, with the metrics found in them."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

#: PutLogEvents takes at most this many events, and messages of at most 256 KB less 26 bytes of overhead.
_BATCH = 1_000
_MESSAGE_CHARACTERS = 60_000


class LogFile:
    """The lines of a file that another process appends to."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset, self._rest = path, 0, b""

    def new_lines(self, *, last: bool = False) -> list[str]:
        """Return the lines completed since the last call; on the `last` call also one without a line end."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                chunk = file.read()
        except FileNotFoundError:
            return []
        self._offset += len(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if last and self._rest:
            lines.append(self._rest)
            self._rest = b""
        return [line.decode(errors="replace").rstrip("\r") for line in lines]


class LogStream:
    """One stream of CloudWatch Logs; group and stream are made at the first line."""

    def __init__(self, logs: Any, group: str, stream: str) -> None:
        self._logs, self._group, self._stream, self._made = logs, group, stream, False

    def put(self, lines: Iterable[str]) -> None:
        """Append lines; CloudWatch takes no empty ones."""
        now = round(time.time() * 1000)
        events = [{"timestamp": now, "message": line[:_MESSAGE_CHARACTERS]} for line in lines if line]
        if events and not self._made:
            self._make()
        for start in range(0, len(events), _BATCH):
            batch = events[start : start + _BATCH]
            self._logs.put_log_events(logGroupName=self._group, logStreamName=self._stream, logEvents=batch)

    def _make(self) -> None:
        with contextlib.suppress(self._logs.exceptions.ResourceAlreadyExistsException):
            self._logs.create_log_group(logGroupName=self._group)
        self._logs.create_log_stream(logGroupName=self._group, logStreamName=self._stream)
        self._made = True


class MetricReader:
    """Finds the metrics of MetricDefinitions in log lines; the value is the first group of the expression."""

    def __init__(self, definitions: Iterable[Mapping[str, str]]) -> None:
        self._patterns = [(definition["Name"], re.compile(definition["Regex"])) for definition in definitions]

    def read(self, lines: Iterable[str]) -> list[tuple[str, float]]:
        """Return (name, value) in the order they were printed."""
        found = []
        for line in lines:
            for name, pattern in self._patterns:
                for match in pattern.finditer(line):
                    # What is no number is no metric: a definition may match ordinary text too.
                    with contextlib.suppress(ValueError, IndexError, TypeError):
                        found.append((name, float(match.group(1))))
        return found


class HostLog:
    """The log of one host, on its way to CloudWatch."""

    def __init__(
        self, path: Path, stream: LogStream, metrics: MetricReader, note: Callable[[str, float], None]
    ) -> None:
        self._file, self._stream, self._metrics, self._note = LogFile(path), stream, metrics, note

    def ship(self, *, last: bool = False) -> None:
        """Send what is new."""
        lines = self._file.new_lines(last=last)
        self._stream.put(lines)
        for name, value in self._metrics.read(lines):
            self._note(name, value)


def put_metric(cloudwatch: Any, job: str, name: str, value: float, when: datetime) -> None:
    """Put a training metric where CloudWatch users look for it."""
    cloudwatch.put_metric_data(
        Namespace="/aws/sagemaker/TrainingJobs",
        MetricData=[
            {
                "MetricName": name,
                "Dimensions": [{"Name": "TrainingJobName", "Value": job}],
                "Value": value,
                "Timestamp": when,
            }
        ],
    )
