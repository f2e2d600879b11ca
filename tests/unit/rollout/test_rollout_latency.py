"""Is a slower green seen, and a healthy one left alone, when only counts above blue's quantiles are known?"""

from __future__ import annotations

import math
import random
from statistics import NormalDist

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.wire import from_json, to_json
from airflow_dlaws.rollout.analysis import Minute, Verdict, judge
from airflow_dlaws.rollout.harm import CellCounts, Meter, error_alternatives
from airflow_dlaws.rollout.latency import (
    LEVELS,
    LatencyReference,
    cells_of,
    latency_alternatives,
    reference_of,
)
from airflow_dlaws.rollout.plan import RolloutPlan

PLAN = RolloutPlan(latency_warm_up_seconds=0)
SIGMA = 0.5
REFERENCE = LatencyReference(
    levels=LEVELS,
    thresholds=tuple(40_000 * math.exp(SIGMA * NormalDist().inv_cdf(level)) for level in LEVELS),
    answers=5000,
)


def simulated(random_: random.Random, start: int, *, green: int, blue: int, slowdown: float) -> Minute:
    def over(answers: int, factor: float) -> tuple[int, ...]:
        times = [40_000 * factor * math.exp(SIGMA * random_.gauss(0, 1)) for _ in range(answers)]
        return tuple(sum(time > threshold for time in times) for threshold in REFERENCE.thresholds)

    return Minute(
        start=start, green_requests=green, blue_requests=blue, green_timed=green, blue_timed=blue,
        green_over=over(green, slowdown), blue_over=over(blue, 1.0),
    )  # fmt: skip


def rolled_back(seed: int, slowdown: float, minutes: int) -> bool:
    random_, seen = random.Random(seed), []
    for n in range(minutes):
        seen.append(simulated(random_, n * 60, green=20, blue=60, slowdown=slowdown))
        if judge(PLAN, seen, began=0, latency=REFERENCE).verdict is Verdict.HARM:
            return True
    return False


def test_a_model_as_fast_as_the_one_in_service_is_seldom_rolled_back() -> None:
    assert sum(rolled_back(seed, 1.0, 20) for seed in range(60)) <= 3


def test_a_model_a_fifth_slower_is_rolled_back_within_twenty_minutes() -> None:
    assert all(rolled_back(seed, 1.2, 20) for seed in range(20))


def test_the_verdict_says_that_it_is_latency_and_how_many_were_slow() -> None:
    random_ = random.Random(3)
    minutes = [simulated(random_, n * 60, green=60, blue=60, slowdown=1.5) for n in range(5)]
    evidence = judge(PLAN, minutes, began=0, latency=REFERENCE)
    assert evidence.verdict is Verdict.HARM
    assert "green is slower than blue by a factor of 1.2 or more" in evidence.reason
    assert f"{evidence.green_slow} of 300 answers of green" in evidence.reason


def test_where_only_the_typical_answer_is_slower_the_verdict_names_the_numbers_that_show_it() -> None:
    def over(median: int, slow: int) -> tuple[int, ...]:
        return tuple(median if level <= 0.5 else slow if level <= 0.95 else 0 for level in LEVELS)

    minutes = [
        Minute(
            start=n * 60, green_requests=100, blue_requests=100, green_timed=100, blue_timed=100,
            green_over=over(95, 2), blue_over=over(50, 5),
        )
        for n in range(5)
    ]  # fmt: skip
    reason = judge(PLAN, minutes, began=0, latency=REFERENCE).reason
    # By the slowest one in twenty green looks faster.
    assert "were 10 of 500 answers of green, 25 of 500 of blue" in reason
    assert "most plainly where 475 of 500 answers of green and 250 of 500 of blue took over" in reason


def test_without_a_reference_latency_says_nothing() -> None:
    random_ = random.Random(3)
    minutes = [simulated(random_, n * 60, green=60, blue=60, slowdown=3.0) for n in range(5)]
    evidence = judge(PLAN, minutes, began=0)
    assert (evidence.verdict, evidence.log_latency_evidence) == (Verdict.NO_HARM_SEEN, None)


