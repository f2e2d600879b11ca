"""A sweep as SageMaker's own tuner (automatic model tuning) can run it. What it cannot is refused, never approximated.

Limits: API reference of CreateHyperParameterTuningJob, and the developer guide's resource limits of automatic model
tuning.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.spec import TrainingSpec, hyperparameter_text
from airflow_dlaws.sweeps.space import Dimension, DimensionKind
from airflow_dlaws.sweeps.spec import Halving, Search, SweepSpec

#: What `early_stopping` may say besides a Halving.
MEDIAN = "median"
#: The tuner adds this one to the hyperparameters of every job.
RESERVED = "_tuning_objective_metric"
_JOB_LIMIT = 750
_DIMENSION_LIMIT = _CHOICE_LIMIT = 30
_VALUE_LENGTH = 256
_ENVIRONMENT_LIMIT = 48
#: MaxRuntimeInSeconds of a tuning job: two minutes to half a year.
_SHORTEST_S, _LONGEST_S = 120, 15_768_000
#: HyperbandStrategyConfig takes no reduction factor: what is asked for must be the default, or it would be ignored.
_REDUCTION = Halving().reduction_factor
_ELSE = "or use engine='optuna'"


class Strategy(enum.StrEnum):
    """HyperParameterTuningJobStrategyType, those that a sweep can ask for."""

    BAYESIAN = "Bayesian"
    RANDOM = "Random"
    HYPERBAND = "Hyperband"


@dataclass(frozen=True, kw_only=True)
class TunerSpec:
    """A sweep for SageMaker's tuner.

    :param median_stopping: stop a trial that is worse than the median of the ones before it (the tuner's own rule).
    """

    sweep: SweepSpec
    median_stopping: bool = False

    def __post_init__(self) -> None:
        for name, check in TUNER_CHECKS.items():
            check(name, getattr(self.sweep.training if name == "checkpoint_s3_uri" else self.sweep, name))
        _check_training(self.sweep.training)
        if self.strategy is not Strategy.RANDOM and self.sweep.trials > _JOB_LIMIT:
            raise SpecificationError(
                f"max_trials={self.sweep.max_trials}: SageMaker's tuner takes {_JOB_LIMIT} at most"
            )

    @property
    def strategy(self) -> Strategy:
        """How the tuner searches. Hyperband proposes by itself: `search` does not matter then."""
        if self.sweep.early_stopping is not None:
            return Strategy.HYPERBAND
        return Strategy.RANDOM if self.sweep.search is Search.RANDOM else Strategy.BAYESIAN

    @property
    def longest_s(self) -> int:
        """Seconds after which the tuner itself ends the sweep."""
        return max(_SHORTEST_S, min(_LONGEST_S, self.sweep.longest_s))


def _check_training(training: TrainingSpec) -> None:
    if RESERVED in training.hyperparameters:
        raise SpecificationError(f"hyperparameters: {RESERVED!r} is the tuner's own: rename it")
    room = _ENVIRONMENT_LIMIT - len(OWN_VARIABLES)
    if len(training.job_environment) > room:
        raise SpecificationError(
            f"environment has {len(training.job_environment)} entries (with those of EFA), a tuning job has room for "
            f"{room}: leave some out"
        )
    for name, check in TRAINING_CHECKS.items():
        check(name, getattr(training, name))


#: How the entry program learns what to run: a tuning job cannot name its program's arguments.
OWN_VARIABLES = ("DLAWS_ENTRY_POINT", "DLAWS_PROCESSES_PER_HOST", "DLAWS_ARGUMENTS")


def typed(space: Sequence[Dimension], tuned: Mapping[str, str]) -> dict[str, Any]:
    """Return the values a job was given as the space has them; the tuner knows texts only."""
    return {dimension.name: _value(dimension, tuned[dimension.name]) for dimension in space if dimension.name in tuned}


def _value(dimension: Dimension, text: str) -> Any:
    if dimension.kind is DimensionKind.NUMBER:
        return float(text)
    if dimension.kind is DimensionKind.INTEGER:
        return int(text)
    return next((choice for choice in dimension.choices if hyperparameter_text(choice) == text), text)


def _check_budget(name: str, value: Any) -> None:
    if value is not None:
        raise SpecificationError(
            f"{name}={value!r}: SageMaker's tuner cannot be told a budget in billable seconds. Its bound is max_trials "
            f"x max_runtime_s: set those and leave {name} out, {_ELSE}"
        )


def _check_tolerance(name: str, value: Any) -> None:
    if value:
        raise SpecificationError(f"{name}={value!r}: SageMaker's tuner knows no tolerance. Leave it out, {_ELSE}")


def _check_initial(name: str, value: Any) -> None:
    if value:
        raise SpecificationError(f"{name}: SageMaker's tuner chooses its first trials itself: leave it out, {_ELSE}")


def _check_halving(name: str, value: Any) -> None:
    if value is None:
        return
    if value.reduction_factor != _REDUCTION:
        raise SpecificationError(
            f"{name}: reduction_factor={value.reduction_factor!r}: SageMaker's Hyperband has its own: leave it out, "
            f"{_ELSE}"
        )
    for bound in ("min_resource", "max_resource"):
        number = getattr(value, bound)
        if number is None or not float(number).is_integer():
            raise SpecificationError(
                f"{name}: {bound}={number!r}: SageMaker's Hyperband counts the objective's reports, and must be told "
                "how many a whole trial makes: give a whole number (of epochs)"
            )


def _check_space(name: str, value: Any) -> None:
    if len(value) > _DIMENSION_LIMIT:
        raise SpecificationError(f"{name} has {len(value)} hyperparameters, SageMaker's tuner takes {_DIMENSION_LIMIT}")
    for dimension in value:
        texts = [hyperparameter_text(choice) for choice in dimension.choices]
        if len(texts) > _CHOICE_LIMIT or len(set(texts)) < len(texts):
            raise SpecificationError(
                f"{name}[{dimension.name!r}]={list(dimension.choices)!r}: SageMaker's tuner takes {_CHOICE_LIMIT} "
                "choices at most, which must differ as texts"
            )
        if any(len(text) > _VALUE_LENGTH for text in texts) or dimension.name == RESERVED:
            raise SpecificationError(
                f"{name}[{dimension.name!r}]: a choice has {_VALUE_LENGTH} characters at most, and the name "
                f"{RESERVED!r} is taken"
            )


def _check_checkpoints(name: str, value: Any) -> None:
    if value:
        raise SpecificationError(
            f"{name}={value!r}: AWS does not say whether the jobs of its tuner share this place, and a trial must not "
            f"go on from another's checkpoint: leave it (and spot) out, {_ELSE}"
        )


def _check_of_training_jobs_only(name: str, value: Any) -> None:
    if value:
        raise SpecificationError(
            f"{name}={value!r}: a job of SageMaker's tuner cannot be given that: leave {name} out, {_ELSE}"
        )


#: Fields of the trials' job that the tuner's TrainingJobDefinition has no place for, or that it does not heed for sure.
TRAINING_CHECKS: dict[str, Callable[[str, Any], None]] = dict.fromkeys(
    (
        "capacity_preferences",
        "instance_groups",
        "keep_alive_s",
        "mlflow",
        "model_package",
        "infra_check",
        "remote_debug",
        "extra_request",
    ),
    _check_of_training_jobs_only,
)

#: Fields of a sweep that the tuner narrows; the operator runs those whose value is known when a DAG is parsed.
TUNER_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "max_billable_seconds": _check_budget,
    "initial_trials": _check_initial,
    "early_stopping": _check_halving,
    "space": _check_space,
    "checkpoint_s3_uri": _check_checkpoints,
    "tolerance": _check_tolerance,
}
