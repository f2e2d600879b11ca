"""More evidence for drift never turns drift into anything milder: stronger changes, more of them, more rows, others."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_dlaws.drift.build import build_profile
from airflow_dlaws.drift.counts import FeatureCounts, TrafficCounts
from airflow_dlaws.drift.outside import OutsideFinding, OutsideOutcome, conclude
from airflow_dlaws.drift.profile import ReferenceProfile
from airflow_dlaws.drift.settings import DriftSettings
from airflow_dlaws.drift.verdict import DriftOutcome, assess, inconclusive

ROWS = 400
RULE = DriftSettings(min_rows=50)
#: What happens to rows, by column: they leave the lowest cells, or the first categories, for one of these.
NUMBER, CATEGORY = ("highest", "above", "below", "missing"), ("last", "unseen", "missing")


def made() -> ReferenceProfile:
    """Return the profile of two numbers, a category and a model's probabilities."""
    generator = np.random.default_rng(1)
    table = {"x": generator.normal(size=1200), "y": generator.integers(0, 6, 1200).astype(float)}
    kinds = generator.choice(list("abcd"), 1200, p=[0.4, 0.3, 0.2, 0.1])
    return build_profile(
        {**table, "kind": kinds.tolist()}, categorical={"kind"}, created=datetime(2026, 1, 1, tzinfo=UTC),
        answers=generator.dirichlet([2, 1, 1], 1200), classes="abc",
    )  # fmt: skip


PROFILE = made()
COLUMNS = [(column.name, NUMBER if hasattr(column, "edges") else CATEGORY) for column in PROFILE.watched]

changes = st.fixed_dictionaries(
    {name: st.dictionaries(st.sampled_from(ways), st.integers(0, ROWS // 8), max_size=2) for name, ways in COLUMNS}
)


def counts_of(change: dict[str, dict[str, int]]) -> TrafficCounts:
    """Return the counts of rows as the reference has them, of which some have changed."""
    columns = []
    for column in PROFILE.watched:
        cells = column.counts if hasattr(column, "edges") else [column.counts[key] for key in sorted(column.counts)]
        columns.append(moved(column.name, proportional(cells), change[column.name]))
    return TrafficCounts(rows=ROWS, features=tuple(columns))


def proportional(cells: list[int]) -> list[int]:
    """Return ROWS rows in the proportions of the cells."""
    upto = np.round(np.cumsum(cells) * ROWS / sum(cells)).astype(int)
    return np.diff(upto, prepend=0).tolist()


def moved(name: str, cells: list[int], ways: dict[str, int]) -> FeatureCounts:
    taken = sum(ways.values())
    for at in range(len(cells) - 1):
        rows = min(cells[at], taken)
        cells[at], taken = cells[at] - rows, taken - rows
    out = {way: rows for way, rows in ways.items() if way not in {"highest", "last"}}
    cells[-1] += sum(ways.values()) - sum(out.values()) - taken
    return FeatureCounts(name=name, cells=tuple(cells), **out)


@settings(deadline=None, max_examples=200)
@given(changes, changes)
def test_drift_stays_drift_where_more_rows_change_in_more_columns(change, more):
    stronger = {
        name: {way: ways.get(way, 0) + more[name].get(way, 0) for way in {*ways, *more[name]}}
        for name, ways in change.items()
    }
    if assess(PROFILE, counts_of(change), RULE).is_drift:
        assert assess(PROFILE, counts_of(stronger), RULE).is_drift


@settings(deadline=None, max_examples=100)
@given(changes, st.integers(2, 50))
def test_what_is_significant_stays_so_with_more_rows_of_the_same_kind(change, times):
    rule = dataclasses.replace(RULE, min_effect=0, min_tail=0)
    counts = counts_of(change)
    if assess(PROFILE, counts, rule).is_drift:
        more = counts
        for _ in range(times - 1):
            more = more + counts
        assert assess(PROFILE, more, rule).is_drift


@settings(deadline=None, max_examples=50)
@given(changes, st.integers(0, 2000))
def test_rows_that_cannot_be_read_make_drift_inconclusive_and_never_no_drift(change, lost):
    counts = counts_of(change)
    if assess(PROFILE, counts, RULE).is_drift:
        with_lost = dataclasses.replace(counts, faults={"bad_csv": lost})
        assert assess(PROFILE, with_lost, RULE).outcome in {DriftOutcome.DRIFT, DriftOutcome.INCONCLUSIVE}


findings = st.builds(
    OutsideFinding, source=st.just("other"), outcome=st.sampled_from(OutsideOutcome), decides=st.booleans(),
    sentence=st.just("It says so"),
)  # fmt: skip


@given(st.sampled_from(DriftOutcome), st.lists(findings, max_size=4), findings, st.booleans())
def test_one_more_voice_never_silences_drift_and_one_that_has_crossed_never_calms(outcome, others, one, has_data):
    verdict = dataclasses.replace(inconclusive("seen", counts_of({name: {} for name, _ in COLUMNS}), look=1),
                                  outcome=outcome if has_data else DriftOutcome.INCONCLUSIVE)  # fmt: skip
    order = [DriftOutcome.NO_DRIFT, DriftOutcome.INCONCLUSIVE, DriftOutcome.DRIFT]
    before, _ = conclude(verdict, others, has_data=has_data)
    after, _ = conclude(verdict, [*others, one], has_data=has_data)
    if before is DriftOutcome.DRIFT:
        assert after is DriftOutcome.DRIFT
    if others and one.outcome is OutsideOutcome.CROSSED:
        assert order.index(after) >= order.index(before)
