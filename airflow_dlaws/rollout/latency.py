"""What blue's answers take, and what a slower green would look like against it.

Before green serves, CloudWatch is asked for quantiles of blue's ModelLatency; they cut latencies into cells. A green
that is slower by a factor puts more of its requests into the slow cells, by ratios that follow from blue's quantiles
alone. Between quantiles the logarithm of the latency is taken as normal (its normal score is interpolated linearly).
If that is a poor guess the test loses speed, never validity: any fixed ratios make a valid bet (`harm`).
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.rollout.harm import Alternative, normalised

#: The quantiles asked of CloudWatch: enough cells that little of what single latencies tell is lost.
LEVELS = (0.05, 0.10, 0.20, 0.30, 0.40, 0.50, 0.60, 0.70, 0.80, 0.90, 0.95, 0.99)
#: Fewer answers than this make no quantiles to cut by.
FEWEST_ANSWERS = 200
#: Green slower as a whole, as powers of smallest_slowdown, and how much is bet on each: the smallest needs the head
#: start most, for little tells it from healthy; a large one proves itself in a few answers.
_SLOWER = ((1.0, 0.74), (2.0, 0.10), (3.0, 0.06), (5.0, 0.04), (9.0, 0.02))
#: Only the slowest requests slower: so many times as many beyond the second last quantile.
_HEAVIER_TAIL = ((2.0, 0.06), (5.0, 0.04))
_SCORE = NormalDist()


@dataclass(frozen=True, kw_only=True)
class LatencyReference:
    """Quantiles of blue's latency before the rollout: `levels[i]` of the answers took at most `thresholds[i]`."""

    #: Increasing, between 0 and 1.
    levels: tuple[float, ...]
    #: Microseconds, increasing.
    thresholds: tuple[float, ...]
    #: How many answers they were read from.
    answers: int

    def __post_init__(self) -> None:
        pairs = [*itertools.pairwise(self.thresholds), *itertools.pairwise(self.levels)]
        if len(self.levels) != len(self.thresholds) or any(left >= right for left, right in pairs):
            raise SpecificationError(
                f"latency quantiles must increase: levels {self.levels}, thresholds {self.thresholds}"
            )
        if len(self.levels) < 2 or self.thresholds[0] <= 0:
            raise SpecificationError(f"two different latencies above 0 are needed; there are {self.thresholds}")

    @property
    def shares(self) -> tuple[float, ...]:
        """Blue's share of answers in each cell; one cell more than there are thresholds."""
        return tuple(right - left for left, right in itertools.pairwise((0.0, *self.levels, 1.0)))

    def quantile(self, level: float) -> float | None:
        """Return the threshold of a level, None if it is not among them."""
        return dict(zip(self.levels, self.thresholds, strict=True)).get(level)


def reference_of(quantiles: Mapping[float, float], answers: int) -> LatencyReference | None:
    """Build the reference from quantiles by level; None where they do not tell two kinds of answers apart.

    Of levels with the same threshold the highest is kept: that many answers took at most so long.
    """
    by_threshold: dict[float, float] = {}
    for level, threshold in sorted(quantiles.items()):
        by_threshold[threshold] = level
    kept = sorted((threshold, level) for threshold, level in by_threshold.items() if threshold > 0)
    if answers < FEWEST_ANSWERS or len(kept) < 2:
        return None
    thresholds, levels = zip(*kept, strict=True)
    increasing = all(left < right for left, right in itertools.pairwise(levels))
    return LatencyReference(levels=levels, thresholds=thresholds, answers=answers) if increasing else None


def cells_of(timed: int, over: Sequence[int]) -> tuple[int, ...] | None:
    """Return the answers in each cell, from how many there are and how many took longer than each threshold.

    None where the counts contradict each other: a minute whose metrics have not all arrived yet.
    """
    cells = tuple(left - right for left, right in itertools.pairwise((timed, *over, 0)))
    return cells if all(count >= 0 for count in cells) else None


def latency_alternatives(reference: LatencyReference, smallest_slowdown: float) -> tuple[Alternative, ...]:
    """Return alternatives over the cells of a reference: green slower by factors around `smallest_slowdown`."""
    rows = [(weight, _slower(reference, smallest_slowdown**power)) for power, weight in _SLOWER]
    rows += [(weight, _heavier_tail(reference, times)) for times, weight in _HEAVIER_TAIL]
    weights = normalised([weight for weight, _ in rows])
    return tuple(Alternative(weight=w, ratios=ratios) for w, (_, ratios) in zip(weights, rows, strict=True))


def _slower(reference: LatencyReference, factor: float) -> tuple[float, ...]:
    levels = [_level_at(reference, threshold / factor) for threshold in reference.thresholds]
    shares = [right - left for left, right in itertools.pairwise((0.0, *levels, 1.0))]
    return tuple(max(now / before, 1e-3) for now, before in zip(shares, reference.shares, strict=True))


def _heavier_tail(reference: LatencyReference, times: float) -> tuple[float, ...]:
    shares = reference.shares
    first = max(1, len(shares) - 2)
    tail = sum(shares[first:])
    times = min(times, 0.9 / tail)
    rest = (1 - tail * times) / (1 - tail)
    return tuple(times if index >= first else rest for index in range(len(shares)))


def _level_at(reference: LatencyReference, latency: float) -> float:
    """Return which share of blue's answers takes at most `latency`."""
    logs = [math.log(threshold) for threshold in reference.thresholds]
    scores = [_SCORE.inv_cdf(level) for level in reference.levels]
    right = min(max(bisect.bisect_left(logs, math.log(latency)), 1), len(logs) - 1)
    slope = (scores[right] - scores[right - 1]) / (logs[right] - logs[right - 1])
    return _SCORE.cdf(scores[right] + slope * (math.log(latency) - logs[right]))
