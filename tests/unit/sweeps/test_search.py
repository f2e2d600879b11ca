"""What is tried next: inside the space, never twice, the same for the same journal, and better than chance."""

from __future__ import annotations

import dataclasses
import math
import statistics
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweep_journals import SPACE, completed, sweep_journal, sweep_trial

from airflow_dlaws.sweeps.journal import Report, SweepJournal, Trial, TrialState
from airflow_dlaws.sweeps.search import propose, startup_trials
from airflow_dlaws.sweeps.space import check_parameters, parse_space
from airflow_dlaws.sweeps.spec import Direction, Search


def run(journal: SweepJournal, count: int, objective: Any) -> SweepJournal:
    """Try `count` more trials, one after the other."""
    for _ in range(count):
        parameters = propose(journal)
        if parameters is None:
            return journal
        number, value = len(journal.trials), objective(parameters)
        trial = Trial(number=number, parameters=parameters, state=TrialState.COMPLETED, value=value)
        journal = dataclasses.replace(journal, trials=(*journal.trials, trial))
    return journal


def valley(parameters: Any) -> float:
    """Return an error with one best learning rate, and one best choice."""
    return abs(math.log10(parameters["lr"]) + 2) + 0.2 * (parameters["act"] == "a") + 0.1 * parameters["layers"]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), states=st.lists(st.sampled_from(list(TrialState)), max_size=14))
def test_proposals_lie_in_the_space_whatever_has_happened(seed: int, states: list[TrialState]) -> None:
    trials = [
        completed(number, 0.1 * number)
        if state is TrialState.COMPLETED
        else sweep_trial(number, *[0.3] * (number % 3), state=state)
        for number, state in enumerate(states)
    ]
    journal = sweep_journal(*trials, seed=seed)
    parameters = propose(journal)
    assert parameters is not None
    check_parameters("proposal", parameters, SPACE)
    assert propose(journal) == parameters


def test_the_first_trials_of_all_searches_are_the_same_random_ones() -> None:
    tpe = run(sweep_journal(seed=7), 5, valley)
    random = run(sweep_journal(seed=7, search=Search.RANDOM), 5, valley)
    assert startup_trials(tpe.spec) == 8
    assert [trial.parameters for trial in tpe.trials] == [trial.parameters for trial in random.trials]
    other = run(sweep_journal(seed=8), 5, valley)
    assert [trial.parameters for trial in other.trials] != [trial.parameters for trial in tpe.trials]


def test_initial_trials_come_first() -> None:
    champion = {"lr": 0.01, "layers": 2, "act": "b"}
    assert propose(sweep_journal(initial_trials=(champion,))) == champion


@pytest.mark.parametrize("search", list(Search))
def test_a_small_space_is_tried_out_and_no_point_twice(search: Search) -> None:
    space = parse_space({"a": [1, 2, 3], "b": {"low": 0, "high": 2, "integer": True}})
    journal = run(sweep_journal(space=space, max_trials=16, search=search), 16, lambda point: point["a"] + point["b"])
    points = [tuple(trial.parameters.items()) for trial in journal.trials]
    assert len(points) == len(set(points)) == 9
    assert propose(journal) is None
    assert journal.spec.trials == 9


@pytest.mark.parametrize("direction", list(Direction))
def test_the_search_learns(direction: Direction) -> None:
    def objective(parameters: Any) -> float:
        return valley(parameters) if direction is Direction.MINIMIZE else -valley(parameters)

    def best(search: Search, seed: int) -> float:
        journal = sweep_journal(search=search, seed=seed, direction=direction, max_trials=30, early_stopping=None)
        done = run(journal, 30, objective).best
        assert done is not None
        return valley(done.parameters)

    tpe = statistics.mean(best(Search.TPE, seed) for seed in range(5))
    chance = statistics.mean(best(Search.RANDOM, seed) for seed in range(5))
    assert tpe < chance


def test_trials_that_run_are_not_proposed_again_nearby() -> None:
    """Parallel trials see each other: without the lie, four proposals from one journal would be the same point."""
    journal = run(sweep_journal(seed=3), 10, valley)
    for _ in range(4):
        parameters = propose(journal)
        assert parameters is not None
        running = Trial(number=len(journal.trials), parameters=parameters, state=TrialState.RUNNING)
        journal = dataclasses.replace(journal, trials=(*journal.trials, running))
    rates = [trial.parameters["lr"] for trial in journal.trials[-4:]]
    assert len({round(math.log10(rate), 3) for rate in rates}) == 4


def test_what_was_stopped_early_teaches_too() -> None:
    """Of trials stopped early only their reports are known; the search must not go where they were bad."""
    bad = [
        dataclasses.replace(
            sweep_trial(number, state=TrialState.STOPPED),
            parameters={"lr": 10 ** -(0.6 + 0.1 * number), "layers": 3, "act": "a"},
            reports=(Report(resource=1, value=0.9),),
        )
        for number in range(8)
    ]
    good = [dataclasses.replace(completed(8, 0.05), parameters={"lr": 0.001, "layers": 1, "act": "b"})]
    proposals = [propose(sweep_journal(*bad, *good, seed=seed)) for seed in range(20)]
    assert sum(point is not None and point["lr"] < 0.01 for point in proposals) >= 14
