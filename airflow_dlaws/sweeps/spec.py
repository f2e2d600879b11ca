"""What a sweep should be: the job of one trial, what may be tried, what is better, and what it may cost."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.limits import check_range
from airflow_dlaws.jobs.spec import TrainingSpec
from airflow_dlaws.sweeps.space import Dimension, check_parameters, space_size

#: SageMaker's own tuner allows no more jobs in one sweep.
TRIAL_LIMIT = 10_000
PARALLEL_LIMIT = 100
#: Waiting for machines and uploading come on top of each trial's own limit.
_MARGIN_PER_TRIAL_S = 900


class Direction(enum.StrEnum):
    """Whether a smaller or a larger objective is better."""

    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"

    def better(self, one: float, other: float) -> bool:
        """Tell whether `one` is better than `other`."""
        return one < other if self is Direction.MINIMIZE else one > other

    def key(self, value: float) -> float:
        """Return a number that sorts the best value first."""
        return value if self is Direction.MINIMIZE else -value


class Search(enum.StrEnum):
    """How the next parameters are found."""

    #: Tree-structured Parzen estimator (Optuna), after as many random trials as it needs to begin.
    TPE = "tpe"
    RANDOM = "random"


@dataclass(frozen=True, kw_only=True)
class Halving:
    """Early stopping by asynchronous successive halving (Li et al., MLSys 2020, https://arxiv.org/abs/1810.05934).

    At the rungs `min_resource`, times `reduction_factor`, times its square ..., a trial goes on only if it is among the
    best 1/`reduction_factor` of all that have come that far.

    :param resource: the metric that says how far a trial has come, such as "epoch".
    :param min_resource: the first rung, in its units.
    :param reduction_factor: one of how many goes on.
    :param max_resource: where a trial ends by itself; there is nothing to stop there.
    """

    resource: str = "epoch"
    min_resource: float = 1
    reduction_factor: float = 3
    max_resource: float | None = None

    def __post_init__(self) -> None:
        if not self.resource:
            raise SpecificationError("early_stopping: resource='' must name the metric that counts up, as 'epoch'")
        if not self.min_resource > 0:
            raise SpecificationError(f"early_stopping: min_resource={self.min_resource!r} must be above 0")
        if not self.reduction_factor > 1:
            raise SpecificationError(f"early_stopping: reduction_factor={self.reduction_factor!r} must be above 1")
        if self.max_resource is not None and self.max_resource <= self.min_resource:
            raise SpecificationError(
                f"early_stopping: max_resource={self.max_resource!r} must be above min_resource={self.min_resource!r}"
            )


@dataclass(frozen=True, kw_only=True)
class SweepSpec:
    """One sweep.

    :param training: the job of a trial; its hyperparameters are those that all trials share.
    :param space: what may be tried.
    :param objective: the metric that is minimized or maximized, as the script reports it; its last value counts.
    :param max_trials: trials to run in all.
    :param parallel_trials: trials that run at the same time.
    :param max_billable_seconds: what all trials may be billed, in instance-seconds; None for no such limit. Trials that
        run when it is reached are stopped, so it can be exceeded by what they use between two looks and to stop.
    :param early_stopping: None lets every trial run to its end.
    :param tolerance: differences of the objective that are noise, such as its standard error: no trial is stopped for
        being behind by less.
    :param seed: of the search.
    :param max_failed_trials: failed trials that are borne; one more ends the sweep.
    :param initial_trials: parameters to try first, such as those of the model in service.
    """

    training: TrainingSpec
    space: tuple[Dimension, ...]
    objective: str
    direction: Direction = Direction.MINIMIZE
    max_trials: int = 16
    parallel_trials: int = 4
    max_billable_seconds: int | None = None
    search: Search = Search.TPE
    early_stopping: Halving | None = None
    tolerance: float = 0.0
    seed: int = 0
    max_failed_trials: int = 3
    initial_trials: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        for name, check in FIELD_CHECKS.items():
            check(name, getattr(self, name))
        check_together(self.space, self.training.hyperparameters, self.initial_trials, self.max_trials)

    @property
    def longest_s(self) -> int:
        """Seconds after which every trial has been ended by the service, however they queue."""
        rounds = math.ceil(self.max_trials / self.parallel_trials)
        return rounds * (self.training.longest_s + _MARGIN_PER_TRIAL_S)

    @property
    def trials(self) -> int:
        """Trials to run: no more than there are points to try."""
        return int(min(self.max_trials, space_size(self.space)))


def check_together(
    space: Sequence[Dimension],
    shared: Mapping[str, Any],
    initial_trials: Sequence[Mapping[str, Any]],
    max_trials: int,
) -> None:
    """Refuse what is right by itself and wrong together.

    :param shared: hyperparameters of all trials.
    :raises SpecificationError: says which of two to change.
    """
    twice = {dimension.name for dimension in space} & set(shared)
    if twice:
        raise SpecificationError(f"{sorted(twice)} stand in space and in hyperparameters: keep one of the two")
    if len(initial_trials) > max_trials:
        raise SpecificationError(f"{len(initial_trials)} initial_trials, but max_trials={max_trials}")
    for parameters in initial_trials:
        check_parameters("initial_trials", parameters, space)


def _text(name: str, value: Any) -> None:
    if not isinstance(value, str) or not value or len(value) > 255:
        raise SpecificationError(f"{name}={value!r} must name a metric that the script reports (1 to 255 characters)")


def _budget(name: str, value: Any) -> None:
    if value is not None:
        check_range(name, value, 1, 10**12, "instance-seconds")


def _tolerance(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise SpecificationError(f"{name}={value!r} must be a number from 0 on, in units of the objective")


#: One check a field; the operator runs those whose value is known when a DAG is parsed.
FIELD_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "objective": _text,
    "max_trials": lambda name, value: check_range(name, value, 1, TRIAL_LIMIT),
    "parallel_trials": lambda name, value: check_range(name, value, 1, PARALLEL_LIMIT),
    "max_billable_seconds": _budget,
    "tolerance": _tolerance,
    "seed": lambda name, value: check_range(name, value, 0, 2**31 - 1),
    "max_failed_trials": lambda name, value: check_range(name, value, 0, TRIAL_LIMIT),
}
