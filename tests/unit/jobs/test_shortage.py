"""How long a task asks for instances that are not to be had."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.jobs.shortage import LONGEST_PAUSE_S, LONGEST_WAIT_S, Shortage, next_try


def tries(budget_s: float, *, looks_take_s: float = 1.0) -> list[float]:
    """Return the moments at which instances are asked for, the shortage being noticed at 0."""
    now, asked = 0.0, 0
    moments = []
    while (until := next_try(Shortage(since=0.0, tries=asked + 1), now, budget_s)) is not None:
        moments.append(until)
        now, asked = until + looks_take_s, asked + 1
    return moments


def test_the_pauses_double_from_a_minute_to_half_an_hour() -> None:
    assert tries(3600, looks_take_s=0) == [60, 180, 420, 900, 1860, 3600]


def test_the_longest_wait_of_a_task_and_its_retries_stays_below_the_number_of_jobs_that_it_may_start() -> None:
    from airflow_dlaws.launchers.sagemaker_jobs import ATTEMPT_LIMIT

    retries = 4
    assert (len(tries(LONGEST_WAIT_S, looks_take_s=1)) + 1) * (1 + retries) <= ATTEMPT_LIMIT
    assert len(tries(LONGEST_WAIT_S)) >= 40


@given(st.floats(1, LONGEST_WAIT_S), st.floats(0.1, 600))
def test_it_ends_and_the_last_try_comes_with_the_end_of_the_budget(budget_s: float, looks_take_s: float) -> None:
    moments = tries(budget_s, looks_take_s=looks_take_s)
    assert moments
    assert moments == sorted(moments)
    assert moments[-1] <= budget_s
    assert all(
        later - earlier <= LONGEST_PAUSE_S + looks_take_s + 1e-6 for earlier, later in itertools.pairwise(moments)
    )
