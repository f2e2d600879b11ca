"""Pairs of answers: what counts as the same, and a gate that keeps both its promises however often it is looked at."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.wire import from_json, to_json
from airflow_dlaws.rollout.agreement import AgreementMeter, AnswerPair, compared, pairs_needed
from airflow_dlaws.rollout.analysis import Minute
from airflow_dlaws.rollout.plan import RolloutPlan
from airflow_dlaws.rollout.shadow import ShadowEvidence, ShadowVerdict, judge_shadow, shadow_forecast
from airflow_dlaws.rollout.stakes import Traffic

PLAN = RolloutPlan(shadow_seconds=600, smallest_agreement=0.9, alpha=0.05, min_requests=20)
BAR = math.log(1 / PLAN.alpha)
RANDOM = random.Random(20261129)


def pair(production: object, shadow: object, event: str = "e") -> AnswerPair:
    return AnswerPair(event=event, production=(production,), shadow=(shadow,))


@pytest.mark.parametrize(
    ("production", "shadow", "agree"),
    [
        ("cat", "cat\n", True),
        ("cat", "dog", False),
        ("3", 3, True),
        ("3", "4", False),
        ("0.51", "0.99", True),
        ("0.49", "0.51", False),
        (100.0, 104.5, True),
        (100.0, 106.5, False),
        (["0.2", "0.8"], ["0.45", "0.55"], True),
        ([0.2, 0.8], [0.6, 0.4], False),
        ([10.5, 20.5], [10.6, 20.4], True),
        ([10.5, 20.5], [10.6, 25.5], False),
        ([1, 2], [1, 2, 3], False),
        ({"label": "cat", "score": 0.9}, {"label": "cat", "score": 0.6}, True),
        ({"prediction": 7.5, "id": 1}, {"prediction": 7.6, "id": 2}, True),
        ({"served_by": "blue"}, {"served_by": "green"}, False),
        ({"served_by": "blue"}, {"answer": "blue"}, False),
        ("nan", "nan", True),
        ("nan", 1.5, False),
        ("Infinity", 1.5, False),
        (math.inf, -math.inf, False),
        (math.inf, "Infinity", True),
        (None, None, True),
        (True, True, True),
    ],
)
def test_answers_agree_where_they_say_the_same(production: object, shadow: object, agree: bool) -> None:
    assert (compared(pair(production, shadow), 0.05)[0] == 0) is agree
    assert (compared(pair(shadow, production), 0.05)[0] == 0) is agree


def test_a_request_of_many_rows_is_one_pair_that_may_disagree_in_part() -> None:
    many = AnswerPair(event="e", production=("a", "b", "c", "d"), shadow=("a", "b", "c", "x"))
    assert compared(many, 0.05) == (0.25, 1.0)
    assert compared(AnswerPair(event="e", production=("a", "b"), shadow=("a",)), 0.05)[0] == 1.0


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1), st.lists(st.sampled_from(["a", "b", "c"]), min_size=1))
def test_labels_are_never_further_apart_than_their_pairs_disagree(production: list[str], shadow: list[str]) -> None:
    meter = AgreementMeter(0.9, 0.05)
    for left, right in zip(production, shadow, strict=False):
        meter.add(pair(left, right))
    found = meter.evidence
    assert found.distance <= found.disagreements / found.pairs + 1e-9


def test_numbers_are_apart_by_the_largest_step_between_their_distributions() -> None:
    meter = AgreementMeter(0.9, 0.05)
    for n in range(100):
        meter.add(pair(n + 0.5, n + 20.5))
    assert meter.evidence.distance == pytest.approx(0.2)


def shares_reached(disagreement: Callable[[], float], *, runs: int) -> tuple[float, float]:
    """Draw 300 pairs in each run and look after each; return how often "worse" and "better" were ever proven."""
    ever = [0, 0]
    for _ in range(runs):
        meter = AgreementMeter(PLAN.smallest_agreement, 0.05)
        proven = [False, False]
        for _ in range(300):
            meter.add(pair("a", "x" if RANDOM.random() < disagreement() else "a"))
            proven = [proven[0] or meter.log_worse >= BAR, proven[1] or meter.log_better >= BAR]
        ever = [count + found for count, found in zip(ever, proven, strict=True)]
    return ever[0] / runs, ever[1] / runs


def test_a_shadow_that_just_agrees_enough_is_rarely_found_worse_or_better_however_often_one_looks() -> None:
    runs = 300
    # At most alpha = 0.05 each; three standard deviations of the draws above it.
    assert max(shares_reached(lambda: 0.1, runs=runs)) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def test_rates_that_move_from_pair_to_pair_are_no_loophole() -> None:
    runs, rates = 200, itertools.cycle([0.0, 0.2])
    assert max(shares_reached(lambda: next(rates), runs=runs)) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def test_a_shadow_far_from_the_bar_is_told_soon() -> None:
    assert shares_reached(lambda: 0.25, runs=40)[0] >= 0.95
    assert shares_reached(lambda: 0.02, runs=40)[1] >= 0.95


def minutes(errors: int = 0, requests: int = 100) -> list[Minute]:
    return [Minute(start=0, green_requests=requests, green_errors=errors, blue_requests=requests, blue_errors=0)]


def judged(agreeing: int, differing: int = 0, found: list[Minute] | None = None) -> ShadowEvidence:
    meter = AgreementMeter(PLAN.smallest_agreement, PLAN.agreement_tolerance)
    for n in range(agreeing + differing):
        meter.add(pair("a", "a" if n < agreeing else "b", event=f"id-{n}"))
    return judge_shadow(PLAN, found or minutes(), meter.evidence, began=0, latency=None)


def test_only_proven_agreement_passes() -> None:
    needed = pairs_needed(PLAN.smallest_agreement, PLAN.alpha)
    assert judged(needed).verdict is ShadowVerdict.GOOD
    few = judged(needed // 2)
    assert few.verdict is ShadowVerdict.INCONCLUSIVE
    assert f"it takes {needed} different requests" in few.reason
    between = judged(90, 10)
    assert between.verdict is ShadowVerdict.INCONCLUSIVE
    assert "90.0% of the answers to 100 different requests agree" in between.reason


def test_too_much_disagreement_is_worse_and_the_worst_pairs_are_shown() -> None:
    found = judged(50, 50)
    assert found.verdict is ShadowVerdict.WORSE
    assert "50.0% of the answers to 100 different requests agree" in found.reason
    assert "id-50: a became b" in found.reason
    assert len(found.answers.worst) == 5
    assert from_json(ShadowEvidence, json.loads(json.dumps(to_json(found)))) == found


def test_the_widest_gaps_are_shown_first() -> None:
    meter = AgreementMeter(0.9, 0.05)
    for n in range(50):
        meter.add(pair(0.4, 0.5 + n / 100, event=str(n)))
    gaps = [float(one.shadow) for one in meter.evidence.worst]
    assert gaps[0] == pytest.approx(0.99)
    assert all(left >= right for left, right in itertools.pairwise(gaps))


def test_a_shadow_that_fails_is_worse_whatever_it_answers_else() -> None:
    found = judged(100, found=minutes(errors=30))
    assert found.verdict is ShadowVerdict.WORSE
    assert "green failed 30 of 100 requests" in found.reason


def test_a_plan_that_no_shadow_can_pass_is_refused_at_once() -> None:
    with pytest.raises(SpecificationError, match="min_requests=60000, and at most 50000 requests of a shadow"):
        dataclasses.replace(PLAN, min_requests=60_000)
    with pytest.raises(SpecificationError, match="change alpha"):
        dataclasses.replace(PLAN, alpha=1e-6)
    strict = dataclasses.replace(PLAN, alpha=2e-6)
    meter = AgreementMeter(PLAN.smallest_agreement, PLAN.agreement_tolerance)
    assert judge_shadow(strict, minutes(), meter.evidence, began=0, latency=None).verdict is ShadowVerdict.INCONCLUSIVE


def test_pairs_alone_are_no_verdict_on_errors_and_no_pairs_are_none_on_answers() -> None:
    assert judged(100, found=minutes(requests=5)).verdict is ShadowVerdict.INCONCLUSIVE
    nothing = judged(0)
    assert (nothing.verdict, "no request was captured" in nothing.reason) == (ShadowVerdict.INCONCLUSIVE, True)


def test_what_the_shadow_will_not_see_is_told_beforehand() -> None:
    assert shadow_forecast(PLAN, Traffic(requests_per_minute=60, error_rate=0.0)) == ""
    assert "raise shadow_seconds" in shadow_forecast(PLAN, Traffic(requests_per_minute=1, error_rate=0.0))
