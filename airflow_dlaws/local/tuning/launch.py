"""From a tuning job's request to what it launches: the space, the number of jobs, each training job's request."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from airflow_dlaws.local.tuning.limits import job_quota
from airflow_dlaws.local.tuning.ranges import read_space
from airflow_dlaws.local.tuning.space import SearchSpace

#: The hyperparameter by which SageMaker tells the script what it tunes for.
OBJECTIVE_HYPERPARAMETER = "_tuning_objective_metric"
_NOT_OF_THE_CHILD = frozenset({"DefinitionName", "StaticHyperParameters"})


def search_space(request: Mapping[str, Any]) -> SearchSpace:
    """Return what is searched."""
    return read_space(request["HyperParameterTuningJobConfig"].get("ParameterRanges", {}))


def job_limit(request: Mapping[str, Any]) -> int:
    """Return how many training jobs it may launch; with Grid that is one for each combination."""
    config = request["HyperParameterTuningJobConfig"]
    if config["Strategy"] == "Grid":
        return int(search_space(request).combinations)
    return int(config["ResourceLimits"].get("MaxNumberOfTrainingJobs", job_quota(config)))


def child_request(request: Mapping[str, Any], number: int, values: Mapping[str, str]) -> dict[str, Any]:
    """Return the CreateTrainingJob request of the training job `number` (from 1).

    Its checkpoints lie under its own name: two children must not go on from each other's. (Assumed.)
    """
    name = request["HyperParameterTuningJobName"]
    definition = request["TrainingJobDefinition"]
    metric = request["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]["MetricName"]
    child = f"{name}-{number:03d}-{hashlib.sha256(f'{name}/{number}'.encode()).hexdigest()[:8]}"
    made = {member: value for member, value in definition.items() if member not in _NOT_OF_THE_CHILD}
    if "CheckpointConfig" in definition:
        checkpoints = definition["CheckpointConfig"]
        made["CheckpointConfig"] = {**checkpoints, "S3Uri": f"{checkpoints['S3Uri'].rstrip('/')}/{child}"}
    return {
        **made,
        "TrainingJobName": child,
        "HyperParameters": {
            OBJECTIVE_HYPERPARAMETER: metric,
            **definition.get("StaticHyperParameters", {}),
            **values,
        },
        # "Tags that you specify for the tuning job are also added to all training jobs that the tuning job launches."
        **({"Tags": request["Tags"]} if "Tags" in request else {}),
    }
