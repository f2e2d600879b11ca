"""How long must a canary bake? Answered before it begins, from the traffic there is and the harm worth catching.

The logarithm of the evidence grows, minute by minute, like a random walk whose drift and variance follow from the
traffic and the harm. The time until it passes the bar is then about inverse Gaussian (Wald 1947; Folks and Chhikara,
JRSS B 40, 1978), taken for each alternative on the grid, and the best of them. Boosted minutes (`boost`) bring the bar
nearer by what a walk in steps passes it by: 0.583 standard deviations of a step (Siegmund, Sequential Analysis, 1985).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

from airflow_dlaws.rollout.harm import Alternative, error_alternatives
from airflow_dlaws.rollout.plan import RolloutPlan
from airflow_dlaws.rollout.stakes import Stakes, Traffic, fleets, stakes_of

_NORMAL = NormalDist()
#: Longer bakes than a day are no plan for a rollout.
_LONGEST_MINUTES = 1440
_OVERSHOOT = 0.583


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What this plan can see with this traffic."""

    green_requests_per_minute: float
    error_rate: float
    #: The ratio of error rates it is about.
    harm: float
    #: Chance that such harm is found within the bake.
    power: float
    #: The chance that `minutes_needed` is about.
    power_asked: float
    #: Minutes of bake that give the power asked for; None where even a day does not.
    minutes_needed: float | None

    @property
    def sentence(self) -> str:
        """Say it to a person."""
        need = "more than a day" if self.minutes_needed is None else f"{self.minutes_needed:.0f} min"
        return (
            f"with {self.green_requests_per_minute:.3g} requests a minute on green and {self.error_rate:.2%} failing, "
            f"{self.harm:g} times the errors are found within the bake with chance {self.power:.0%}; for "
            f"{self.power_asked:.0%} it takes {need}"
        )


def forecast(plan: RolloutPlan, traffic: Traffic, *, harm: float = 2.0, power: float = 0.9) -> Forecast:
    """Return what the plan's bake can see.

    :param harm: green's error rate over blue's.
    :param power: the chance asked for `minutes_needed`.
    """
    green, blue, rate = fleets(plan, traffic)

    def chance(minutes: float) -> float:
        stakes = stakes_of(plan, traffic, minutes=minutes)
        return max(_passes(walk, minutes) for walk in _walks(plan, stakes, green, blue, rate, harm))

    return Forecast(
        green_requests_per_minute=green,
        error_rate=rate,
        harm=harm,
        power=chance(plan.bake_seconds / 60),
        power_asked=power,
        minutes_needed=next((minutes for minutes in _minutes() if chance(minutes) >= power), None),
    )


@dataclass(frozen=True)
class _Walk:
    drift: float
    variance: float
    bar: float


def _walks(plan: RolloutPlan, stakes: Stakes, green: float, blue: float, rate: float, harm: float) -> Iterator[_Walk]:
    share = stakes.shares(plan.judged)["errors"]
    for alternative in error_alternatives(stakes.first_harm):
        yield _walk(alternative, green, blue, rate, harm, math.log(1 / (plan.alpha * share * alternative.weight)))


def _walk(alternative: Alternative, green: float, blue: float, rate: float, harm: float, bar: float) -> _Walk:
    (ratio,) = alternative.ratios
    share = green / (green + blue) if green + blue else 0.0
    cost = math.log1p(share * (ratio - 1))
    failed_green, failed_blue = green * min(1.0, rate * harm), blue * rate
    drift = failed_green * (math.log(ratio) - cost) - failed_blue * cost
    variance = failed_green * (math.log(ratio) - cost) ** 2 + failed_blue * cost**2
    return _Walk(drift, variance, bar - _OVERSHOOT * math.sqrt(variance))


def _passes(walk: _Walk, minutes: float) -> float:
    """Return the chance that the walk reaches its bar within so many minutes (inverse Gaussian distribution)."""
    if walk.variance <= 0 or minutes <= 0:
        return 0.0
    spread = math.sqrt(walk.variance * minutes)
    direct = _NORMAL.cdf((walk.drift * minutes - walk.bar) / spread)
    exponent = min(2 * walk.drift * walk.bar / walk.variance, 700.0)
    reflected = math.exp(exponent) * _NORMAL.cdf(-(walk.drift * minutes + walk.bar) / spread)
    return min(1.0, direct + reflected)


def _minutes() -> Iterator[float]:
    minutes = 1.0
    while minutes <= _LONGEST_MINUTES:
        yield minutes
        minutes = max(minutes + 1, minutes * 1.02)
