"""Searches propose each combination once, the same ones for the same seed, and Bayesian ones learn."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_dlaws.local.tuning.bayesian import make_search
from airflow_dlaws.local.tuning.ranges import read_space
from airflow_dlaws.local.tuning.search import Search
from airflow_dlaws.local.tuning.space import SearchSpace

SMALL = read_space(
    {
        "IntegerParameterRanges": [{"Name": "n", "MinValue": "1", "MaxValue": "4"}],
        "CategoricalParameterRanges": [{"Name": "c", "Values": ["a", "b", "d"]}],
    }
)
LINE = read_space({"ContinuousParameterRanges": [{"Name": "x", "MinValue": "-1", "MaxValue": "1"}]})


def search(strategy: str, space: SearchSpace = SMALL, seed: int = 1) -> Search:
    """Return a search that minimises."""
    return make_search(strategy, space, seed=seed, minimize=True)


@pytest.mark.parametrize("strategy", ["Random", "Bayesian", "Grid"])
def test_a_finite_space_is_used_up_without_repetition(strategy: str) -> None:
    found = search(strategy)
    asked = []
    while (values := found.ask()) is not None:
        asked.append(tuple(values.items()))
        found.tell(values, float(values["n"]))
    assert len(asked) == len(set(asked)) == SMALL.combinations


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_the_same_seed_gives_the_same_values(seed: int) -> None:
    first, second = search("Random", LINE, seed), search("Random", LINE, seed)
    assert [first.ask() for _ in range(5)] == [second.ask() for _ in range(5)]


def bowl(strategy: str, seed: int, jobs: int = 40) -> list[float]:
    """Minimise (x - 0.3)^2; return the distances from the minimum."""
    found = search(strategy, LINE, seed)
    distances = []
    for _ in range(jobs):
        values = found.ask()
        assert values is not None
        distance = abs(float(values["x"]) - 0.3)
        found.tell(values, distance**2)
        distances.append(distance)
    return distances


def test_the_bayesian_search_comes_closer_than_chance() -> None:
    late = {
        strategy: statistics.fmean(statistics.fmean(bowl(strategy, seed)[20:]) for seed in range(3))
        for strategy in ("Bayesian", "Random")
    }
    assert late["Bayesian"] < 0.5 * late["Random"]


def test_jobs_without_an_objective_do_not_stop_the_bayesian_search() -> None:
    found = search("Bayesian", LINE)
    for number in range(15):
        values = found.ask()
        assert values is not None
        found.tell(values, None if number % 2 else 1.0)
