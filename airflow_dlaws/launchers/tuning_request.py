"""Between a sweep and SageMaker's words for it: the CreateHyperParameterTuningJob request, and what Describe answers.

The jobs of a tuner cannot be given an entry point: they run the image's program `train` (`training_scripts/train`),
which finds the entry program in the code channel and the script's name in the environment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_dlaws.jobs.metric_line import metric_regex
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.reference import JobStatus
from airflow_dlaws.jobs.spec import TrainingSpec, hyperparameter_text
from airflow_dlaws.launchers.sagemaker_request import training_request
from airflow_dlaws.storage import S3Uri
from airflow_dlaws.sweeps.space import Dimension, DimensionKind
from airflow_dlaws.sweeps.spec import Direction
from airflow_dlaws.sweeps.tuner import OWN_VARIABLES, TunerSpec

#: HyperParameterTuningJobStatus. A job that was stopped may have a best training job; it is no success.
TUNING_PHASES = {
    "InProgress": JobPhase.RUNNING,
    "Stopping": JobPhase.STOPPING,
    "Completed": JobPhase.SUCCEEDED,
    "Failed": JobPhase.FAILED,
    "Stopped": JobPhase.STOPPED,
    "Deleting": JobPhase.STOPPED,
    "DeleteFailed": JobPhase.STOPPED,
}
_OF_A_TRAINING_JOB_ONLY = frozenset({"AlgorithmSpecification", "HyperParameters", "Environment"})


def tuning_request(spec: TunerSpec, code: S3Uri) -> dict[str, Any]:
    """Return the CreateHyperParameterTuningJob request, without the name and tags that tell one task from another."""
    return {"HyperParameterTuningJobConfig": _config(spec), "TrainingJobDefinition": _definition(spec, code)}


def tuning_status(answer: Mapping[str, Any]) -> JobStatus:
    """Read DescribeHyperParameterTuningJob's answer. What the trials were billed, only they themselves know."""
    best = answer.get("BestTrainingJob", {}).get("FinalHyperParameterTuningJobObjectiveMetric")
    return JobStatus(
        phase=TUNING_PHASES[answer["HyperParameterTuningJobStatus"]],
        reason=answer.get("FailureReason", ""),
        created_at=answer.get("CreationTime"),
        started_at=answer.get("CreationTime"),
        ended_at=answer.get("HyperParameterTuningEndTime"),
        metrics={best["MetricName"]: float(best["Value"])} if best else {},
    )


def _config(spec: TunerSpec) -> dict[str, Any]:
    sweep = spec.sweep
    kind = "Minimize" if sweep.direction is Direction.MINIMIZE else "Maximize"
    return {
        "Strategy": spec.strategy.value,
        **_hyperband(spec),
        "HyperParameterTuningJobObjective": {"Type": kind, "MetricName": sweep.objective},
        "ResourceLimits": {
            "MaxNumberOfTrainingJobs": sweep.trials,
            "MaxParallelTrainingJobs": min(sweep.parallel_trials, sweep.trials),
            "MaxRuntimeInSeconds": spec.longest_s,
        },
        "ParameterRanges": _ranges(sweep.space),
        "TrainingJobEarlyStoppingType": "Auto" if spec.median_stopping else "Off",
        "RandomSeed": sweep.seed,
    }


def _hyperband(spec: TunerSpec) -> dict[str, Any]:
    halving = spec.sweep.early_stopping
    if halving is None or halving.max_resource is None:
        return {}
    # "Once a job reaches the MaxResource value, it is stopped": one more, so that a whole trial still saves its model.
    resources = {"MinResource": int(halving.min_resource), "MaxResource": int(halving.max_resource) + 1}
    return {"StrategyConfig": {"HyperbandStrategyConfig": resources}}


def _ranges(space: Sequence[Dimension]) -> dict[str, Any]:
    ranges: dict[str, list[dict[str, Any]]] = {}
    for dimension in space:
        if dimension.kind is DimensionKind.CHOICE:
            values = [hyperparameter_text(choice) for choice in dimension.choices]
            ranges.setdefault("CategoricalParameterRanges", []).append({"Name": dimension.name, "Values": values})
            continue
        integer = dimension.kind is DimensionKind.INTEGER
        low, high = (str(int(end)) if integer else repr(float(end)) for end in (dimension.low, dimension.high))
        ranges.setdefault("IntegerParameterRanges" if integer else "ContinuousParameterRanges", []).append(
            {
                "Name": dimension.name,
                "MinValue": low,
                "MaxValue": high,
                "ScalingType": "Logarithmic" if dimension.log else "Linear",
            }
        )
    return ranges


def _definition(spec: TunerSpec, code: S3Uri) -> dict[str, Any]:
    training = spec.sweep.training
    request = training_request(training, code)
    metrics = dict.fromkeys((*training.metrics, spec.sweep.objective))
    return {
        **{member: value for member, value in request.items() if member not in _OF_A_TRAINING_JOB_ONLY},
        "StaticHyperParameters": request["HyperParameters"],
        "AlgorithmSpecification": {
            "TrainingImage": training.image,
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": name, "Regex": metric_regex(name)} for name in metrics],
        },
        "Environment": {**training.job_environment, **_entry(training)},
    }


def _entry(training: TrainingSpec) -> dict[str, str]:
    """Return what `dlaws_entry.py` reads in place of arguments."""
    values = (training.entry_point, training.processes_text, json.dumps(list(training.arguments)))
    return dict(zip(OWN_VARIABLES, values, strict=True))
