"""Successive halving stops what is not among the best at its rung, and never everything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweep_journals import completed, sweep_trial

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.sweeps.halving import cuts, rungs
from airflow_dlaws.sweeps.journal import Trial, TrialState
from airflow_dlaws.sweeps.spec import Direction, Halving

RULE = Halving(resource="epoch")
ERRORS = st.lists(st.lists(st.floats(0, 1), min_size=0, max_size=12), min_size=1, max_size=24)


def stopped(*trials: Trial, rule: Halving = RULE, direction: Direction = Direction.MINIMIZE) -> list[int]:
    return [cut.trial for cut in cuts(trials, rule, direction)]


def test_rungs_are_powers_of_the_reduction_factor() -> None:
    assert rungs(RULE, 27) == [1, 3, 9, 27]
    assert rungs(Halving(min_resource=2, reduction_factor=2), 9) == [2, 4, 8]
    assert rungs(RULE, 0.5) == []


def test_there_is_no_rung_where_a_trial_ends_by_itself() -> None:
    assert rungs(Halving(max_resource=9), 9) == [1, 3]


def test_the_first_trial_goes_on_and_a_worse_second_one_does_not() -> None:
    assert stopped(sweep_trial(0, 0.5)) == []
    assert stopped(sweep_trial(0, 0.5), sweep_trial(1, 0.6)) == [1]


def test_of_six_at_a_rung_the_best_two_go_on() -> None:
    assert stopped(*(sweep_trial(number, 0.1 * number) for number in range(6))) == [2, 3, 4, 5]


def test_a_trial_is_judged_at_its_furthest_rung() -> None:
    ahead = sweep_trial(0, 0.9, 0.8, 0.1)
    behind = [sweep_trial(number, 0.2) for number in range(1, 4)]
    assert 0 not in stopped(ahead, *behind)


def test_the_first_at_a_rung_is_judged_again_when_better_ones_arrive() -> None:
    first = sweep_trial(0, 0.9, 0.8)
    assert stopped(first, completed(1, 0.1), completed(2, 0.2)) == [0]


def test_trials_that_have_ended_count_and_are_not_stopped_again() -> None:
    past = [sweep_trial(number, 0.1, state=TrialState.STOPPED) for number in range(3)]
    assert stopped(*past, sweep_trial(3, 0.2)) == [3]
    assert stopped(*past, sweep_trial(3, 0.2, state=TrialState.STOPPING)) == []


def test_equal_trials_go_on_together() -> None:
    assert stopped(*(sweep_trial(number, 0.3) for number in range(9))) == []


def test_who_is_behind_by_less_than_the_noise_goes_on() -> None:
    trials = [sweep_trial(0, 0.5), sweep_trial(1, 0.5625), sweep_trial(2, 0.625)]
    assert [cut.trial for cut in cuts(trials, RULE, Direction.MINIMIZE, 0.0625)] == [2]
    assert [cut.trial for cut in cuts(trials, RULE, Direction.MAXIMIZE, 0.0625)] == [0]


def test_larger_is_better_where_the_objective_is_maximized() -> None:
    assert stopped(sweep_trial(0, 0.5), sweep_trial(1, 0.6), direction=Direction.MAXIMIZE) == [0]


def test_the_reason_gives_the_numbers() -> None:
    (cut,) = cuts([sweep_trial(0, 0.5), sweep_trial(1, 0.625)], RULE, Direction.MINIMIZE)
    assert cut.reason == "0.625 at epoch 1 is not among the best 1 of 2 (they have 0.5 or better)"


@given(ERRORS)
def test_some_trial_always_goes_on(errors: list[list[float]]) -> None:
    trials = [sweep_trial(number, *values) for number, values in enumerate(errors)]
    assert len(stopped(*trials)) < len(trials)


@given(ERRORS)
def test_who_is_stopped_is_worse_than_who_goes_on_at_the_same_rung(errors: list[list[float]]) -> None:
    trials = [sweep_trial(number, *values[:1]) for number, values in enumerate(errors)]
    out = set(stopped(*trials))
    kept = [trial.reports[0].value for trial in trials if trial.reports and trial.number not in out]
    lost = [trial.reports[0].value for trial in trials if trial.number in out]
    assert not kept or not lost or max(kept) < min(lost)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"resource": ""}, "must name the metric"),
        ({"min_resource": 0}, "min_resource=0 must be above 0"),
        ({"reduction_factor": 1}, "reduction_factor=1 must be above 1"),
        ({"min_resource": 3, "max_resource": 3}, "max_resource=3 must be above"),
    ],
)
def test_a_rule_that_cannot_work_is_refused(fields: dict[str, float], words: str) -> None:
    with pytest.raises(SpecificationError, match=words):
        Halving(**fields)  # type: ignore[arg-type]
