"""The launcher of an engine, over the clients of a connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.hooks.aws import AwsClients
from airflow_dlaws.launchers.batch import ENGINE as BATCH
from airflow_dlaws.launchers.batch import BatchLauncher
from airflow_dlaws.launchers.protocol import Launcher
from airflow_dlaws.launchers.sagemaker import ENGINE as TRAINING
from airflow_dlaws.launchers.sagemaker import SageMakerLauncher
from airflow_dlaws.launchers.sweep import ENGINE as SWEEP
from airflow_dlaws.launchers.sweep import SweepLauncher
from airflow_dlaws.launchers.transform import ENGINE as TRANSFORM
from airflow_dlaws.launchers.transform import TransformLauncher
from airflow_dlaws.launchers.tuning import ENGINE as TUNING
from airflow_dlaws.launchers.tuning import TuningLauncher

#: Kinds of jobs, each with the launcher that runs it. A reference carries its engine's name from process to process.
ENGINES: dict[str, Callable[[Callable[[str], Any]], Launcher[Any]]] = {
    TRAINING: SageMakerLauncher,
    BATCH: BatchLauncher,
    SWEEP: SweepLauncher,
    TUNING: TuningLauncher,
    TRANSFORM: TransformLauncher,
}


def launcher_for(engine: str, clients: AwsClients) -> Launcher[Any]:
    """Return the launcher of `engine`.

    :raises SpecificationError: there is none of that name.
    """
    if engine not in ENGINES:
        raise SpecificationError(f"engine={engine!r} is not known; the engines are {sorted(ENGINES)}")
    return ENGINES[engine](clients.client)
