"""Many looks: what they judge, what they spend, and how rarely they cry wolf."""

import json
import math
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_dlaws.drift.build import build_profile
from airflow_dlaws.drift.comparison import Family
from airflow_dlaws.drift.counts import FeatureCounts, TrafficCounts
from airflow_dlaws.drift.sequence import Evidence, advance, judged_together
from airflow_dlaws.drift.settings import DriftSettings
from airflow_dlaws.drift.spending import alpha_of, family_shares, share_of_look
from airflow_dlaws.drift.verdict import DriftOutcome
from airflow_dlaws.jobs.wire import from_json, to_json

ROWS = 100
LOOSE = DriftSettings(min_effect=0, min_rows=1)


@pytest.fixture(scope="module")
def normal():
    """A profile of one standard normal column."""
    values = np.random.default_rng(0).normal(size=2000)
    return build_profile({"x": values}, created=datetime(2026, 1, 1, tzinfo=UTC))


def window(profile, values):
    """Count values of a profile with one numeric column."""
    (column,) = profile.features
    below, above = values < column.low, values > column.high
    cells = np.bincount(np.digitize(values[~below & ~above], column.edges), minlength=len(column.counts))
    counts = FeatureCounts(name="x", cells=tuple(cells.tolist()), below=int(below.sum()), above=int(above.sum()))
    return TrafficCounts(rows=len(values), features=(counts,))


def looks(profile, windows, settings=LOOSE):
    """Yield each verdict of a sequence of windows."""
    evidence = Evidence()
    for values in windows:
        evidence, verdict = advance(profile, evidence, window(profile, values), settings)
        yield verdict


@given(st.floats(0.001, 0.5), st.sampled_from([1, 2, 16, 64]), st.integers(1, 2000))
def test_all_tests_of_all_looks_spend_at_most_alpha(alpha, longest, number):
    spent = 0.0
    for look in range(1, number + 1):
        spent += alpha_of(alpha, look, 1, longest)
        length = 2
        while length <= min(longest, look) and look % (length // 2) == 0:
            spent += alpha_of(alpha, look, length, longest)
            length *= 2
    assert 0 < spent < alpha


def test_the_shares_of_looks_fall_and_telescope():
    shares = [share_of_look(number) for number in range(1, 1001)]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1 - math.log(20) / math.log(1020))
    with pytest.raises(ValueError, match="counted from 1"):
        share_of_look(0)


@given(st.sets(st.sampled_from(list(Family)), min_size=1))
def test_families_share_all_of_alpha_whichever_are_there(families):
    shares = family_shares(families)
    assert set(shares) == families
    assert sum(shares.values()) == pytest.approx(1)


