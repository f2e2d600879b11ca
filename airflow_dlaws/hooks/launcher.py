"""The launcher of an engine, over the clients of a connection."""

from __future__ import annotations

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.hooks.aws import AwsClients
from airflow_dlaws.launchers.protocol import Launcher
from airflow_dlaws.launchers.sagemaker import ENGINE as SAGEMAKER
from airflow_dlaws.launchers.sagemaker import SageMakerLauncher


def launcher_for(engine: str, clients: AwsClients) -> Launcher:
    """Return the launcher of `engine`.

    :raises SpecificationError: there is none of that name.
    """
    if engine != SAGEMAKER:
        raise SpecificationError(f"engine={engine!r} is not known; the engines are {[SAGEMAKER]}")
    return SageMakerLauncher(clients.client)
