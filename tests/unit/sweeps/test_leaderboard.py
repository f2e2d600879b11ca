"""The leaderboard ranks what has completed; the journal survives its round trip through JSON."""

from __future__ import annotations

import json
from datetime import timedelta

from sweep_journals import NOW, completed, sweep_journal, sweep_trial

from airflow_dlaws.jobs.wire import from_json, to_json
from airflow_dlaws.sweeps.decide import decide
from airflow_dlaws.sweeps.journal import SweepJournal, TrialState
from airflow_dlaws.sweeps.leaderboard import Leaderboard, leaderboard_of
from airflow_dlaws.sweeps.page import render
from airflow_dlaws.sweeps.spec import Direction

JOURNAL = sweep_journal(
    completed(0, 0.2),
    sweep_trial(1, 0.5, state=TrialState.STOPPED, reason="0.5 at epoch 1 is not among the best 1 of 3"),
    completed(2, 0.1),
    sweep_trial(3, 0.4, 0.05, state=TrialState.STOPPED),
    sweep_trial(4, state=TrialState.FAILED, reason="AlgorithmError: <b>out of memory</b>"),
    max_trials=5,
).tell(NOW, "something has happened")


def test_the_journal_and_the_leaderboard_survive_the_wire() -> None:
    assert from_json(SweepJournal, json.loads(json.dumps(to_json(JOURNAL)))) == JOURNAL
    board = leaderboard_of(JOURNAL)
    assert from_json(Leaderboard, json.loads(json.dumps(to_json(board)))) == board


def test_completed_trials_come_first_then_who_came_furthest() -> None:
    board = leaderboard_of(JOURNAL)
    assert [standing.trial for standing in board.standings] == [2, 0, 3, 1, 4]
    assert board.best is not None
    assert board.best.trial == 2


def test_the_largest_comes_first_where_the_objective_is_maximized() -> None:
    journal = sweep_journal(completed(0, 0.2), completed(1, 0.1), direction=Direction.MAXIMIZE)
    assert [standing.trial for standing in leaderboard_of(journal).standings] == [0, 1]


def test_a_sweep_without_a_completed_trial_has_no_best() -> None:
    assert leaderboard_of(sweep_journal(sweep_trial(0, 0.1))).best is None


def test_events_have_times_of_their_own_in_order() -> None:
    journal = sweep_journal()
    for _ in range(5):
        journal = journal.tell(NOW, "at the same time")
    journal = journal.tell(NOW - timedelta(minutes=1), "the clock went back")
    times = [event.at_ms for event in journal.events]
    assert times == sorted(set(times))


def test_the_page_tells_the_numbers_and_the_reasons_and_escapes_them() -> None:
    page = render(leaderboard_of(decide(JOURNAL, lambda _: None, NOW)))
    assert "best is trial 2 with error 0.1" in page
    assert "0.5 at epoch 1 is not among the best 1 of 3" in page
    assert "&lt;b&gt;out of memory" in page
    assert "<svg" in page
