"""A tuning job told as a sweep of ours, so that both engines have one leaderboard and one result.

Two calls for each trial, once, when the tuning job has ended: what a trial was billed and where its model is only its
training job knows, and how it learnt only its log.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from airflow_dlaws.jobs.identity import TaskIdentity
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.reference import JobReference, JobStatus
from airflow_dlaws.launchers.job_log import TRAINING_LOG_GROUP, read_log
from airflow_dlaws.launchers.protocol import LogCursor
from airflow_dlaws.launchers.sagemaker import SageMakerLauncher
from airflow_dlaws.launchers.tuning import TuningLauncher, trial_number
from airflow_dlaws.sweeps.journal import Ending, SweepJournal, Trial, TrialState
from airflow_dlaws.sweeps.observe import INTERRUPTION_LIMIT, with_lines, with_status
from airflow_dlaws.sweeps.spec import SweepSpec
from airflow_dlaws.sweeps.tuner import typed

_STOPPED_EARLY = "SageMaker's tuner has stopped it"


def journal_of(
    client: Callable[[str], Any], reference: JobReference, status: JobStatus, spec: SweepSpec, identity: TaskIdentity
) -> SweepJournal:
    """Return what is known of a tuning job that has ended; nothing is written."""
    launcher = TuningLauncher(client)
    trials = tuple(_Looker(client, spec).look(child) for child in launcher.children(reference.name))
    ending, reason = _ending(status, len(trials), spec)
    now = datetime.now(UTC)
    return SweepJournal(
        name=reference.name,
        spec=spec,
        identity=identity,
        code_uri="",
        created_at=status.created_at or now,
        trials=trials,
        ending=ending,
        ending_reason=reason,
        ended_at=status.ended_at or now,
    )


class _Looker:
    """Looks at the trials, one after the other."""

    def __init__(self, client: Callable[[str], Any], spec: SweepSpec) -> None:
        self._client, self._spec, self._jobs = client, spec, SageMakerLauncher(client)

    def look(self, child: Mapping[str, Any]) -> Trial:
        """Return a trial as its training job and its log leave it."""
        job = self._jobs.reference(child["TrainingJobName"], child["TrainingJobArn"])
        trial = Trial(
            number=trial_number(child),
            parameters=typed(self._spec.space, child["TunedHyperParameters"]),
            state=TrialState.RUNNING,
            job=job,
            # The tuner does not run a trial again: one that was interrupted has failed.
            interruptions=INTERRUPTION_LIMIT,
        )
        page = read_log(
            self._client("logs"), group=TRAINING_LOG_GROUP, stream_prefix=f"{job.name}/", cursor=LogCursor()
        )
        status, trial = self._jobs.describe(job), with_lines(trial, page.lines, self._spec)
        if status.phase is JobPhase.STOPPED and status.detail == "Stopped" and not trial.reason:
            trial = dataclasses.replace(trial, state=TrialState.STOPPING, reason=_STOPPED_EARLY)
        return with_status(trial, status, self._spec, datetime.now(UTC))


def _ending(status: JobStatus, trials: int, spec: SweepSpec) -> tuple[Ending, str]:
    if status.phase is JobPhase.STOPPED:
        return Ending.STOPPED, "the tuning job was stopped"
    if status.phase is JobPhase.FAILED:
        return Ending.FAILURES, status.reason
    if trials < spec.trials:
        return Ending.BUDGET, f"SageMaker's tuner has completed after {trials} of {spec.trials} trials"
    return Ending.EXHAUSTED, "SageMaker's tuner has completed"
