"""What a sweep does next: `decide(journal, now)` is pure; who calls it creates and stops jobs as it says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from airflow_dlaws.sweeps.halving import cuts
from airflow_dlaws.sweeps.journal import Ending, SweepJournal, Trial, TrialState
from airflow_dlaws.sweeps.observe import again

#: Finds the parameters of the next trial; None where every point of the space was tried.
Propose = Callable[[SweepJournal], Mapping[str, Any] | None]


def decide(journal: SweepJournal, propose: Propose, now: datetime) -> SweepJournal:
    """Return the journal with what is to be done written into it.

    Trials newly `PROPOSED` want a job, trials newly `STOPPING` want theirs stopped; `ended_at` says that all is over.
    """
    if journal.ended_at is not None:
        return journal
    if journal.ending is None:
        journal = _end_early(journal, now)
    if journal.ending is None:
        journal = _stop_hopeless(journal, now)
        journal = _propose(journal, propose, now)
    if journal.ending is None and not journal.active:
        journal = dataclasses.replace(journal, ending=Ending.EXHAUSTED, ending_reason="all trials have ended")
    if journal.ending is not None and not journal.active:
        journal = _conclude(journal, now)
    return journal


def stop_all(journal: SweepJournal, ending: Ending, reason: str, now: datetime) -> SweepJournal:
    """Return the journal of a sweep that proposes nothing more and whose running trials are to be stopped."""
    for trial in journal.active:
        if trial.state is not TrialState.STOPPING:
            # One without a job is no exception: its job may have been created and not yet been written down.
            journal = journal.with_trial(dataclasses.replace(trial, state=TrialState.STOPPING, reason=reason))
    journal = dataclasses.replace(journal, ending=ending, ending_reason=reason)
    return journal.tell(now, f"no more trials: {reason}")


def reopen(journal: SweepJournal, now: datetime) -> SweepJournal:
    """Return the journal of a sweep that goes on after its task was killed and is tried again.

    Trials which the kill has stopped are run again (under the name of their next attempt; with checkpoints they go on
    where they were); those that had ended before are kept, and not paid for twice.
    """
    for trial in journal.trials:
        if trial.state is TrialState.STOPPING or (
            trial.state is TrialState.STOPPED and trial.reason == journal.ending_reason
        ):
            journal = journal.with_trial(again(trial))
    journal = dataclasses.replace(journal, ending=None, ending_reason="", ended_at=None, resumed=journal.resumed + 1)
    return journal.tell(now, "the sweep goes on: its task is tried again")


def _end_early(journal: SweepJournal, now: datetime) -> SweepJournal:
    spec = journal.spec
    failed = [trial for trial in journal.trials if trial.state is TrialState.FAILED]
    if len(failed) > spec.max_failed_trials:
        reason = (
            f"{len(failed)} trials have failed, at most {spec.max_failed_trials} are borne (max_failed_trials); "
            f"the first was trial {failed[0].number}: {failed[0].reason}"
        )
        return stop_all(journal, Ending.FAILURES, reason, now)
    if spec.max_billable_seconds is not None and journal.cost >= spec.max_billable_seconds:
        reason = f"{journal.cost:.0f} instance-seconds are used, max_billable_seconds={spec.max_billable_seconds}"
        return stop_all(journal, Ending.BUDGET, reason, now)
    return journal


def _stop_hopeless(journal: SweepJournal, now: datetime) -> SweepJournal:
    rule = journal.spec.early_stopping
    if rule is None:
        return journal
    for cut in cuts(journal.trials, rule, journal.spec.direction, journal.spec.tolerance):
        trial = dataclasses.replace(journal.trials[cut.trial], state=TrialState.STOPPING, reason=cut.reason)
        journal = journal.with_trial(trial).tell(now, f"trial {cut.trial} is stopped: {cut.reason}")
    return journal


def _propose(journal: SweepJournal, propose: Propose, now: datetime) -> SweepJournal:
    """Add trials until enough run. A trial that is being stopped still has its machine."""
    while len(journal.trials) < journal.spec.trials and len(journal.active) < journal.spec.parallel_trials:
        parameters = propose(journal)
        if parameters is None:
            return journal
        trial = Trial(number=len(journal.trials), parameters=parameters)
        journal = dataclasses.replace(journal, trials=(*journal.trials, trial))
        journal = journal.tell(now, f"trial {trial.number}: {describe(parameters)}")
    return journal


def _conclude(journal: SweepJournal, now: datetime) -> SweepJournal:
    journal = dataclasses.replace(journal, ended_at=now)
    return journal.tell(now, summary(journal))


def summary(journal: SweepJournal) -> str:
    """Say how the sweep has ended, in one sentence."""
    counts = {state: sum(trial.state is state for trial in journal.trials) for state in TrialState}
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    cost = f"{journal.cost:.0f} instance-seconds"
    best = journal.best
    if best is None:
        return f"{len(journal.trials)} trials ({told}), {cost}: none has completed"
    return (
        f"{len(journal.trials)} trials ({told}), {cost}; best is trial {best.number} "
        f"with {journal.spec.objective} {best.value:.6g}: {describe(best.parameters)}"
    )


def describe(parameters: Mapping[str, Any]) -> str:
    """Return parameters as a person reads them."""
    shown = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in parameters.items()}
    return ", ".join(f"{name}={value}" for name, value in shown.items())
