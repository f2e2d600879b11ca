"""Which running trials to stop: asynchronous successive halving, the variant that stops instead of pausing.

Source: Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020 (https://arxiv.org/abs/1810.05934).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from airflow_dlaws.sweeps.journal import Trial, TrialState
from airflow_dlaws.sweeps.spec import Direction, Halving


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A trial that does not go on, and why."""

    trial: int
    reason: str


def rungs(rule: Halving, furthest: float) -> list[float]:
    """Return the rungs up to `furthest`, ascending; none at or above `max_resource`, where a trial ends by itself."""
    limit = furthest if rule.max_resource is None else min(furthest, math.nextafter(rule.max_resource, 0))
    found: list[float] = []
    rung = rule.min_resource
    while rung <= limit:
        found.append(rung)
        rung *= rule.reduction_factor
    return found


def value_at(trial: Trial, rung: float) -> float | None:
    """Return the objective a trial had when it reached a rung: its first report at or behind it."""
    return next((report.value for report in trial.reports if report.resource >= rung), None)


def cuts(trials: Sequence[Trial], rule: Halving, direction: Direction, tolerance: float = 0.0) -> list[Cut]:
    """Return the running trials to stop, each judged at the furthest rung it has reached, at every look.

    A trial goes on while it is among the best `n / reduction_factor` (rounded up) of the n that have reached its rung,
    whatever became of them: there is always one that goes on. So does one that is behind these by no more than
    `tolerance`, as noise cannot rank (the soft ranking of PASHA, https://arxiv.org/abs/2207.06940).

    Judging again when more trials have come that far is where this differs from ASHA: the first ones, which had no
    company when they passed, are not let through to the end.
    """
    found = []
    for trial in trials:
        if trial.state is TrialState.RUNNING and trial.reports:
            reached = rungs(rule, trial.reports[-1].resource)
            cut = _judge(trial, reached[-1], trials, rule, direction, tolerance) if reached else None
            found += [cut] if cut else []
    return found


def _judge(
    trial: Trial, rung: float, trials: Sequence[Trial], rule: Halving, direction: Direction, tolerance: float
) -> Cut | None:
    own = value_at(trial, rung)
    others = [value for each in trials if (value := value_at(each, rung)) is not None]
    ranked = sorted(others, key=direction.key)
    keep = math.ceil(len(ranked) / rule.reduction_factor)
    threshold = ranked[keep - 1]
    if own is None or direction.key(own) - direction.key(threshold) <= tolerance:
        return None
    sentence = (
        f"{own:.6g} at {rule.resource} {rung:g} is not among the best {keep} of {len(ranked)} "
        f"(they have {threshold:.6g} or better)"
    )
    return Cut(trial=trial.number, reason=sentence)
