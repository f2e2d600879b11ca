"""All numeric columns at once give what each gives by itself, by the definitions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_dlaws.drift.cells import CategoricalProfile, NumericProfile
from airflow_dlaws.drift.counts import FeatureCounts
from airflow_dlaws.drift.numbers import NumericMove, NumericReference, coarse_ends
from airflow_dlaws.drift.statistics import excess_index, kolmogorov_tail


def of_one_column(profile: NumericProfile, current: FeatureCounts) -> NumericMove:
    """Return the move of one column, a cell at a time."""
    reference, now = (0, *profile.counts, 0), (current.below, *current.cells, current.above)
    rows, others = sum(reference), sum(now)
    low, high = profile.low or 0.0, profile.high or 0.0
    bounds = [low, low, *profile.edges, high, high]
    distance = shift = 0.0
    if rows and others:
        steps = (r * others - c * rows for r, c in zip(reference, now, strict=True))
        distance = max(map(abs, itertools.accumulate(steps))) / (rows * others)
        upto = list(itertools.accumulate(reference))
        higher = sum(c * before for c, before in zip(now, (0, *upto), strict=False))
        lower = sum(c * (rows - through) for c, through in zip(now, upto, strict=True))
        shift = (higher - lower) / (2 * rows * others)
    scaled = distance * math.sqrt(rows * others / max(1, rows + others))
    inner = list(current.cells)
    inner[0] += current.below
    inner[-1] += current.above
    ends = coarse_ends(profile.counts)
    before, after = ([sum(cells[a:b]) for a, b in itertools.pairwise((0, *ends))] for cells in (profile.counts, inner))
    return NumericMove(
        distance, float(kolmogorov_tail(np.array(scaled))), shift, median(bounds, reference), median(bounds, now),
        excess_index(before, after),
    )  # fmt: skip


def median(bounds: list[float], cells: tuple[int, ...]) -> float | None:
    """Return the median by linear interpolation in its cell."""
    half, passed = sum(cells) / 2, 0
    for left, right, count in zip(bounds, bounds[1:], cells, strict=False):
        if count and passed + count >= half:
            return left + (right - left) * (half - passed) / count
        passed += count
    return None


counted = st.one_of(st.integers(0, 3), st.integers(0, 10**6))


@st.composite
def columns(draw: st.DrawFn) -> tuple[NumericProfile, FeatureCounts]:
    """Draw a profile of 1 to 30 cells, at times without values, and current counts, at times none."""
    cells = draw(st.integers(1, 30))
    name, edges = f"x{draw(st.integers(0, 10**9))}", tuple(float(edge) for edge in range(1, cells))
    before = draw(st.one_of(st.just((0,) * cells), st.tuples(*[counted] * cells)))
    now = draw(st.one_of(st.just((0,) * cells), st.tuples(*[counted] * cells)))
    low, high = (0.5, cells + 0.25) if sum(before) else (None, None)
    profile = NumericProfile(name=name, edges=edges, counts=before, missing=2, low=low, high=high)
    return profile, FeatureCounts(name=name, cells=now, below=draw(counted), above=draw(counted), missing=1)


@settings(deadline=None)
@given(st.lists(columns(), max_size=8, unique_by=lambda pair: pair[0].name))
def test_all_columns_at_once_give_what_each_gives_alone(pairs: list[tuple[NumericProfile, FeatureCounts]]) -> None:
    category = CategoricalProfile(name="kind", counts={"a": 3}, missing=0)
    profiles = [category, *(profile for profile, _ in pairs)]
    counts = [FeatureCounts(name="kind", cells=(4,)), *(counts for _, counts in pairs)]

    moves = NumericReference(profiles).moves(counts)

    assert list(moves) == [profile.name for profile, _ in pairs]
    for profile, current in pairs:
        alone, found = of_one_column(profile, current), moves[profile.name]
        for field in ("distance", "p_value", "shift", "reference_median", "median", "effect"):
            expected = getattr(alone, field)
            assert getattr(found, field) == (expected if expected is None else pytest.approx(expected, abs=1e-12)), (
                field,
                profile,
                current,
            )
