"""The resources that make up the local SageMaker. A new resource class is added here and nowhere else."""

from __future__ import annotations

from airflow_dlaws.local.context import LocalContext, Resource
from airflow_dlaws.local.tagging import Tagging
from airflow_dlaws.local.training import TrainingJobs


def make_resources(context: LocalContext) -> list[Resource]:
    """Return one of each."""
    return [Tagging(context), TrainingJobs(context)]
