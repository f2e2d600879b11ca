"""A running set of hosts: the server's handle on one supervisor process."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_dlaws.local import supervisor
from airflow_dlaws.local.isolation import OPT_ML, HostProgram, Isolation, available, free_port, translate
from airflow_dlaws.local.leftovers import record_child


@dataclass(frozen=True, kw_only=True)
class HostExit:
    """How a host's program ended; a signal N shows as code 128 + N, as a shell and Docker show it."""

    host: str
    code: int
    #: Why it could not even be started; empty if it was.
    cannot_start: str = ""


class Sandbox:
    """Programs that run as hosts, and end together at the latest when the server ends.

    :param folder: for the sandbox's own small files; must exist.
    :param programs: one for each host.
    :param own_network: cut off from the machine's network (jobs), or on it (endpoints, which are called by HTTP).
    :param state_dir: where to put the process on record; None for the probe.
    """

    def __init__(
        self,
        folder: Path,
        programs: Sequence[HostProgram],
        *,
        own_network: bool,
        isolation: Isolation | None = None,
        state_dir: Path | None = None,
    ) -> None:
        self._isolation = isolation or available()
        self._changed = threading.Condition()
        self._exits: list[HostExit] = []
        self._refusals: dict[str, str] = {}
        self._over = False
        path = folder / "supervisor.json"
        path.write_text(json.dumps(self._specification(folder, programs, own_network)))
        with (folder / "supervisor.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", supervisor.__file__, str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self._record = record_child(state_dir, self._process.pid) if state_dir else None
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def over(self) -> bool:
        """Whether every process has ended."""
        with self._changed:
            return self._over

    @property
    def exits(self) -> list[HostExit]:
        """The hosts that have ended so far, in order."""
        with self._changed:
            return list(self._exits)

    def wait(self, timeout: float, exits: int | None = None) -> bool:
        """Wait until all is over, or until at least `exits` hosts have ended; return whether that came about."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._over or (exits is not None and len(self._exits) >= exits), timeout
            )

    def terminate(self) -> None:
        """Send SIGTERM to the main process of each host."""
        self._tell(b"term\n")

    def kill(self) -> None:
        """Send SIGKILL to every process of every host."""
        self._tell(b"kill\n")

    def close(self) -> None:
        """End everything now, and wait until it has ended."""
        with contextlib.suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()
        self._listener.join()

    def _tell(self, command: bytes) -> None:
        # The supervisor may have ended a moment ago; then there is nothing left to tell.
        with contextlib.suppress(OSError, ValueError):
            if self._process.stdin:
                self._process.stdin.write(command)
                self._process.stdin.flush()

    def _listen(self) -> None:
        for line in self._process.stdout or ():
            event = json.loads(line)
            with self._changed:
                if event["event"] == "cannot_start":
                    self._refusals[event["host"]] = event["error"]
                else:
                    refusal = self._refusals.get(event["host"], "")
                    self._exits.append(HostExit(host=event["host"], code=event["code"], cannot_start=refusal))
                self._changed.notify_all()
        self._process.wait()
        if self._record:
            self._record.unlink(missing_ok=True)
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _specification(self, folder: Path, programs: Sequence[HostProgram], own_network: bool) -> dict[str, Any]:
        isolate, user_namespace = self._isolation.value
        rendezvous = {"DLAWS_MASTER_ADDR": "127.0.0.1", "DLAWS_MASTER_PORT": str(free_port())} if own_network else {}
        hosts_file = folder / "hosts"
        hosts_file.write_text(_hosts_file([program.name for program in programs]))
        return {
            "isolate": isolate,
            "user_namespace": user_namespace,
            "own_network": own_network,
            "hosts": [
                self._host(folder, translate(program, self._isolation, rendezvous), hosts_file) for program in programs
            ],
        }

    def _host(self, folder: Path, program: HostProgram, hosts_file: Path) -> dict[str, Any]:
        stage = folder / f"{program.name}.opt"
        stage.mkdir(exist_ok=True)
        return {
            "name": program.name,
            "folder": str(program.folder),
            "stage": str(stage),
            "hosts_file": str(hosts_file),
            "log": str(program.log),
            "argv": list(program.argv),
            "environment": dict(program.environment),
            "mounts": [
                {"source": str(mount.source), "target": mount.target, "read_only": mount.read_only}
                for mount in program.mounts
            ],
            "working_directory": OPT_ML if self._isolation.isolates else str(program.folder),
        }


def _hosts_file(names: Sequence[str]) -> str:
    """Each host has a loopback address of its own, so that two of them can listen on the same port."""
    rows = [f"127.0.0.{number} {name}" for number, name in enumerate(names, 1)]
    return "\n".join(["127.0.0.1 localhost", *rows, ""])
