"""What the bet is on, chosen from the traffic of the hour before: fixed before green serves, so any choice is valid.

Where few failures are expected within the bake, a bet on little harm is lost beforehand: were it there, the requests
would not show it. So bets on errors begin at the smallest harm that is expected to prove itself by the end of the bake,
and less of the whole is on errors, for every answer tells of latency and hardly any of errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from airflow_dlaws.rollout.harm import ABOVE_SMALLEST
from airflow_dlaws.rollout.plan import RolloutPlan

#: Below one failure in so many answers a rate cannot be read from an hour of traffic; the plan assumes this one.
LEAST_ERROR_RATE = 1e-4
#: How much is bet on each kind of harm, in proportion, over the kinds that are judged: a failed answer is worse than a
#: late one, and rarer; predictions and business prove their harm with few requests where it is large.
_USUAL: Mapping[str, float] = {"errors": 0.8, "latency": 0.2, "predictions": 0.1, "business": 0.1}
_FEW_FAILURES: Mapping[str, float] = {"errors": 0.55, "latency": 0.45, "predictions": 0.1, "business": 0.1}
#: Steps in which the smallest provable harm is looked for, and the largest that bets may begin at: traffic may grow.
_STEP = 1.05
_LARGEST_FIRST = 4.0


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What an endpoint has to do before the rollout: requests a minute in all, and the share that fails."""

    requests_per_minute: float
    error_rate: float


@dataclass(frozen=True, kw_only=True)
class Stakes:
    """How the bet is laid."""

    #: The smallest ratio of error rates that is bet on.
    first_harm: float
    #: Whether so few failures are expected that the plan's smallest harm could not be proven.
    few_failures: bool = False

    def shares(self, kinds: Mapping[str, object]) -> dict[str, float]:
        """Return the share of each kind of harm among those that are judged; they sum to 1."""
        bets = _FEW_FAILURES if self.few_failures else _USUAL
        return {kind: bets[kind] / sum(bets[each] for each in kinds) for kind in kinds}


def stakes_of(plan: RolloutPlan, traffic: Traffic | None, *, minutes: float | None = None) -> Stakes:
    """Choose how to bet.

    :param traffic: of the hour before; None where it is not known, and every harm is bet on.
    :param minutes: how long green is watched; None for the plan's bake.
    """
    first = plan.smallest_harm * ABOVE_SMALLEST
    if traffic is None:
        return Stakes(first_harm=first)
    green, blue, rate = fleets(plan, traffic)
    bar, minutes = -math.log(plan.alpha), plan.bake_seconds / 60 if minutes is None else minutes
    ratio = first
    while ratio < _LARGEST_FIRST and growth(ratio, green, blue, rate) * minutes < bar:
        ratio *= _STEP
    return Stakes(first_harm=ratio, few_failures=ratio > first)


def fleets(plan: RolloutPlan, traffic: Traffic) -> tuple[float, float, float]:
    """Return requests a minute of green and of what it is compared with, and the error rate."""
    green = traffic.requests_per_minute * plan.first_share
    blue = traffic.requests_per_minute - green
    # All at once: blue's past minutes stand beside green's.
    return green, blue if blue > 0 else green, max(traffic.error_rate, LEAST_ERROR_RATE)


def growth(ratio: float, green: float, blue: float, rate: float) -> float:
    """Return by how much a minute adds to the logarithm of a bet on `ratio` where it is true."""
    if green + blue <= 0:
        return 0.0
    cost = math.log1p(green / (green + blue) * (ratio - 1))
    return green * min(1.0, rate * ratio) * (math.log(ratio) - cost) - blue * rate * cost
