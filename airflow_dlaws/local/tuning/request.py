"""What CreateHyperParameterTuningJob refuses beyond the service model.

Sources: API reference and developer guide ("Perform Automatic Model Tuning"), texts of errors from reports of users
where a comment says so. The training jobs' own rules are those of `training_request`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow_dlaws.local import training_request
from airflow_dlaws.local.errors import unsupported, validation_error
from airflow_dlaws.local.tuning import limits
from airflow_dlaws.local.tuning.launch import child_request, search_space
from airflow_dlaws.local.tuning.space import SearchSpace

#: Quota for the hyperparameters of a tuning job (developer guide, "Resource limits").
RANGE_QUOTA = 30

_UNSUPPORTED = ("TrainingJobDefinitions", "WarmStartConfig", "Autotune")
_UNSUPPORTED_IN_DEFINITION = ("TuningObjective", "HyperParameterRanges", "HyperParameterTuningResourceConfig")


def check(request: Mapping[str, Any], s3: Any, region: str, folders: Mapping[str, Path]) -> None:
    """Refuse what AWS refuses at creation, and what cannot be done here.

    :raises ServiceError: ValidationException or ResourceLimitExceeded.
    """
    _check_supported(request)
    config, definition = request["HyperParameterTuningJobConfig"], request["TrainingJobDefinition"]
    _check_objective(config, definition)
    space = search_space(request)
    _check_names(space, definition)
    limits.check_limits(config, space)
    limits.check_strategy(config, definition)
    training_request.check(child_request(request, 1, {}), s3, region, folders)


def _check_supported(request: Mapping[str, Any]) -> None:
    if ("TrainingJobDefinition" in request) == ("TrainingJobDefinitions" in request):
        raise validation_error("You must specify exactly one of TrainingJobDefinition and TrainingJobDefinitions.")
    for member in _UNSUPPORTED:
        if member in request:
            raise unsupported(f"{member} in CreateHyperParameterTuningJob")
    definition, config = request["TrainingJobDefinition"], request["HyperParameterTuningJobConfig"]
    for member in _UNSUPPORTED_IN_DEFINITION:
        if member in definition:
            raise unsupported(f"TrainingJobDefinition.{member}")
    if config.get("ParameterRanges", {}).get("AutoParameters"):
        raise unsupported("AutoParameters")
    converged = config.get("TuningJobCompletionCriteria", {}).get("ConvergenceDetected", {})
    if converged.get("CompleteOnConvergence") == "Enabled":
        raise unsupported("ConvergenceDetected; use BestObjectiveNotImproving")


def _check_objective(config: Mapping[str, Any], definition: Mapping[str, Any]) -> None:
    objective = config.get("HyperParameterTuningJobObjective")
    metrics = definition["AlgorithmSpecification"].get("MetricDefinitions", [])
    if objective is None or objective["MetricName"] not in {metric["Name"] for metric in metrics}:
        # Text: aws/amazon-sagemaker-examples #1207, aws/sagemaker-python-sdk #3932.
        raise validation_error(
            "A metric is required for this hyperparameter tuning job objective. Provide a metric in the metric "
            "definitions."
        )


def _check_names(space: SearchSpace, definition: Mapping[str, Any]) -> None:
    names = [part.name for part in space.ranges]
    if not names:
        raise validation_error("ParameterRanges must name at least one hyperparameter.")
    if len(names) > RANGE_QUOTA:
        raise validation_error(f"A tuning job searches at most {RANGE_QUOTA} hyperparameters, not {len(names)}.")
    twice = sorted({name for name in names if names.count(name) > 1})
    both = sorted(set(names) & set(definition.get("StaticHyperParameters", {})))
    if twice or both:
        raise validation_error(f"Hyperparameters must be named once, as a range or static: {twice or both}.")
