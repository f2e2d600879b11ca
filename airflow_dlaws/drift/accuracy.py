"""How accurate is the model now? Estimated without labels from its confidence, and measured once labels arrive.

The estimate is that of confidence-based performance estimation (J. Bialek et al., arXiv 2401.08348): on held-out rows
the reference knows how often the model is right at each confidence; weighted with where current confidences fall, that
is the accuracy to expect, as long as confidence still means what it meant. A change of what the labels depend on
(concept drift) cannot be seen so; measured accuracy sees it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from airflow_dlaws.drift.counts import FeatureCounts, TrafficCounts
from airflow_dlaws.drift.profile import ReferenceProfile
from airflow_dlaws.errors import SpecificationError

#: Cells of confidence with fewer held-out rows are merged with the next: a rate of a few rows is mostly noise.
_MIN_ROWS = 30

#: Of the intervals.
CONFIDENCE_LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class AccuracyEstimate:
    """The share of right answers, then and now."""

    #: On the reference's held-out rows.
    reference: float
    #: Now.
    estimate: float
    #: The 95 % interval of `estimate`.
    low: float
    high: float
    rows: int
    #: Whether labels were there; otherwise it is estimated from confidences.
    measured: bool = False

    @property
    def loss(self) -> float:
        """How much accuracy is lost; below 0 where it has grown."""
        return self.reference - self.estimate

    @property
    def is_worse(self) -> bool:
        """Tell whether even the upper end of the interval is below the reference."""
        return self.high < self.reference


def estimate_accuracy(profile: ReferenceProfile, counts: TrafficCounts) -> AccuracyEstimate | None:
    """Return the accuracy to expect on this traffic; None where nothing is calibrated or no confidence was captured."""
    if profile.calibration is None:
        return None
    current = counts.by_name[profile.calibration.output]
    held_out, right = profile.calibrated.counts, profile.calibration.correct
    now = _now(current)
    rows = sum(now)
    if not rows or not sum(held_out):
        return None
    merged = _merged(list(zip(held_out, right, now, strict=True)))
    estimate = sum(c * r / n for n, r, c in merged) / rows
    margin = _deviations() * math.sqrt(_variance(merged, rows))
    return AccuracyEstimate(
        reference=sum(right) / sum(held_out),
        estimate=estimate,
        rows=rows,
        low=max(0.0, estimate - margin),
        high=min(1.0, estimate + margin),
    )


def measured_accuracy(profile: ReferenceProfile, *, rows: int, correct: int) -> AccuracyEstimate:
    """Return the accuracy on rows whose labels have arrived, beside that of the reference.

    :param rows: answers that were labelled.
    :param correct: those of them that were right.
    :raises SpecificationError: the counts are impossible, or the reference does not know its own accuracy.
    """
    if not 0 <= correct <= rows or rows < 1:
        raise SpecificationError(
            f"correct={correct} of rows={rows}: need at least one row, and no more correct than rows"
        )
    if profile.calibration is None:
        raise SpecificationError("the drift reference has no calibration: write it with held-out labels")
    low, high = _wilson(correct, rows)
    return AccuracyEstimate(
        reference=sum(profile.calibration.correct) / sum(profile.calibrated.counts),
        estimate=correct / rows, low=low, high=high, rows=rows, measured=True,
    )  # fmt: skip


def _now(current: FeatureCounts) -> list[int]:
    """Return the current counts by cell; those beyond the extremes belong to the outermost."""
    cells = list(current.cells)
    cells[0] += current.below
    cells[-1] += current.above
    return cells


def _merged(cells: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Merge neighbouring cells until each has held-out rows enough."""
    merged: list[tuple[int, int, int]] = []
    for cell in cells:
        if merged and merged[-1][0] < _MIN_ROWS:
            cell = _sum(merged.pop(), cell)
        merged.append(cell)
    if len(merged) > 1 and merged[-1][0] < _MIN_ROWS:
        last = merged.pop()
        merged[-1] = _sum(merged[-1], last)
    return merged


def _sum(one: tuple[int, int, int], other: tuple[int, int, int]) -> tuple[int, int, int]:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]


def _variance(merged: Sequence[tuple[int, int, int]], rows: int) -> float:
    """Return the variance of the estimate as a forecast of the accuracy on these rows.

    Two parts: the rates are known from finitely many held-out rows (shrunk by a right and a wrong answer, or a cell
    without a wrong one would look certain), and which of the current answers are right is chance.
    """
    of_rates = of_answers = 0.0
    for held_out, right, current in merged:
        rate = (right + 1) / (held_out + 2)
        spread = rate * (1 - rate)
        of_rates += (current / rows) ** 2 * spread / (held_out + 2)
        of_answers += current / rows**2 * spread
    return of_rates + of_answers


def _wilson(hits: int, rows: int) -> tuple[float, float]:
    """Return E. B. Wilson's interval of a rate (JASA 22, 1927)."""
    z = _deviations()
    rate, shrunk = hits / rows, 1 + z * z / rows
    centre = (rate + z * z / (2 * rows)) / shrunk
    margin = z * math.sqrt(rate * (1 - rate) / rows + z * z / (4 * rows * rows)) / shrunk
    # Rounding must not put the rate itself outside.
    return max(0.0, min(rate, centre - margin)), min(1.0, max(rate, centre + margin))


def _deviations() -> float:
    return NormalDist().inv_cdf(0.5 + CONFIDENCE_LEVEL / 2)
