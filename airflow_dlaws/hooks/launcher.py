"""The launcher of an engine, over the connections of a task: AWS's services, and shells on other machines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.launchers.batch import ENGINE as BATCH
from airflow_dlaws.launchers.batch import BatchLauncher
from airflow_dlaws.launchers.processing import ENGINE as PROCESSING
from airflow_dlaws.launchers.processing import ProcessingLauncher
from airflow_dlaws.launchers.protocol import Launcher
from airflow_dlaws.launchers.sagemaker import ENGINE as TRAINING
from airflow_dlaws.launchers.sagemaker import SageMakerLauncher
from airflow_dlaws.launchers.shell import Shell
from airflow_dlaws.launchers.slurm import ENGINE as SLURM
from airflow_dlaws.launchers.slurm import SlurmLauncher
from airflow_dlaws.launchers.sweep import ENGINE as SWEEP
from airflow_dlaws.launchers.sweep import SweepLauncher
from airflow_dlaws.launchers.transform import ENGINE as TRANSFORM
from airflow_dlaws.launchers.transform import TransformLauncher
from airflow_dlaws.launchers.tuning import ENGINE as TUNING
from airflow_dlaws.launchers.tuning import TuningLauncher


class Connections(Protocol):
    """What engines are reached through."""

    def client(self, service: str) -> Any:
        """Return the boto3 client of a service."""

    def shell(self, address: str) -> Shell:
        """Return a shell on the machine at `ssh://CONNECTION` or `ssm://[USER@]INSTANCE`."""


#: Kinds of jobs, each with the launcher that runs it. A reference carries its engine's name from process to process.
ENGINES: dict[str, Callable[[Connections], Launcher[Any]]] = {
    TRAINING: lambda connections: SageMakerLauncher(connections.client),
    BATCH: lambda connections: BatchLauncher(connections.client),
    SWEEP: lambda connections: SweepLauncher(connections.client),
    TUNING: lambda connections: TuningLauncher(connections.client),
    TRANSFORM: lambda connections: TransformLauncher(connections.client),
    PROCESSING: lambda connections: ProcessingLauncher(connections.client),
    SLURM: lambda connections: SlurmLauncher(connections.client, connections.shell),
}


def launcher_for(engine: str, connections: Connections) -> Launcher[Any]:
    """Return the launcher of `engine`.

    :raises SpecificationError: there is none of that name.
    """
    if engine not in ENGINES:
        raise SpecificationError(f"engine={engine!r} is not known; the engines are {sorted(ENGINES)}")
    return ENGINES[engine](connections)
