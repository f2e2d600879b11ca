"""What the local AWS has running, on record in its state folder, so that nothing outlives it unnoticed.

A process is known by its id and its start time, as ids are used again. The records outlive a `kill -9` of the server;
the next `up` or `down` ends what they name.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

#: How long a process may take to end by SIGTERM before it gets SIGKILL.
TERM_SECONDS = 10.0


def start_time(pid: int) -> str | None:
    """Return when a process started (in the kernel's own unit), or None where there is no live one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


@dataclass(frozen=True, kw_only=True)
class ProcessRecord:
    """One process: alive only while the id belongs to the same start time."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> ProcessRecord:
        """Describe a process that runs now."""
        return cls(pid=pid, started=start_time(pid) or "")

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return start_time(self.pid) == self.started

    def end(self) -> None:
        """End it: SIGTERM, then SIGKILL."""
        for number, seconds in ((signal.SIGTERM, TERM_SECONDS), (signal.SIGKILL, TERM_SECONDS)):
            deadline = time.monotonic() + seconds
            if self.alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, number)
            while self.alive and time.monotonic() < deadline:
                time.sleep(0.02)


@dataclass(frozen=True, kw_only=True)
class ServerRecord:
    """The server that works in a state folder, as `status` and `down` read it."""

    pid: int
    started: str
    endpoint_url: str
    time_scale: float

    @classmethod
    def write(cls, state_dir: Path, *, endpoint_url: str, time_scale: float) -> ServerRecord:
        """Put this process on record as the server of `state_dir`."""
        own = ProcessRecord.of(os.getpid())
        record = cls(pid=own.pid, started=own.started, endpoint_url=endpoint_url, time_scale=time_scale)
        temporary = state_dir / "server.json.new"
        temporary.write_text(json.dumps(asdict(record)))
        temporary.replace(state_dir / "server.json")
        return record

    @classmethod
    def read(cls, state_dir: Path) -> ServerRecord | None:
        """Return the server on record, dead or alive, or None."""
        try:
            return cls(**json.loads((state_dir / "server.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None

    @property
    def process(self) -> ProcessRecord:
        """The server's process."""
        return ProcessRecord(pid=self.pid, started=self.started)

    @staticmethod
    def remove(state_dir: Path) -> None:
        """Take the server off the record."""
        (state_dir / "server.json").unlink(missing_ok=True)


def record_child(state_dir: Path, pid: int) -> Path:
    """Put a child process of the server on record; the returned file is removed when the child has ended."""
    folder = state_dir / "processes"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{pid}.json"
    path.write_text(json.dumps(asdict(ProcessRecord.of(pid))))
    return path


def children_on_record(state_dir: Path) -> list[ProcessRecord]:
    """Return the recorded child processes that still run."""
    records = []
    for path in sorted((state_dir / "processes").glob("*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError):
            records.append(ProcessRecord(**json.loads(path.read_text())))
    return [record for record in records if record.alive]


def end_everything(state_dir: Path) -> bool:
    """End the server on record and every child it has left; return whether a server ran."""
    server = ServerRecord.read(state_dir)
    ran = server is not None and server.process.alive
    if server is not None:
        server.process.end()
    for child in children_on_record(state_dir):
        child.end()
    for path in (state_dir / "processes").glob("*.json"):
        path.unlink(missing_ok=True)
    ServerRecord.remove(state_dir)
    return ran
