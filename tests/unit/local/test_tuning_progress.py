"""When a tuning job is done, and when it has failed."""

from __future__ import annotations

import pytest

from airflow_dlaws.local.tuning.progress import Criteria, Tally, failure, not_improving


@pytest.mark.parametrize(
    ("objectives", "minimize", "count"),
    [
        ([], True, 0),
        ([1.0], True, 0),
        ([1.0, 0.995, 0.992], True, 2),  # less than one per cent
        ([1.0, 0.98], True, 0),
        ([1.0, 2.0, 3.0], True, 2),
        ([1.0, 2.0, 3.0], False, 0),
        ([0.0, 0.0], True, 1),
        ([-1.0, -1.5], True, 0),
    ],
)
def test_an_improvement_is_one_per_cent(objectives: list[float], minimize: bool, count: int) -> None:
    assert not_improving(objectives, minimize=minimize) == count


@pytest.mark.parametrize(("minimize", "met"), [(True, False), (False, True)])
def test_a_target_is_met_from_its_better_side(minimize: bool, met: bool) -> None:
    tally = Tally(objectives=[0.6, None], silent=0)
    assert Criteria(minimize=minimize, target=0.5).met(tally) is met


@pytest.mark.parametrize(
    ("objectives", "silent", "over", "begins"),
    [
        ([None] * 4, 0, False, ""),
        ([None] * 5, 0, False, "No training job succeeded after 5 attempts."),
        ([None] * 5, 5, False, "No objective metrics found after running 5 training jobs."),
        ([None] * 2, 0, True, "All training jobs failed."),
        ([None] * 9 + [0.5], 0, True, ""),
        ([], 0, True, ""),
    ],
)
def test_it_fails_without_a_single_objective(
    objectives: list[float | None], silent: int, over: bool, begins: str
) -> None:
    reason = failure(Tally(objectives=objectives, silent=silent), over=over)
    assert reason.startswith(begins)
    assert bool(reason) is bool(begins)
