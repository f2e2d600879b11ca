"""The resources that make up the local SageMaker. A new resource class is added here and nowhere else."""

from __future__ import annotations

from airflow_dlaws.local.cloudwatch import AlarmWatch
from airflow_dlaws.local.context import LocalContext, Resource
from airflow_dlaws.local.endpoint_configs import EndpointConfigs
from airflow_dlaws.local.endpoints import Endpoints
from airflow_dlaws.local.model_packages import ModelPackages
from airflow_dlaws.local.models import Models
from airflow_dlaws.local.processing import ProcessingJobs
from airflow_dlaws.local.tagging import Tagging
from airflow_dlaws.local.training import TrainingJobs
from airflow_dlaws.local.transform import TransformJobs
from airflow_dlaws.local.tuning.jobs import TuningJobs


def make_resources(context: LocalContext, training: TrainingJobs) -> list[Resource]:
    """Return one of each; `training` is there already, as others launch training jobs too."""
    packages = ModelPackages(context)
    models = Models(context, packages)
    configs = EndpointConfigs(context, models)
    return [
        Tagging(context),
        TuningJobs(context, training),  # closed before its training jobs, so that it launches no more
        training,
        ProcessingJobs(context),
        TransformJobs(context, models),
        packages,
        models,
        configs,
        Endpoints(context, models, configs),
        AlarmWatch(),
    ]
