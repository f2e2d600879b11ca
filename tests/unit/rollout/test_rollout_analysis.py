"""Does the test hold its false-alarm rate under constant looking, and see harm?"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from airflow_dlaws.rollout.analysis import Minute, Verdict, judge
from airflow_dlaws.rollout.plan import RolloutPlan, Strategy

PLAN = RolloutPlan()


def minute(start: int, green: tuple[int, int] = (0, 0), blue: tuple[int, int] = (0, 0)) -> Minute:
    return Minute(
        start=start, green_requests=green[0], green_errors=green[1], blue_requests=blue[0], blue_errors=blue[1]
    )


def draw(random_: random.Random, requests: int, rate: float) -> int:
    return sum(random_.random() < rate for _ in range(requests))


def rolled_back_after(
    random_: random.Random, rate: Callable[[int], float], ratio: float, *, green: int, blue: int, minutes: int
) -> int | None:
    """Look each minute; return the minute of the rollback, or None."""
    seen = []
    for n in range(minutes):
        greens = draw(random_, green, min(1.0, rate(n) * ratio))
        seen.append(minute(n * 60, (green, greens), (blue, draw(random_, blue, rate(n)))))
        if judge(PLAN, seen, began=0).verdict is Verdict.HARM:
            return n + 1
    return None


def share_rolled_back(ratio: float, rate: Callable[[int], float], *, runs: int, **traffic: int) -> float:
    random_ = random.Random(20261123)
    results = [rolled_back_after(random_, rate, ratio, **traffic) for _ in range(runs)]
    return sum(result is not None for result in results) / runs


@pytest.mark.parametrize(("green", "blue"), [(30, 30), (6, 54)], ids=["half of the traffic", "a tenth of the traffic"])
def test_a_healthy_model_is_seldom_rolled_back_though_we_look_every_minute(green: int, blue: int) -> None:
    # A fixed seed: nothing here is left to chance; the long run of this is the benchmark's.
    assert share_rolled_back(1.0, lambda _: 0.02, runs=120, green=green, blue=blue, minutes=30) <= 0.05


def test_a_burst_of_errors_that_hits_both_fleets_is_no_harm() -> None:
    def burst(n: int) -> float:
        return 0.4 if n % 10 in (3, 4) else 0.01

    assert share_rolled_back(1.0, burst, runs=120, green=20, blue=60, minutes=30) <= 0.05


def test_looking_within_a_minute_costs_nothing_either() -> None:
    random_ = random.Random(7)
    alarms = 0
    for _ in range(120):
        done: list[Minute] = []
        for n in range(15):
            counts = [0, 0, 0, 0]
            for _ in range(6):
                counts[0] += 5
                counts[1] += draw(random_, 5, 0.03)
                counts[2] += 10
                counts[3] += draw(random_, 10, 0.03)
                now = minute(n * 60, (counts[0], counts[1]), (counts[2], counts[3]))
                if judge(PLAN, [*done, now], began=0).verdict is Verdict.HARM:
                    alarms += 1
                    break
            else:
                done.append(now)
                continue
            break
    assert alarms / 120 <= 0.05


def test_five_times_the_errors_are_found_within_the_bake() -> None:
    detected = share_rolled_back(5.0, lambda _: 0.01, runs=40, green=60, blue=540, minutes=10)
    assert detected >= 0.95


def test_a_model_that_fails_a_third_of_its_requests_is_found_in_a_handful_of_them() -> None:
    seen = [minute(0, (12, 4), (108, 0))]
    evidence = judge(PLAN, seen, began=0, now=120)
    assert evidence.verdict is Verdict.HARM
    assert "4 of 12" in evidence.reason
    assert "0 of 108" in evidence.reason
    # A minute that may still fill needs two failures more.
    assert judge(PLAN, seen, began=0, now=119).verdict is Verdict.INCONCLUSIVE
    assert judge(PLAN, [minute(0, (12, 6), (108, 0))], began=0, now=30).verdict is Verdict.HARM


def test_too_few_requests_give_no_verdict() -> None:
    evidence = judge(PLAN, [minute(0, (49, 0), (400, 0))], began=0)
    assert evidence.verdict is Verdict.INCONCLUSIVE
    assert "min_requests=50" in evidence.reason
    assert judge(PLAN, [minute(0, (50, 0), (400, 0))], began=0).verdict is Verdict.NO_HARM_SEEN


def test_no_data_at_all_is_inconclusive() -> None:
    assert judge(PLAN, [], began=0).verdict is Verdict.INCONCLUSIVE


def test_requests_that_have_no_counterpart_prove_nothing() -> None:
    alone = [minute(n * 60, green=(100, 50)) for n in range(5)]
    evidence = judge(PLAN, alone, began=0)
    assert (evidence.verdict, evidence.compared_requests) == (Verdict.INCONCLUSIVE, 0)
    assert evidence.green_errors == 250


def test_all_at_once_is_compared_with_the_blue_of_before() -> None:
    plan = RolloutPlan(strategy=Strategy.ALL_AT_ONCE)
    past = [minute(n * 60, blue=(100, 1)) for n in range(10)]
    healthy = [minute(600 + n * 60, green=(100, 1)) for n in range(3)]
    bad = [minute(600 + n * 60, green=(100, 40)) for n in range(3)]
    assert judge(plan, past + healthy, began=600).verdict is Verdict.NO_HARM_SEEN
    assert judge(plan, past + bad, began=600).verdict is Verdict.HARM
    assert judge(plan, bad, began=600).verdict is Verdict.INCONCLUSIVE


def test_errors_whose_requests_have_not_arrived_yet_do_not_count() -> None:
    late = minute(0, green=(2, 3), blue=(100, 0))
    assert judge(PLAN, [late], began=0).compared_requests == 0
