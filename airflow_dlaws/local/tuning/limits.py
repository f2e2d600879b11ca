"""The limits of a tuning job, and what each strategy demands. Sources as in `request`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_dlaws.local.errors import limit_exceeded, validation_error
from airflow_dlaws.local.tuning.hyperband import INFERRED_FROM, inferred_resource
from airflow_dlaws.local.tuning.ranges import read_space
from airflow_dlaws.local.tuning.space import SearchSpace

#: Quotas: jobs of a tuning job, its parallel jobs (developer guide, "Resource limits").
JOB_QUOTA, RANDOM_JOB_QUOTA, PARALLEL_QUOTA = 750, 10_000, 100
#: HyperbandStrategyConfig: "The maximum value is 20,000 epochs".
RESOURCE_QUOTA = 20_000


def resources(config: Mapping[str, Any], definition: Mapping[str, Any]) -> tuple[int, int]:
    """Return Hyperband's (MinResource, MaxResource); 0 where MaxResource is neither given nor to be inferred."""
    hyperband = config.get("StrategyConfig", {}).get("HyperbandStrategyConfig", {})
    inferred = inferred_resource(definition.get("StaticHyperParameters", {})) or 0
    return hyperband.get("MinResource", 1), hyperband.get("MaxResource", inferred)


def job_quota(config: Mapping[str, Any]) -> int:
    """Return the most jobs that a tuning job may launch."""
    return RANDOM_JOB_QUOTA if config["Strategy"] == "Random" else JOB_QUOTA


def check_limits(config: Mapping[str, Any], space: SearchSpace) -> None:
    """Refuse ResourceLimits that contradict each other, the quotas or the space.

    :raises ServiceError: ValidationException or ResourceLimitExceeded.
    """
    limits = config["ResourceLimits"]
    jobs, parallel = limits.get("MaxNumberOfTrainingJobs"), limits["MaxParallelTrainingJobs"]
    quota = job_quota(config)
    if config["Strategy"] != "Grid" and jobs is None and not _ends_otherwise(config):
        raise validation_error(
            "ResourceLimits needs MaxNumberOfTrainingJobs or MaxRuntimeInSeconds, unless there is another completion "
            "criterion."
        )
    if jobs is not None and jobs > quota:
        raise limit_exceeded(f"MaxNumberOfTrainingJobs {jobs} is over the limit of {quota} for {config['Strategy']}.")
    if parallel > PARALLEL_QUOTA:
        raise limit_exceeded(f"MaxParallelTrainingJobs {parallel} is over the limit of {PARALLEL_QUOTA}.")
    if jobs is not None and parallel > jobs:
        raise validation_error(
            f"MaxParallelTrainingJobs {parallel} must not be greater than MaxNumberOfTrainingJobs {jobs}."
        )
    if config["Strategy"] != "Grid" and jobs is not None and space.combinations < jobs:
        # Text: aws/amazon-sagemaker-operator-for-k8s #123.
        raise validation_error(
            "You don't have enough combinations of hyperparameter ranges. The total number of hyperparameter "
            f"combinations for the provided ranges [{float(space.combinations)}] must be equal or greater than the "
            f"value of MaxNumberOfJobs, [{jobs}]. Provide additional ranges."
        )


def _ends_otherwise(config: Mapping[str, Any]) -> bool:
    criteria = config.get("TuningJobCompletionCriteria", {})
    return "MaxRuntimeInSeconds" in config["ResourceLimits"] or any(
        member in criteria for member in ("TargetObjectiveMetricValue", "BestObjectiveNotImproving")
    )


def check_strategy(config: Mapping[str, Any], definition: Mapping[str, Any]) -> None:
    """Refuse what does not go with the strategy.

    :raises ServiceError: ValidationException or ResourceLimitExceeded.
    """
    if config["Strategy"] == "Grid":
        _check_grid(config)
    if config["Strategy"] == "Hyperband":
        return _check_hyperband(config, definition)
    if config.get("StrategyConfig", {}).get("HyperbandStrategyConfig") is not None:
        raise validation_error(f"HyperbandStrategyConfig is for the strategy Hyperband, not {config['Strategy']}.")
    return None


def _check_grid(config: Mapping[str, Any]) -> None:
    ranges = config.get("ParameterRanges", {})
    if ranges.get("IntegerParameterRanges") or ranges.get("ContinuousParameterRanges"):
        raise validation_error("The strategy Grid searches categorical hyperparameters only.")
    combinations = int(read_space(ranges).combinations)
    asked = config["ResourceLimits"].get("MaxNumberOfTrainingJobs", combinations)
    if combinations > JOB_QUOTA:
        raise limit_exceeded(f"The grid has {combinations} combinations, over the limit of {JOB_QUOTA}.")
    if asked != combinations:
        raise validation_error(
            f"With the strategy Grid MaxNumberOfTrainingJobs must be the number of combinations, {combinations}, "
            f"not {asked}; leave it out."
        )


def _check_hyperband(config: Mapping[str, Any], definition: Mapping[str, Any]) -> None:
    if config.get("TrainingJobEarlyStoppingType", "Off") != "Off":
        raise validation_error("TrainingJobEarlyStoppingType must be OFF to use Hyperband.")
    least, most = resources(config, definition)
    if not most:
        raise validation_error(
            "HyperbandStrategyConfig needs MaxResource, which cannot be inferred: none of the static hyperparameters "
            f"{', '.join(INFERRED_FROM)} is a number."
        )
    if most > RESOURCE_QUOTA or least >= most:
        raise validation_error(
            f"HyperbandStrategyConfig: MinResource {least} must be less than MaxResource {most}, which is at most "
            f"{RESOURCE_QUOTA}."
        )