@settings(max_examples=25, deadline=None)
@given(number=st.integers(1, 40), longest=st.sampled_from([1, 2, 4, 16]))
def test_a_look_judges_exactly_the_last_windows_together(normal, number, longest):
    evidence, sizes = Evidence(), [look % 7 + 1 for look in range(number)]
    for look, rows in enumerate(sizes, start=1):
        counted = window(normal, np.full(rows, 0.1))
        evidence, verdict = advance(normal, evidence, counted, DriftSettings(min_rows=1, longest=longest, min_effect=9))
        assert verdict.windows <= longest
        assert verdict.rows == sum(sizes[look - verdict.windows : look])
        due = [2**k for k in range(10) if 2**k <= min(look, longest) and look % max(1, 2**k // 2) == 0]
        assert verdict.windows == max(due)
        assert verdict.alpha_spent == pytest.approx(sum(alpha_of(0.05, look, length, longest) for length in due))
    assert evidence.looks == number
    assert len(evidence.blocks) <= max(0, longest.bit_length() - 1)


def test_a_weak_drift_that_no_window_shows_alone_is_found_in_many(normal):
    generator = np.random.default_rng(4)
    verdicts = list(looks(normal, (generator.normal(0.15, size=ROWS) for _ in range(64))))
    first = next(verdict for verdict in verdicts if verdict.is_drift)
    assert first.windows > 1
    assert f"over the last {first.windows} windows" in first.reason
    assert first.rows == first.windows * ROWS


def test_what_a_verdict_judged_can_be_had_for_its_report(normal):
    generator, evidence = np.random.default_rng(4), Evidence()
    for _ in range(40):
        counted = window(normal, generator.normal(0.15, size=ROWS))
        before, (evidence, verdict) = evidence, advance(normal, evidence, counted, LOOSE)
        assert judged_together(before, counted, verdict.windows).rows == verdict.rows == verdict.windows * ROWS
        assert set(verdict.effects) == {"x"}


def test_lengths_can_change_between_two_looks_and_no_window_counts_twice_or_out_of_turn(normal):
    evidence, sizes = Evidence(), list(range(1, 25))
    for look, rows in enumerate(sizes, start=1):
        rule = DriftSettings(min_rows=1, min_effect=9, longest=1 if 6 < look < 12 else 8)
        evidence, verdict = advance(normal, evidence, window(normal, np.full(rows, 0.1)), rule)
        assert verdict.rows == sum(sizes[look - verdict.windows : look])


def test_a_strong_drift_is_told_by_the_first_window_that_has_it_after_any_number_of_healthy_ones(normal):
    generator = np.random.default_rng(6)
    healthy = [generator.normal(size=ROWS) for _ in range(200)]
    *before, last = looks(normal, [*healthy, generator.normal(1.5, size=ROWS)])
    assert not any(verdict.is_drift for verdict in before)
    assert (last.outcome, last.windows, last.look) == (DriftOutcome.DRIFT, 1, 201)
    assert "(look 201)" in last.reason


def test_a_window_that_cannot_be_read_is_no_look_and_leaves_no_trace(normal):
    evidence, _ = advance(normal, Evidence(), window(normal, np.zeros(5)), LOOSE)
    lost = TrafficCounts(features=window(normal, np.zeros(0)).features, faults={"bad_json": 50})
    after, verdict = advance(normal, evidence, lost, LOOSE)
    assert after == evidence
    assert (verdict.outcome, verdict.look) == (DriftOutcome.INCONCLUSIVE, 1)


def test_persistence_waits_for_as_many_looks_as_asked(normal):
    rule = DriftSettings(min_rows=1, persistence=2, persistence_of=3, longest=1)
    generator = np.random.default_rng(7)
    means = [0, 2, 0, 0, 0, 2, 0, 2, 0]
    verdicts = list(looks(normal, [generator.normal(mean, size=ROWS) for mean in means], rule))
    assert [verdict.is_drift for verdict in verdicts] == [mean == 2 and at == 7 for at, mean in enumerate(means)]
    assert "Not told yet: 1 of the last" in verdicts[1].reason
    assert verdicts[1].drifted == ("x",)


def test_evidence_survives_json(normal):
    evidence = Evidence()
    for values in np.random.default_rng(8).normal(size=(5, 30)):
        evidence, _ = advance(normal, evidence, window(normal, values), LOOSE)
    assert from_json(Evidence, json.loads(json.dumps(to_json(evidence)))) == evidence


def test_hundreds_of_looks_at_healthy_traffic_hardly_ever_alarm():
    # The effect is switched off, so the spending of alpha alone has to keep the promise. 20 endpoints with references
    # of their own at alpha 0.1: two expected at most; seven or more would have a chance of 0.2 % (binomial).
    generator = np.random.default_rng(9)
    rule = DriftSettings(alpha=0.1, min_effect=0, min_rows=1)
    alarms = 0
    for _ in range(20):
        profile = build_profile({"x": generator.normal(size=300)}, created=datetime(2026, 1, 1, tzinfo=UTC))
        stream = (generator.normal(size=30) for _ in range(300))
        alarms += any(verdict.is_drift for verdict in looks(profile, stream, rule))
    assert alarms <= 6
