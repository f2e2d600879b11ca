"""What a sweep does next: budgets, failures, endings; and a simulated service that kills, fails and lags at will."""

from __future__ import annotations

import dataclasses
import random
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from sweep_journals import NOW, completed, sweep_journal, sweep_trial

from airflow_dlaws.jobs.metric_line import format_line
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.reference import JobReference, JobStatus
from airflow_dlaws.sweeps.decide import decide, reopen, stop_all
from airflow_dlaws.sweeps.journal import Ending, SweepJournal, TrialState
from airflow_dlaws.sweeps.observe import with_lines, with_status


def any_point(journal: SweepJournal) -> dict[str, Any]:
    """Propose something else each time."""
    return {"lr": 0.001 + 0.0001 * len(journal.trials), "layers": 1, "act": "a"}


def states(journal: SweepJournal) -> list[str]:
    return [str(trial.state) for trial in journal.trials]


def test_a_new_sweep_proposes_as_many_trials_as_may_run_at_once() -> None:
    journal = decide(sweep_journal(parallel_trials=3), any_point, NOW)
    assert states(journal) == ["proposed"] * 3
    assert journal.ended_at is None


def test_a_trial_that_is_being_stopped_keeps_its_place() -> None:
    trials = [sweep_trial(number, state=TrialState.STOPPING) for number in range(2)]
    assert len(decide(sweep_journal(*trials, parallel_trials=2), any_point, NOW).trials) == 2


def test_a_sweep_ends_when_all_its_trials_have() -> None:
    journal = decide(sweep_journal(completed(0, 0.2), completed(1, 0.1), max_trials=2), any_point, NOW)
    assert (journal.ending, journal.ended_at) == (Ending.EXHAUSTED, NOW)
    assert journal.best is not None
    assert journal.best.number == 1
    assert "best is trial 1 with error 0.1" in journal.events[-1].text


def test_of_equal_trials_the_earlier_one_is_the_best() -> None:
    journal = sweep_journal(completed(0, 0.2), completed(1, 0.1), completed(2, 0.1))
    assert journal.best is not None
    assert journal.best.number == 1


def test_the_budget_stops_what_runs_and_keeps_what_has_completed() -> None:
    running = sweep_trial(1, 0.05, billable_seconds=60)
    journal = sweep_journal(completed(0, 0.2, billable_seconds=50), running, max_billable_seconds=100)
    journal = decide(journal, any_point, NOW)
    assert states(journal) == ["completed", "stopping"]
    assert journal.ending is Ending.BUDGET
    assert journal.ending_reason == "110 instance-seconds are used, max_billable_seconds=100"
    assert journal.ended_at is None
    stopped = journal.with_trial(dataclasses.replace(journal.trials[1], state=TrialState.STOPPED))
    assert decide(stopped, any_point, NOW).ended_at == NOW


def test_too_many_failures_end_the_sweep_and_name_the_first() -> None:
    failed = [sweep_trial(n, state=TrialState.FAILED, reason=f"AlgorithmError: {n}") for n in range(2)]
    journal = decide(sweep_journal(*failed, sweep_trial(2), max_failed_trials=1), any_point, NOW)
    assert states(journal) == ["failed", "failed", "stopping"]
    assert journal.ending is Ending.FAILURES
    assert "the first was trial 0: AlgorithmError: 0" in journal.ending_reason


def test_a_failure_that_is_borne_is_followed_by_other_trials() -> None:
    failed = sweep_trial(0, state=TrialState.FAILED, reason="AlgorithmError: out of memory")
    journal = decide(sweep_journal(failed, max_failed_trials=1, parallel_trials=2), any_point, NOW)
    assert states(journal) == ["failed", "proposed", "proposed"]


def test_a_sweep_taken_up_again_runs_again_what_the_kill_had_stopped_and_nothing_else() -> None:
    cut = sweep_trial(0, 0.5, state=TrialState.STOPPED, reason="0.5 at epoch 1 is not among the best")
    journal = sweep_journal(cut, completed(1, 0.1), sweep_trial(2, billable_seconds=30), sweep_trial(3))
    journal = stop_all(journal, Ending.STOPPED, "the sweep was stopped", NOW)
    assert states(journal) == ["stopped", "completed", "stopping", "stopping"]
    journal = journal.with_trial(dataclasses.replace(journal.trials[3], state=TrialState.STOPPED))
    journal = reopen(journal, NOW)
    assert states(journal) == ["stopped", "completed", "proposed", "proposed"]
    assert (journal.ending, journal.resumed, journal.trials[2].job) == (None, 1, None)
    assert journal.cost == 30
    assert journal.trials[2].parameters == sweep_trial(2).parameters


def line(epoch: float, error: float) -> str:
    return f"[algo-1] {format_line({'epoch': epoch, 'error': error})}"


def test_lines_are_reports_and_reading_them_twice_changes_nothing() -> None:
    spec = sweep_journal().spec
    lines = [line(1, 0.5), "[algo-1] something else", line(2, 0.25)]
    once = with_lines(sweep_trial(0), lines, spec)
    assert [(report.resource, report.value) for report in once.reports] == [(1, 0.5), (2, 0.25)]
    assert with_lines(once, lines, spec) == once


