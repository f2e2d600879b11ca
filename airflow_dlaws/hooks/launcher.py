"""The launcher of an engine, over the connections of a task: AWS's services, and shells on other machines."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.launchers.protocol import Launcher
from airflow_dlaws.launchers.shell import Shell


class Connections(Protocol):
    """What engines are reached through."""

    def client(self, service: str) -> Any:
        """Return the boto3 client of a service."""

    def shell(self, address: str) -> Shell:
        """Return a shell on the machine at `ssh://CONNECTION` or `ssm://[USER@]INSTANCE`."""


#: Kinds of jobs: the module of `launchers` whose ENGINE it is, and the class that runs them. A reference carries its
#: engine's name from process to process. A launcher is imported when it is needed: parsing a DAG pays for none.
ENGINES: Mapping[str, tuple[str, str]] = {
    "sagemaker": ("sagemaker", "SageMakerLauncher"),
    "batch": ("batch", "BatchLauncher"),
    "optuna": ("sweep", "SweepLauncher"),
    "sagemaker-tuning": ("tuning", "TuningLauncher"),
    "sagemaker-transform": ("transform", "TransformLauncher"),
    "sagemaker-processing": ("processing", "ProcessingLauncher"),
    "slurm": ("slurm", "SlurmLauncher"),
}


def launcher_for(engine: str, connections: Connections) -> Launcher[Any]:
    """Return the launcher of `engine`.

    :raises SpecificationError: there is none of that name.
    """
    if engine not in ENGINES:
        raise SpecificationError(f"engine={engine!r} is not known; the engines are {sorted(ENGINES)}")
    module, name = ENGINES[engine]
    launcher: Any = getattr(importlib.import_module(f"airflow_dlaws.launchers.{module}"), name)
    ways = (connections.client, connections.shell) if engine == "slurm" else (connections.client,)
    made: Launcher[Any] = launcher(*ways)
    return made
