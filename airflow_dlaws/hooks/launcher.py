"""The launcher of an engine, over the connections of a task: AWS's services, and shells on other machines."""

from __future__ import annotations

from typing import Any, Protocol

from airflow_dlaws.launchers.engines import ENGINES, launcher_class
from airflow_dlaws.launchers.protocol import Launcher
from airflow_dlaws.launchers.shell import Shell

__all__ = ["ENGINES", "Connections", "launcher_for"]


class Connections(Protocol):
    """What engines are reached through."""

    def client(self, service: str) -> Any:
        """Return the boto3 client of a service."""

    def shell(self, address: str) -> Shell:
        """Return a shell on the machine at `ssh://CONNECTION` or `ssm://[USER@]INSTANCE`."""


def launcher_for(engine: str, connections: Connections) -> Launcher[Any]:
    """Return the launcher of `engine`.

    :raises SpecificationError: there is none of that name.
    """
    launcher = launcher_class(engine)
    ways = (connections.client, connections.shell) if engine == "slurm" else (connections.client,)
    made: Launcher[Any] = launcher(*ways)
    return made
