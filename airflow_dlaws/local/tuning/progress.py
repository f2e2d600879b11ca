"""When a tuning job is done, and whether it failed. Pure decisions over the objectives of its children."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: A job counts as an improvement from 1 % over the best one before it (BestObjectiveNotImproving).
_IMPROVEMENT = 0.01
#: After so many jobs without a success AWS gives up ("No training job succeeded after 5 attempts", reports of users).
ATTEMPTS = 5


@dataclass(frozen=True, kw_only=True)
class Tally:
    """The children that have ended, in the order in which they did."""

    #: The objective of each; None where it has none.
    objectives: Sequence[float | None]
    #: Children that ended well but reported no objective.
    silent: int

    @property
    def found(self) -> list[float]:
        """The objectives there are."""
        return [value for value in self.objectives if value is not None]


@dataclass(frozen=True, kw_only=True)
class Criteria:
    """TuningJobCompletionCriteria and the direction."""

    minimize: bool
    target: float | None = None
    not_improving: int | None = None

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Criteria:
        """Read HyperParameterTuningJobConfig."""
        criteria = config.get("TuningJobCompletionCriteria", {})
        return cls(
            minimize=config["HyperParameterTuningJobObjective"]["Type"] == "Minimize",
            target=criteria.get("TargetObjectiveMetricValue"),
            not_improving=criteria.get("BestObjectiveNotImproving", {}).get("MaxNumberOfTrainingJobsNotImproving"),
        )

    def met(self, tally: Tally) -> bool:
        """Tell whether a criterion is met."""
        if self.target is not None and any(self._reaches(value, self.target) for value in tally.found):
            return True
        return self.not_improving is not None and not_improving(tally.found, minimize=self.minimize) >= (
            self.not_improving
        )

    def _reaches(self, value: float, target: float) -> bool:
        return value <= target if self.minimize else value >= target


def not_improving(objectives: Sequence[float], *, minimize: bool) -> int:
    """Count the jobs since the last one that was better by at least 1 % than the best before it."""
    best, count = None, 0
    for objective in objectives:
        value = -objective if minimize else objective
        if best is None or value >= best + max(_IMPROVEMENT * abs(best), 1e-12):
            count = 0
        else:
            count += 1
        best = value if best is None else max(best, value)
    return count


def failure(tally: Tally, *, over: bool) -> str:
    """Return why the tuning job fails, or nothing while it does not.

    :param over: no further child will run.
    """
    ended = len(tally.objectives)
    if tally.found or ended < (1 if over else ATTEMPTS):
        return ""
    if tally.silent:
        return (
            f"No objective metrics found after running {ended} training jobs. Please ensure that the custom algorithm "
            "is emitting the objective metric as defined by the regular expression provided."
        )
    if ended < ATTEMPTS:
        return "All training jobs failed. Please take a look at the training job failures to get more details."
    return (
        f"No training job succeeded after {ATTEMPTS} attempts. Please take a look at the training job failures to get "
        "more details."
    )
