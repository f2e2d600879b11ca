"""The engines that run jobs, by the names that references and notes carry from process to process."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from airflow_dlaws.errors import SpecificationError

#: The module of `launchers` whose ENGINE it is, and the class that runs its jobs. A launcher is imported when it is
#: needed: parsing a DAG pays for none.
ENGINES: Mapping[str, tuple[str, str]] = {
    "sagemaker": ("sagemaker", "SageMakerLauncher"),
    "batch": ("batch", "BatchLauncher"),
    "optuna": ("sweep", "SweepLauncher"),
    "sagemaker-tuning": ("tuning", "TuningLauncher"),
    "sagemaker-transform": ("transform", "TransformLauncher"),
    "sagemaker-processing": ("processing", "ProcessingLauncher"),
    "slurm": ("slurm", "SlurmLauncher"),
}


def launcher_class(engine: str) -> Any:
    """Return the class whose instances run the jobs of `engine`.

    :raises SpecificationError: there is none of that name.
    """
    if engine not in ENGINES:
        raise SpecificationError(f"engine={engine!r} is not known; the engines are {sorted(ENGINES)}")
    module, name = ENGINES[engine]
    return getattr(importlib.import_module(f"airflow_dlaws.launchers.{module}"), name)