def test_a_spell_that_slows_both_fleets_is_no_harm() -> None:
    random_ = random.Random(11)
    seen = []
    for n in range(30):
        factor = 4.0 if n % 5 == 0 else 1.0
        times = [[40_000 * factor * math.exp(SIGMA * random_.gauss(0, 1)) for _ in range(size)] for size in (20, 60)]
        green, blue = (tuple(sum(t > bar for t in row) for bar in REFERENCE.thresholds) for row in times)
        seen.append(
            Minute(
                start=n * 60,
                green_requests=20,
                blue_requests=60,
                green_timed=20,
                blue_timed=60,
                green_over=green,
                blue_over=blue,
            )
        )
        assert judge(PLAN, seen, began=0, latency=REFERENCE).verdict is not Verdict.HARM


@given(
    share=st.floats(0.01, 0.99),
    cells=st.lists(st.integers(0, 30), min_size=len(LEVELS) + 1, max_size=len(LEVELS) + 1),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=30, deadline=None)
def test_the_expected_evidence_of_a_healthy_minute_is_at_most_one(share: float, cells: list[int], seed: int) -> None:
    """For independent labels the expectation is exactly one, for every alternative: checked cell by cell."""
    for alternative in (*latency_alternatives(REFERENCE, 1.2),):
        for ratio in alternative.ratios:
            expectation = share * ratio / (share * ratio + 1 - share) + (1 - share) / (share * ratio + 1 - share)
            assert expectation == pytest.approx(1.0)
    meter = Meter(latency_alternatives(REFERENCE, 1.2))
    random_ = random.Random(seed)
    green = [sum(random_.random() < share for _ in range(count)) for count in cells]
    blue = [count - mine for count, mine in zip(cells, green, strict=True)]
    if sum(green) and sum(blue):
        meter.add(CellCounts(green, blue, sum(green), sum(blue)))
        assert math.isfinite(meter.log_evidence)


@pytest.mark.parametrize("smallest", [1.05, 1.5, 6.0, 20.0])
def test_the_weights_of_a_bet_sum_to_one(smallest: float) -> None:
    for alternatives in (error_alternatives(smallest), latency_alternatives(REFERENCE, smallest)):
        assert sum(alternative.weight for alternative in alternatives) == pytest.approx(1.0)
        assert all(ratio > 0 for alternative in alternatives for ratio in alternative.ratios)


def test_quantiles_that_coincide_are_merged_and_too_few_answers_make_no_reference() -> None:
    levels = (0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99)
    quantiles = dict(zip(levels, (10.0, 10.0, 10.0, 20.0, 20.0, 30.0, 40.0), strict=True))
    reference = reference_of(quantiles, 1000)
    assert reference is not None
    assert (reference.thresholds, reference.levels) == ((10.0, 20.0, 30.0, 40.0), (0.5, 0.9, 0.95, 0.99))
    assert reference_of(quantiles, 199) is None
    assert reference_of(dict.fromkeys(LEVELS, 10.0), 1000) is None


def test_counts_that_contradict_each_other_are_no_minute() -> None:
    assert cells_of(10, (8, 3)) == (2, 5, 3)
    assert cells_of(10, (3, 8)) is None
    assert cells_of(2, (3, 1)) is None


def test_a_reference_survives_the_state_file_and_refuses_nonsense() -> None:
    assert from_json(LatencyReference, to_json(REFERENCE)) == REFERENCE
    with pytest.raises(SpecificationError, match="must increase"):
        LatencyReference(levels=(0.5, 0.9), thresholds=(20.0, 10.0), answers=1000)


def test_the_first_minute_of_a_new_fleet_says_nothing_about_its_latency() -> None:
    random_ = random.Random(5)
    cold = simulated(random_, 0, green=60, blue=60, slowdown=5.0)
    warm = [simulated(random_, n * 60, green=60, blue=60, slowdown=1.0) for n in range(1, 5)]
    assert judge(RolloutPlan(), [cold, *warm], began=0, latency=REFERENCE).verdict is Verdict.NO_HARM_SEEN
    assert judge(PLAN, [cold, *warm], began=0, latency=REFERENCE).verdict is Verdict.HARM
