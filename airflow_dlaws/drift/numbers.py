"""The distributions of all numeric columns against their references, in one pass with numpy.

A look compares dozens of columns of up to 128 cells each, several times over, so the columns are laid end to end, each
with a cell for the values below and one for those above its extremes, and every sum is taken over all of them at once.
Two-sample Kolmogorov-Smirnov test on cells, ridits, medians, and the stability index over about ten cells: the sources
are in drift/statistics.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_dlaws.drift.cells import FeatureProfile, NumericProfile
from airflow_dlaws.drift.statistics import PSI_SMOOTHING, kolmogorov_tail

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from airflow_dlaws.drift.counts import FeatureCounts

    Numbers = NDArray[Any]

#: Cells of a stability index: its customary thresholds (0.1, 0.2) assume about ten.
PSI_CELLS = 10


@dataclass(frozen=True, slots=True)
class NumericMove:
    """How the current values of one column lie beside the reference's."""

    #: The largest distance of the two distribution functions, and its p-value.
    distance: float
    p_value: float
    #: Half the difference of the chances that a current value is above, and below, a reference value.
    shift: float
    #: Medians by interpolation in their cells; None where there is no value.
    reference_median: float | None
    median: float | None
    #: The stability index over about ten cells, less what chance alone gives it.
    effect: float


class NumericReference:
    """The numeric ones of some columns: what of a comparison does not depend on the current values."""

    def __init__(self, columns: Sequence[FeatureProfile]) -> None:
        import numpy as np

        numbered = [(place, column) for place, column in enumerate(columns) if isinstance(column, NumericProfile)]
        self._places = [place for place, _ in numbered]
        self._names = [column.name for _, column in numbered]
        numeric = [column for _, column in numbered]
        self._counts = np.array([cell for column in numeric for cell in (0, *column.counts, 0)], dtype=float)
        self._widths = np.array([len(column.counts) + 2 for column in numeric], dtype=int)
        self._starts = _starts_of(self._widths)
        self._rows = self._sums(self._counts)
        bounds = [(low, low, *column.edges, high, high) for column in numeric for low, high in [_extremes(column)]]
        self._left = np.array([bound for each in bounds for bound in each[:-1]], dtype=float)
        self._right = np.array([bound for each in bounds for bound in each[1:]], dtype=float)
        self._medians = self._medians_of(self._counts, self._rows)
        # Reference values up to a cell and before it: twice its ridit, times the rows.
        upto = self._counts.cumsum() - np.repeat((self._rows.cumsum() - self._rows), self._widths)
        self._ridits = 2 * upto - self._counts
        coarse = [coarse_ends(column.counts) for column in numeric]
        self._coarse_widths = np.array([len(ends) for ends in coarse], dtype=int)
        self._coarse_starts = np.array(
            [start + before for start, ends in zip(self._starts, coarse, strict=True)
             for before in (0, *(end + 1 for end in ends[:-1]))], dtype=int,
        )  # fmt: skip

    def moves(self, counts: Sequence[FeatureCounts]) -> Mapping[str, NumericMove]:
        """Compare the current counts of the columns, given in their order, with the reference; return moves by name."""
        import numpy as np

        if not self._names:
            return {}
        of_numbers = [counts[place] for place in self._places]
        now = np.array([cell for each in of_numbers for cell in (each.below, *each.cells, each.above)], dtype=float)
        rows = self._sums(now)
        distances = self._distances(now, rows)
        # Without rows on one side there is no distance either, and its p-value is 1.
        scaled = distances * np.sqrt(self._rows * rows / np.maximum(1, self._rows + rows))
        total = np.maximum(1, self._rows * rows)
        shifts = np.where(self._rows * rows > 0, (self._sums(now * self._ridits) - total) / (2 * total), 0)
        figures = zip(
            distances.tolist(), kolmogorov_tail(scaled).tolist(), shifts.tolist(), self._medians,
            self._medians_of(now, rows), self._effects(now).tolist(), strict=True,
        )  # fmt: skip
        return {name: NumericMove(*row) for name, row in zip(self._names, figures, strict=True)}

    def _sums(self, cells: Numbers) -> Numbers:
        """Return the sum of each column's cells."""
        import numpy as np

        return np.add.reduceat(cells, self._starts) if len(cells) else np.zeros(0)

    def _distances(self, now: Numbers, rows: Numbers) -> Numbers:
        import numpy as np

        # Each column's differences, weighted with the size of the other sample, add up to zero, so one running sum
        # over all columns starts anew at each by itself. Whole numbers below 2^53 are exact.
        steps = self._counts * np.repeat(rows, self._widths) - now * np.repeat(self._rows, self._widths)
        largest = np.maximum.reduceat(np.abs(steps.cumsum()), self._starts)
        both = self._rows * rows
        return np.where(both > 0, largest / np.maximum(1, both), 0)

    def _medians_of(self, cells: Numbers, rows: Numbers) -> list[float | None]:
        """Return each column's median by linear interpolation in its cell."""
        import numpy as np

        if not len(cells):
            return []
        upto, before = cells.cumsum(), rows.cumsum() - rows
        place = np.minimum(upto.searchsorted(before + rows / 2), len(cells) - 1)
        left, inside = self._left[place], cells[place]
        passed = upto[place] - inside - before
        medians = left + (self._right[place] - left) * (rows / 2 - passed) / np.maximum(1, inside)
        return [median if size else None for median, size in zip(medians.tolist(), rows.tolist(), strict=True)]

    def _effects(self, now: Numbers) -> Numbers:
        """Return `statistics.excess_index` of each column over its coarse cells."""
        import numpy as np

        reference, current = (np.add.reduceat(cells, self._coarse_starts) for cells in (self._counts, now))
        starts = _starts_of(self._coarse_widths)

        def smoothed(cells: Numbers) -> tuple[Numbers, Numbers]:
            rows = np.add.reduceat(cells, starts)
            total = rows + PSI_SMOOTHING * self._coarse_widths
            return (cells + PSI_SMOOTHING) / np.repeat(total, self._coarse_widths), rows

        (expected, rows), (actual, others) = smoothed(reference), smoothed(current)
        index = np.add.reduceat((actual - expected) * np.log(actual / expected), starts)
        filled = np.add.reduceat((reference + current > 0).astype(float), starts)
        by_chance = (filled - 1) * (1 / np.maximum(1, rows) + 1 / np.maximum(1, others))
        return np.where(rows * others > 0, np.maximum(0, index - by_chance), 0)


def _starts_of(widths: Numbers) -> Numbers:
    return widths.cumsum() - widths


def _extremes(column: NumericProfile) -> tuple[float, float]:
    """Return least and greatest value; of a column without any, what no median is ever taken from."""
    return column.low or 0.0, column.high or 0.0


def coarse_ends(reference: Sequence[int]) -> tuple[int, ...]:
    """Return where each coarse cell ends: as soon as it holds a tenth of the reference."""
    total, filled, ends = sum(reference), 0, []
    for end, count in enumerate(reference, start=1):
        filled += count
        if filled * PSI_CELLS >= total:
            ends.append(end)
            filled = 0
    return tuple(ends) if ends and ends[-1] == len(reference) else (*ends, len(reference))