def test_an_objective_that_is_no_number_stops_the_trial_and_is_no_failure() -> None:
    spec = sweep_journal().spec
    diverged = with_lines(sweep_trial(0, 0.5), [line(2, float("nan"))], spec)
    assert diverged.state is TrialState.STOPPING
    assert "it has diverged" in diverged.reason
    crashed = JobStatus(phase=JobPhase.FAILED, reason="AlgorithmError: loss is nan", billable_seconds=3)
    assert with_status(diverged, crashed, spec, NOW).state is TrialState.STOPPED


def test_the_last_value_counts_and_the_service_completes_a_log_that_lags() -> None:
    spec = sweep_journal().spec
    done = JobStatus(phase=JobPhase.SUCCEEDED, billable_seconds=9, metrics={"error": 0.10000000149})
    assert with_status(sweep_trial(0, 0.3, 0.1), done, spec, NOW).value == 0.1
    assert with_status(sweep_trial(0, 0.3), done, spec, NOW).value == 0.10000000149
    silent = with_status(sweep_trial(0), JobStatus(phase=JobPhase.SUCCEEDED), spec, NOW)
    assert silent.state is TrialState.FAILED
    assert "never reported 'error'" in silent.reason


def test_a_trial_whose_spot_instances_were_taken_away_for_too_long_is_run_again() -> None:
    spec = sweep_journal().spec
    taken = JobStatus(phase=JobPhase.STOPPED, detail="MaxWaitTimeExceeded", interruptions=2, billable_seconds=7)
    again = with_status(sweep_trial(1, 0.3), taken, spec, NOW)
    assert (again.state, again.interruptions, again.billed_before) == (TrialState.PROPOSED, 1, 7)
    ours = dataclasses.replace(sweep_trial(1, 0.3), state=TrialState.STOPPING, reason="it was behind")
    assert with_status(ours, taken, spec, NOW).state is TrialState.STOPPED


def test_a_stop_in_the_console_is_told_apart_from_ours() -> None:
    spec, status = sweep_journal().spec, JobStatus(phase=JobPhase.STOPPED, detail="Stopped")
    ours = with_status(sweep_trial(0, state=TrialState.STOPPING, reason="not among the best"), status, spec, NOW)
    theirs = with_status(sweep_trial(0), status, spec, NOW)
    assert ours.reason == "not among the best"
    assert "in the console or through the API" in theirs.reason


def test_missing_capacity_runs_a_trial_again_but_not_for_ever() -> None:
    spec, status = sweep_journal().spec, JobStatus(phase=JobPhase.FAILED, reason="CapacityError: no ml.p5.48xlarge")
    trial, rounds = sweep_trial(0), 0
    while (trial := with_status(trial, status, spec, NOW)).state is TrialState.PROPOSED:
        rounds += 1
    assert (rounds, trial.state) == (5, TrialState.FAILED)


class Service:
    """Jobs that run, complete, fail and get stopped as chance has it; each is paid for when it is created."""

    def __init__(self, chance: random.Random) -> None:
        self.chance, self.created = chance, list[int]()

    def look(self, journal: SweepJournal) -> SweepJournal:
        for trial in journal.active:
            if trial.job is None and trial.state is TrialState.STOPPING:
                journal = journal.with_trial(dataclasses.replace(trial, state=TrialState.STOPPED))
                continue
            if trial.job is None:
                self.created.append(trial.number)
                job = JobReference(engine="e", name=f"job-{trial.number}", arn="", region="")
                trial = dataclasses.replace(trial, job=job)
            journal = journal.with_trial(with_status(self.report(trial), self.status(trial), journal.spec, NOW))
        return journal

    def report(self, trial: Any) -> Any:
        epoch = len(trial.reports) + 1
        lines = [line(epoch, self.chance.choice([0.1, 0.2, 0.3, 0.5]))] if self.chance.random() < 0.6 else []
        return with_lines(trial, lines, sweep_journal().spec)

    def status(self, trial: Any) -> JobStatus:
        if trial.state is TrialState.STOPPING and self.chance.random() < 0.7:
            return JobStatus(phase=JobPhase.STOPPED, billable_seconds=5)
        roll = self.chance.random()
        if roll < 0.1:
            return JobStatus(phase=JobPhase.SUCCEEDED, billable_seconds=20, metrics={"error": roll})
        if roll < 0.13:
            return JobStatus(phase=JobPhase.FAILED, reason="AlgorithmError: chance", billable_seconds=2)
        return JobStatus(phase=JobPhase.RUNNING, started_at=NOW - timedelta(seconds=10))


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**9), parallel=st.integers(1, 6), budget=st.sampled_from([None, 60, 10_000]))
def test_every_sweep_ends_within_its_limits_and_creates_each_job_once(
    seed: int, parallel: int, budget: int | None
) -> None:
    service = Service(random.Random(seed))
    journal = sweep_journal(parallel_trials=parallel, max_billable_seconds=budget, max_trials=12, max_failed_trials=2)
    for _ in range(2000):
        journal = decide(service.look(journal), any_point, NOW)
        assert len(journal.active) <= parallel
        assert [trial.number for trial in journal.trials] == list(range(len(journal.trials)))
        if journal.ended_at is not None:
            break
    assert journal.ended_at is not None
    assert journal.active == ()
    assert len(service.created) == len(set(service.created))
    assert len(journal.trials) == 12 or journal.ending is not Ending.EXHAUSTED
    assert decide(journal, any_point, NOW + timedelta(days=1)) == journal
