"""Does the forecast of a canary's power agree with simulated canaries?"""

from __future__ import annotations

import math
import random

import pytest

from airflow_dlaws.rollout.analysis import Judgement, Minute
from airflow_dlaws.rollout.plan import RolloutPlan, Strategy
from airflow_dlaws.rollout.power import forecast
from airflow_dlaws.rollout.stakes import Traffic, growth, stakes_of

PLAN = RolloutPlan(judge_latency=False, wait_seconds=1200)


def poisson(random_: random.Random, mean: float) -> int:
    bar, product, count = math.exp(-mean), random_.random(), 0
    while product > bar:
        product *= random_.random()
        count += 1
    return count


def simulated_power(harm: float, *, green: int, blue: int, rate: float, minutes: int, runs: int = 150) -> float:
    random_, found = random.Random(20261128), 0
    for _ in range(runs):
        traffic = Traffic(requests_per_minute=green + blue, error_rate=rate)
        judgement = Judgement(PLAN, None, stakes_of(PLAN, traffic))
        for n in range(minutes):
            failed = min(green, poisson(random_, green * rate * harm)), min(blue, poisson(random_, blue * rate))
            judgement.add(
                Minute(
                    start=n * 60,
                    green_requests=green,
                    green_errors=failed[0],
                    blue_requests=blue,
                    blue_errors=failed[1],
                )
            )
            if judgement.log_evidence >= -math.log(PLAN.alpha):
                found += 1
                break
    return found / runs


@pytest.mark.parametrize(("harm", "rate"), [(2.0, 0.01), (3.0, 0.01), (2.0, 0.03)])
def test_the_forecast_agrees_with_simulation_within_a_tenth(harm: float, rate: float) -> None:
    told = forecast(PLAN, Traffic(requests_per_minute=600, error_rate=rate), harm=harm)
    assert told.power == pytest.approx(simulated_power(harm, green=60, blue=540, rate=rate, minutes=20), abs=0.1)


def test_more_traffic_needs_less_time() -> None:
    needed = [
        forecast(PLAN, Traffic(requests_per_minute=rate, error_rate=0.01)).minutes_needed for rate in (300, 600, 6000)
    ]
    assert None not in needed
    assert sorted(needed, reverse=True) == needed


def test_a_trickle_of_traffic_is_told_to_be_too_little() -> None:
    told = forecast(PLAN, Traffic(requests_per_minute=1, error_rate=0.001))
    assert (told.minutes_needed, told.power) == (None, pytest.approx(0.0, abs=0.05))
    assert "it takes more than a day" in told.sentence


def test_all_at_once_is_forecast_by_the_whole_traffic() -> None:
    plan = RolloutPlan(strategy=Strategy.ALL_AT_ONCE, termination_wait_seconds=600)
    traffic = Traffic(requests_per_minute=100, error_rate=0.02)
    assert forecast(plan, traffic).green_requests_per_minute == 100
    assert forecast(plan, traffic).power > forecast(PLAN, traffic).power


def test_bets_begin_where_the_bake_can_prove_harm_and_all_is_bet_whatever_the_traffic() -> None:
    hour = RolloutPlan(wait_seconds=3600)
    busy, quiet = (stakes_of(hour, Traffic(requests_per_minute=rate, error_rate=0.01)) for rate in (600, 60))
    assert busy == stakes_of(hour, None)
    assert busy.first_harm == pytest.approx(1.65)
    assert 2.4 < quiet.first_harm < 3.0
    assert growth(quiet.first_harm, 6, 54, 0.01) * 60 >= math.log(20)
    assert quiet.shares({"errors": 1, "latency": 1}) == pytest.approx({"errors": 0.55, "latency": 0.45})
    for stakes in (busy, quiet):
        assert sum(stakes.shares(dict.fromkeys(("errors", "latency", "predictions", "business"))).values()) == (
            pytest.approx(1.0)
        )


def test_a_rolling_update_sees_what_its_first_batch_is_given() -> None:
    rolling = RolloutPlan(strategy=Strategy.ROLLING, instance_count=4, maximum_batch_percent=40, wait_seconds=600)
    linear = RolloutPlan(strategy=Strategy.LINEAR, linear_step_percent=25, wait_seconds=600)
    traffic = Traffic(requests_per_minute=600, error_rate=0.01)
    assert forecast(rolling, traffic) == forecast(linear, traffic)
    assert forecast(rolling, traffic).green_requests_per_minute == 150
