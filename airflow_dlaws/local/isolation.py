"""How much of a machine of its own a program gets.

NAMESPACES: its folder at /opt/ml, its host name, one network for all hosts of a job (so port 7777 never clashes, and
nothing outside can be reached). Needs Linux and either root or user namespaces. ENVIRONMENT, elsewhere: the program is
told its folder in SAGEMAKER_BASE_DIR, and arguments and variables that begin with /opt/ml are rewritten to it.
"""

from __future__ import annotations

import enum
import functools
import os
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from airflow_dlaws.errors import SpecificationError

#: Where a container finds its data, model and configuration.
OPT_ML = "/opt/ml"
#: "namespaces" and "env" force a mode; unset or "auto" takes the best that works.
CHOICE_VARIABLE = "DLAWS_LOCAL_ISOLATION"


class Isolation(enum.Enum):
    """The modes; the value is (isolate, inside a user namespace)."""

    NAMESPACES = (True, False)
    USER_NAMESPACES = (True, True)
    ENVIRONMENT = (False, False)

    @property
    def isolates(self) -> bool:
        """Whether programs see their folder at /opt/ml."""
        return self.value[0]


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A folder of this machine that a host sees under /opt/ml."""

    source: Path
    target: str
    read_only: bool = True


@dataclass(frozen=True, kw_only=True)
class HostProgram:
    """A program that runs as a host, written as if its folder were at /opt/ml."""

    name: str
    #: What the program sees as /opt/ml.
    folder: Path
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    #: Its standard output and error, appended.
    log: Path
    mounts: tuple[Mount, ...] = ()


@functools.cache
def available() -> Isolation:
    """Return the best mode that works on this machine, or the one that `DLAWS_LOCAL_ISOLATION` forces. Probes once.

    :raises SpecificationError: the forced mode does not exist or does not work here.
    """
    choice = os.environ.get(CHOICE_VARIABLE, "auto")
    if choice not in {"auto", "env", "namespaces"}:
        raise SpecificationError(f"{CHOICE_VARIABLE}={choice!r}: it can be auto, env or namespaces")
    if choice == "env":
        return Isolation.ENVIRONMENT
    candidates = [Isolation.NAMESPACES] if os.geteuid() == 0 else []
    for candidate in [*candidates, Isolation.USER_NAMESPACES]:
        if _works(candidate):
            return candidate
    if choice == "namespaces":
        raise SpecificationError(f"{CHOICE_VARIABLE}=namespaces, but this kernel gives none to us; use env or auto")
    return Isolation.ENVIRONMENT


def translate(program: HostProgram, isolation: Isolation, rendezvous: Mapping[str, str]) -> HostProgram:
    """Return the program as it must be started under `isolation`.

    :param rendezvous: variables that programs without a network of their own need to find each other.
    """
    if isolation.isolates:
        return program
    environment = {name: _rewritten(value, program.folder) for name, value in program.environment.items()}
    environment |= {"SAGEMAKER_BASE_DIR": str(program.folder), "SM_CURRENT_HOST": program.name, **rendezvous}
    argv = tuple(_rewritten(argument, program.folder) for argument in program.argv)
    return replace(program, argv=argv, environment=environment)


def free_port() -> int:
    """Return a port on 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _rewritten(text: str, folder: Path) -> str:
    if text == OPT_ML or text.startswith(f"{OPT_ML}/"):
        return str(folder) + text[len(OPT_ML) :]
    return text


def _works(isolation: Isolation) -> bool:
    from airflow_dlaws.local.sandbox import Sandbox

    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder, "ml")
        base.mkdir()
        test = ("/bin/sh", "-c", 'test "$(uname -n)" = algo-1 && echo yes > /opt/ml/probe')
        program = HostProgram(name="algo-1", folder=base, argv=test, environment={}, log=Path(folder, "log"))
        sandbox = Sandbox(Path(folder), [program], isolation=isolation, own_network=True)
        sandbox.wait(timeout=10)
        sandbox.close()
        return (base / "probe").exists()
