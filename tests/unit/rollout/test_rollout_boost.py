"""Does evidence that is boosted towards its bar keep its promise, and does it find harm sooner?"""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_dlaws.rollout.boost import draws, log_boost
from airflow_dlaws.rollout.harm import Alternative, CellCounts, Meter, PatientMeter, error_alternatives
from airflow_dlaws.rollout.shifts import ShareBounds

BAR = math.log(20)
#: Requests of green and of blue, and how many of both fail.
Draw = tuple[int, int, int]
#: How many requests a fleet may have in a minute that can be counted out.
few = st.integers(1, 12)


def counts(minute: Draw, failed: int) -> CellCounts:
    green, blue, drawn = minute
    return CellCounts((failed,), (drawn - failed,), green, blue)


@st.composite
def minutes(draw: st.DrawFn) -> list[Draw]:
    splits = draw(st.lists(st.tuples(few, few), min_size=1, max_size=4))
    return [(green, blue, draw(st.integers(0, min(5, green + blue)))) for green, blue in splits]


def chance_of_an_alarm(meter: Meter, splits: list[Draw]) -> float:
    """Return the chance that a healthy green's evidence reaches the bar in one of the minutes: all are counted out."""
    if meter.log_evidence >= BAR:
        return 1.0
    if not splits:
        return 0.0
    (green, blue, drawn), *later = splits
    total = 0.0
    for failed in range(max(0, drawn - blue), min(drawn, green) + 1):
        chance = math.comb(green, failed) * math.comb(blue, drawn - failed) / math.comb(green + blue, drawn)
        after = copy.deepcopy(meter)
        after.add(counts(splits[0], failed))
        total += chance * chance_of_an_alarm(after, later)
    return total


@settings(deadline=None, max_examples=60)
@given(splits=minutes(), first=st.floats(1.1, 4.0), head_start=st.floats(0.0, BAR - 0.01))
def test_a_healthy_model_reaches_the_bar_no_oftener_than_was_allowed(
    splits: list[Draw], first: float, head_start: float
) -> None:
    weights = [(each.weight * math.exp(head_start), each.ratios) for each in error_alternatives(first)]
    alternatives = [Alternative(weight=weight, ratios=ratios) for weight, ratios in weights]
    boosted = chance_of_an_alarm(Meter(alternatives, BAR), splits)
    assert boosted <= math.exp(head_start - BAR) * (1 + 1e-9)
    assert boosted >= chance_of_an_alarm(Meter(alternatives), splits) - 1e-12


def test_what_the_last_step_would_pass_the_bar_by_is_used_before() -> None:
    splits = [(4, 8, 3), (6, 6, 4), (3, 9, 5), (5, 7, 4)]
    plain, boosted = (chance_of_an_alarm(Meter(error_alternatives(2.0), bar), splits) for bar in (math.inf, BAR))
    assert 1.5 * plain < boosted <= 0.05


@given(green=few, blue=few, drawn=st.integers(0, 12), spare=st.floats(0.01, 5.0), ratio=st.floats(1.01, 9.0))
def test_the_boosted_step_that_is_cut_off_at_the_bar_has_an_expectation_of_one(
    green: int, blue: int, drawn: int, spare: float, ratio: float
) -> None:
    drawn, share = min(drawn, green + blue), green / (green + blue)
    outcomes = [
        (failed * math.log(ratio) - drawn * math.log1p(share * (ratio - 1)), chance)
        for failed, chance in draws(drawn, green, blue)
    ]
    assert sum(chance for _, chance in outcomes) == pytest.approx(1)
    boost = log_boost(outcomes, spare)
    assert boost >= -1e-9
    cut = sum(chance * math.exp(min(factor + boost, spare)) for factor, chance in outcomes)
    assert cut == pytest.approx(1)


def test_a_draw_of_millions_of_requests_has_chances_that_sum_to_one() -> None:
    assert sum(chance for _, chance in draws(200, 3_000_000, 27_000_000)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("spare", [1e-15, 1e-9, 1e-3, 2e-3])
def test_evidence_a_hair_below_the_bar_is_judged_however_many_requests_there_are(spare: float) -> None:
    meter = Meter([Alternative(weight=math.exp(BAR - spare), ratios=(2.0,))], BAR)
    meter.add(CellCounts((80,), (80,), 30_000_000, 30_000_000))
    assert math.isfinite(meter.log_evidence)


def test_minutes_in_which_traffic_moved_or_thousands_failed_are_not_boosted() -> None:
    moved = CellCounts((3,), (5,), 30, 100, ShareBounds(low=0.1, high=0.3))
    many = CellCounts((150,), (900,), 3000, 27_000)
    for minute in (moved, many):
        plain, boosted = Meter(error_alternatives(1.5)), Meter(error_alternatives(1.5), BAR)
        plain.add(minute)
        boosted.add(minute)
        assert boosted.log_evidence == plain.log_evidence


def test_a_minute_that_is_not_over_is_not_boosted_and_moves_a_tenth_of_the_bet() -> None:
    alternatives, before, filling = error_alternatives(1.65), counts((40, 60, 9), 6), counts((30, 70, 5), 4)
    over, plain, patient = (
        Meter(alternatives, BAR - math.log(0.9)),
        Meter(alternatives),
        PatientMeter(alternatives, BAR),
    )
    patient.add(before, is_over=True)
    patient.add(filling, is_over=False)
    over.add(before)
    plain.add(before)
    assert over.log_evidence > plain.log_evidence
    plain.add(filling)
    told = 0.9 * math.exp(over.log_evidence) + 0.1 * math.exp(plain.log_evidence)
    assert math.exp(patient.log_evidence) == pytest.approx(told)


@pytest.mark.parametrize(("green", "blue", "rate"), [(300, 2700, 0.01), (20, 20, 0.3)])
def test_looks_within_the_minute_give_no_healthy_model_more_chances_to_fail(green: int, blue: int, rate: float) -> None:
    random, runs, alarms = np.random.default_rng(20261130), 500, 0
    for _ in range(runs):
        meter = PatientMeter(error_alternatives(1.65), BAR)
        alarms += any(alarm_within(meter, random, green, blue, rate, looks=6) for _ in range(15))
    assert alarms / runs <= 0.05 + 1.5 * math.sqrt(0.05 * 0.95 / runs)


def alarm_within(
    meter: PatientMeter, random: np.random.Generator, green: int, blue: int, rate: float, looks: int
) -> bool:
    """Let a minute fill, look at it, and add it; tell whether it ever reached the bar."""
    greens = blues = failed = others = 0
    reached = False
    for look in range(looks):
        came = int(random.poisson(green / looks)), int(random.poisson(blue / looks))
        greens, blues = greens + came[0], blues + came[1]
        failed += int(random.binomial(came[0], rate))
        others += int(random.binomial(came[1], rate))
        if greens and blues:
            seen = copy.deepcopy(meter) if look < looks - 1 else meter
            seen.add(CellCounts((failed,), (others,), greens, blues), is_over=seen is meter)
            reached = reached or seen.log_evidence >= BAR
    return reached
