"""Can any test of these counts be significant? Asked first where many stretches are judged and most are healthy.

A look of a sequence judges several stretches, of which at most one is told. Here only p-values are computed, those of
all numeric columns at once with numpy; the effects, directions and notes of a whole verdict cost several times more.
The answer is that of the verdict: where it is no, `assess` would name no column.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from airflow_dlaws.drift.cells import NumericProfile
from airflow_dlaws.drift.comparison import Comparison, Family, compare, compare_beside, range_tests
from airflow_dlaws.drift.counts import FeatureCounts, TrafficCounts
from airflow_dlaws.drift.discrepancy import compare_embedding
from airflow_dlaws.drift.profile import ReferenceProfile
from airflow_dlaws.drift.settings import DriftSettings
from airflow_dlaws.drift.spending import family_shares
from airflow_dlaws.drift.statistics import kolmogorov_tail
from airflow_dlaws.drift.verdict import with_families

_Numbers = list[tuple[NumericProfile, FeatureCounts]]


def may_drift(profile: ReferenceProfile, counts: TrafficCounts, settings: DriftSettings, level: float) -> bool:
    """Tell whether a test is significant at `level` after correction, whatever its effect."""
    tests: list[Comparison] = []
    numbers: dict[Family, _Numbers] = {}
    number: Counter[Family] = Counter()
    for (column, family), counted in zip(with_families(profile), counts.features, strict=True):
        if settings.watches(column.name) and counted.rows:
            if isinstance(column, NumericProfile):
                numbers.setdefault(family, []).append((column, counted))
                seen = list(compare_beside(column, counted, family))
                number[family] += 1
            else:
                seen = list(compare(column, counted, family))
            number[Family.RANGE] += range_tests(column)
            number.update(test.family for test in seen if test.family is not Family.RANGE)
            tests += seen
    for embedding, images in zip(profile.embeddings, counts.embeddings, strict=True):
        if settings.watches(embedding.name):
            tests += (found := list(compare_embedding(embedding, images)))
            number.update(test.family for test in found)
    least = {family: kolmogorov_tail(_farthest(columns)) for family, columns in numbers.items()}
    for test in tests:
        least[test.family] = min(test.p_value, least.get(test.family, 1.0))
    shares = family_shares(number)
    # Holm's adjustment of the smallest p-value of a family is Bonferroni's.
    return any(p * number[family] <= level * shares[family] for family, p in least.items())


def _farthest(columns: Sequence[tuple[NumericProfile, FeatureCounts]]) -> float:
    """Return the largest scaled Kolmogorov-Smirnov distance of the columns.

    The differences of a column's two samples, each weighted with the size of the other, add up to zero, so one running
    sum over all columns starts anew at each by itself.
    """
    import numpy as np

    # Values beyond the extremes move the distance by nothing but their own number: a cell for each, as in the test.
    reference = [cell for column, _ in columns for cell in (0, *column.counts, 0)]
    current = [cell for _, counted in columns for cell in (counted.below, *counted.cells, counted.above)]
    widths = np.array([len(column.counts) + 2 for column, _ in columns])
    starts = np.concatenate([[0], widths[:-1].cumsum()])
    before, now = np.array(reference, dtype=float), np.array(current, dtype=float)
    sizes, sizes_now = np.add.reduceat(before, starts), np.add.reduceat(now, starts)
    both = sizes * sizes_now
    steps = before * np.repeat(sizes_now, widths) - now * np.repeat(sizes, widths)
    distance = np.maximum.reduceat(np.abs(steps.cumsum()), starts)
    scaled = distance / np.sqrt(np.maximum(1, both * (sizes + sizes_now)))
    return float(np.where(both > 0, scaled, 0).max())
