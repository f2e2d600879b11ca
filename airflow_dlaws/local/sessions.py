"""Process sessions: how what was started here is found again and ended, with everything it forked (Linux)."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

#: After SIGKILL the kernel needs a moment to reap; longer than this something is stuck in a system call.
_REAP_LIMIT_S = 10.0


@dataclass(frozen=True)
class Session:
    """A process session, told from a later one with the same number by its leader's start time (clock ticks)."""

    sid: int
    leader_started: int

    @classmethod
    def of(cls, leader: int) -> Session:
        """Return the session that `leader` (just started with `start_new_session=True`) leads."""
        return cls(leader, _start_time(leader))

    def to_json(self) -> list[int]:
        """Return the session as JSON, for `from_json`."""
        return [self.sid, self.leader_started]

    @classmethod
    def from_json(cls, row: Sequence[int]) -> Session:
        """Read what `to_json` gave."""
        return cls(*row)

    def alive(self) -> bool:
        """Tell whether the leader still runs."""
        return _start_time(self.sid) == self.leader_started and not _is_zombie(self.sid)

    def members(self) -> set[int]:
        """Return the pids of the session and of all their descendants, those that opened sessions of their own too."""
        leader_started = _start_time(self.sid)
        if leader_started not in (self.leader_started, 0):
            return set()  # the number was given to somebody else
        rows = _processes()
        found = {pid for pid, (_, sid, started) in rows.items() if sid == self.sid and started >= self.leader_started}
        grew = True
        while grew:
            children = {pid for pid, (parent, _, _) in rows.items() if parent in found} - found
            found |= children
            grew = bool(children)
        return found


def end_sessions(sessions: Sequence[Session], *, grace_s: float) -> None:
    """End the sessions: SIGTERM, after `grace_s` seconds SIGKILL; return when nothing is left.

    :raises TimeoutError: a process survived SIGKILL.
    """
    members = set[int]().union(*(session.members() for session in sessions))
    if grace_s > 0:
        _signal_all(members, signal.SIGTERM)
        _wait_gone(members, time.monotonic() + grace_s)
    members |= set[int]().union(*(session.members() for session in sessions))
    _signal_all(members, signal.SIGKILL)
    if left := _wait_gone(members, time.monotonic() + _REAP_LIMIT_S):
        raise TimeoutError(f"processes {sorted(left)} survived SIGKILL")


def free_ports(count: int) -> list[int]:
    """Return distinct loopback ports that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _signal_all(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _wait_gone(pids: set[int], deadline: float) -> set[int]:
    """Wait until all have ended (zombies count as ended; our own children are reaped); return those left."""
    while True:
        for pid in pids:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        left = {pid for pid in pids if _start_time(pid) and not _is_zombie(pid)}
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


def _processes() -> dict[int, tuple[int, int, int]]:
    """Return {pid: (parent pid, session id, start time)} of every process that has not ended."""
    rows = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))) and fields[0] != "Z":
            rows[int(entry.name)] = (int(fields[1]), int(fields[3]), int(fields[19]))
    return rows


def _start_time(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def _is_zombie(pid: int) -> bool:
    fields = _stat(pid)
    return bool(fields) and fields[0] == "Z"


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on; empty where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()
