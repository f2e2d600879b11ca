"""The always-valid test behind a rollout's verdict: does green's share of some kind of request grow too large?

Each request falls into a cell (answered or failed; fast, slow, slower). Given the cells, which requests were green's?
Where both fleets behave alike, green's share is its share of the traffic in every cell, whatever the cells' rates are
and however they move over the day. An alternative says that green's odds in cell j are `ratio[j]` times as large. A
minute with g[j] and b[j] requests in the cells therefore multiplies the evidence for the alternative by

    product over j of  ratio[j]**g[j] / (w * ratio[j] + 1 - w)**(g[j] + b[j])      with w = g / (g + b)

whose expectation is at most 1 for a healthy green: exactly for independent draws, and, because the factor is convex
in g, also for the hypergeometric draw that a minute is once its totals are known (Hoeffding 1963, theorem 4).
Where green's share moved within the minute, w is the largest it had for ratios above 1 and the smallest for ratios
below 1 (`shifts`): the expectation is at most 1 then whenever in the minute the requests came.
Evidence is averaged over alternatives with fixed weights; by Ville's inequality its chance of ever reaching 1/alpha
is at most alpha, over all looks together. By how much it would pass 1/alpha is put to use before (`boost`). The idea is
that of Lindon and Malek, "Anytime-valid inference for multinomial count data" (NeurIPS 2022), and Lindon, Sanden and
Shirikian, "Rapid regression detection in software deployments through sequential testing" (KDD 2022, arXiv 2205.14762).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from airflow_dlaws.rollout.boost import draws, log_boost
from airflow_dlaws.rollout.shifts import ShareBounds

#: The grid of error ratios is about evenly spaced in logarithm, and each weighs so much of the one below: small harm is
#: likelier, and needs the head start more. Worse harm than the largest is caught by it, as fast. A bet on the smallest
#: harm itself would wait for proof against harm half as large: the grid begins a little above it.
_GRID_STEP = 0.37
ABOVE_SMALLEST = 1.1
_LARGEST_HARM = 5.0
_DECAY = 0.9
#: In minutes with more failures single ones no longer matter, and a boost takes longer to find than it is worth.
_MOST_BOOSTED = 200
#: Nearer to the bar a boost would rest on the last digits of the chances.
_LEAST_SPARE = 1e-3
#: How much of a bet waits for minutes to be over. The rest is enough to see at once what fails wholesale.
_PATIENT = 0.9


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """One way in which green may be worse, and how much of the bet is on it."""

    weight: float
    #: For each cell, how many times blue's odds green's are; all above 0.
    ratios: tuple[float, ...]


@dataclass(frozen=True)
class CellCounts:
    """Requests of one minute by cell, and how many each fleet served in all."""

    green: Sequence[int]
    blue: Sequence[int]
    green_requests: int
    blue_requests: int
    #: Where green's share of the traffic moved within the minute.
    bounds: ShareBounds | None = None


def error_alternatives(first: float) -> tuple[Alternative, ...]:
    """Return alternatives for one cell, the failed requests: an error rate `first` times blue's, and more."""
    width = math.log(max(_LARGEST_HARM, first * 2) / first)
    points = max(2, round(width / _GRID_STEP) + 1)
    step = width / (points - 1)
    weights = normalised([_DECAY**n for n in range(points)])
    return tuple(Alternative(weight=weight, ratios=(first * math.exp(n * step),)) for n, weight in enumerate(weights))


def normalised(weights: Sequence[float]) -> list[float]:
    """Return weights that sum to 1."""
    return [weight / sum(weights) for weight in weights]


class Meter:
    """Adds up the evidence minute by minute; `log_evidence` may be read at any time.

    :param alternatives: whose weights sum to at most 1.
    :param bar: the logarithm of the evidence that decides; minutes are boosted towards it. Then they must be over when
        they are added, and have one cell.
    """

    def __init__(self, alternatives: Sequence[Alternative], bar: float = math.inf) -> None:
        self._ratios = [alternative.ratios for alternative in alternatives]
        self._logs = [math.log(alternative.weight) for alternative in alternatives]
        self._bar = bar

    def add(self, minute: CellCounts) -> None:
        """Add one minute in which both fleets served."""
        boost = self._boost(minute)
        share = minute.green_requests / (minute.green_requests + minute.blue_requests)
        low, high = (minute.bounds.low, minute.bounds.high) if minute.bounds else (share, share)
        cells = list(zip(minute.green, minute.blue, strict=True))
        for index, ratios in enumerate(self._ratios):
            self._logs[index] += boost + sum(
                green * math.log(ratio) - (green + blue) * math.log1p((high if ratio > 1 else low) * (ratio - 1))
                for ratio, (green, blue) in zip(ratios, cells, strict=True)
                if green or blue
            )

    def _boost(self, minute: CellCounts) -> float:
        """Return the logarithm of a minute's boost: none where green's share moved, for then the draw is not known."""
        before, drawn = self.log_evidence, minute.green[0] + minute.blue[0]
        if not _LEAST_SPARE < self._bar - before < math.inf or minute.bounds or drawn > _MOST_BOOSTED:
            return 0.0
        share = minute.green_requests / (minute.green_requests + minute.blue_requests)
        lines = [
            (log - before - drawn * math.log1p(share * (ratio - 1)), math.log(ratio))
            for log, (ratio,) in zip(self._logs, self._ratios, strict=True)
        ]
        outcomes = (
            (log_sum(start + green * slope for start, slope in lines), chance)
            for green, chance in draws(drawn, minute.green_requests, minute.blue_requests)
        )
        return log_boost(outcomes, self._bar - before)

    @property
    def log_evidence(self) -> float:
        """The natural logarithm of the evidence so far, averaged over the alternatives."""
        return log_sum(self._logs)


class PatientMeter:
    """Two bets on the same alternatives: most of it on minutes that are over, boosted, the rest on what there is.

    A boost rests on how a whole minute may turn out. Looks at the parts of a minute would be chances beyond that.

    :param bar: as `Meter`'s, of the two together.
    """

    def __init__(self, alternatives: Sequence[Alternative], bar: float) -> None:
        self._over = Meter(alternatives, bar - math.log(_PATIENT))
        self._now = Meter(alternatives)

    def add(self, minute: CellCounts, *, is_over: bool) -> None:
        """Add one minute in which both fleets served; one that is not over must be the last."""
        self._now.add(minute)
        if is_over:
            self._over.add(minute)

    @property
    def log_evidence(self) -> float:
        """The natural logarithm of the evidence so far."""
        return log_sum((math.log(_PATIENT) + self._over.log_evidence, math.log1p(-_PATIENT) + self._now.log_evidence))


def log_sum(logs: Iterable[float]) -> float:
    """Return the logarithm of the sum of numbers given by their logarithms; minus infinity of none."""
    values = list(logs)
    top = max(values, default=-math.inf)
    return top if math.isinf(top) else top + math.log(sum(math.exp(value - top) for value in values))
