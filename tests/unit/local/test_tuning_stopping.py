"""The median rule as AWS documents it, and Hyperband's rungs."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.local.tuning.hyperband import HyperbandRule, inferred_resource, rungs
from airflow_dlaws.local.tuning.stopping import MedianRule, Running

#: Running averages: 1, 1 | 2, 2 | 3, 3.
COMPLETED = [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]


@pytest.mark.parametrize(
    ("minimize", "series", "stops"),
    [
        (True, [2.0], False),  # no worse than the median
        (True, [2.1], True),
        (True, [1.0, 2.5], True),
        (False, [2.1], False),
        (False, [1.9], True),
    ],
)
def test_a_value_worse_than_the_median_of_the_running_averages_stops_the_job(
    minimize: bool, series: list[float], stops: bool
) -> None:
    assert MedianRule(minimize=minimize).stops(Running(number=9, series=series), COMPLETED) is stops


def test_the_average_is_that_up_to_the_same_epoch() -> None:
    falling = [[9.0, 1.0], [9.0, 1.0], [9.0, 1.0]]
    rule = MedianRule(minimize=True)
    assert not rule.stops(Running(number=9, series=[8.0]), falling)
    assert not rule.stops(Running(number=9, series=[8.0, 5.0]), falling)
    assert rule.stops(Running(number=9, series=[8.0, 5.0, 5.1]), falling)


def test_two_completed_jobs_have_no_median_yet() -> None:
    assert not MedianRule(minimize=True).stops(Running(number=9, series=[100.0]), COMPLETED[:2])


def test_rungs_are_powers_of_three_below_the_most() -> None:
    assert rungs(1, 27) == [1, 3, 9]
    assert rungs(2, 20) == [2, 6, 18]


def hyperband(finals: list[float], most: int = 9) -> dict[int, int]:
    """Run jobs whose value is constant, one epoch at a time in turn; return the epochs that each was given."""
    rule = HyperbandRule(least=1, most=most, minimize=True)
    used = dict.fromkeys(range(len(finals)), 0)
    running = set(used)
    while running:
        for number in sorted(running):
            used[number] += 1
            if rule.stops(Running(number=number, series=[finals[number]] * used[number]), []):
                running.discard(number)
    return used


@given(seed=st.integers(0, 1000))
def test_hyperband_gives_the_best_job_the_most_and_spends_less_than_all(seed: int) -> None:
    finals = random.Random(seed).sample(range(1000), 27)
    used = hyperband([float(value) for value in finals])
    assert used[finals.index(min(finals))] == max(used.values()) == 9
    assert sum(used.values()) < 27 * 9
    assert min(used.values()) < 9


def test_no_job_is_judged_below_the_least_resource() -> None:
    rule = HyperbandRule(least=3, most=9, minimize=True)
    for number in range(6):
        assert not rule.stops(Running(number=number, series=[float(number)] * 2), [])


@pytest.mark.parametrize(("static", "most"), [({"epochs": "8"}, 8), ({"num_epochs": "2"}, 2), ({"epochs": "x"}, None)])
def test_the_most_resource_is_inferred(static: dict[str, str], most: int | None) -> None:
    assert inferred_resource(static) == most
