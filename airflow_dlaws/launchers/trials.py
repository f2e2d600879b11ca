"""The jobs of a sweep's trials: created, looked at and stopped as the sweep's journal says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from airflow_dlaws.errors import DlawsError, JobFailed, ServiceUnavailable
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.spec import TrainingSpec
from airflow_dlaws.launchers.job_log import TRAINING_LOG_GROUP, read_log
from airflow_dlaws.launchers.protocol import LogCursor
from airflow_dlaws.launchers.sagemaker import SageMakerLauncher
from airflow_dlaws.launchers.sagemaker_jobs import JobOrder
from airflow_dlaws.launchers.sagemaker_request import training_request
from airflow_dlaws.storage import S3Uri
from airflow_dlaws.sweeps.journal import SweepJournal, Trial, TrialState
from airflow_dlaws.sweeps.observe import with_lines, with_status


class TrialRunner:
    """One look at the trials of a journal."""

    def __init__(self, client: Callable[[str], Any], jobs: SageMakerLauncher, journal: SweepJournal) -> None:
        self._client, self._jobs, self._journal = client, jobs, journal

    def look(self) -> SweepJournal:
        """Create the jobs that are wanted, look at those that run, stop those that are to be stopped.

        What cannot be asked now is asked again at the next look.

        :raises ServiceUnavailable: nothing could be asked.
        """
        journal, trouble, served = self._journal, None, False
        for trial in self._journal.active:
            try:
                looked = self._look_at(trial)
            except ServiceUnavailable as error:
                trouble = error
                continue
            except DlawsError as error:
                looked = dataclasses.replace(trial, state=TrialState.FAILED, reason=str(error))
            served = True
            journal = _tell(journal.with_trial(looked), trial, looked)
        if trouble is not None and not served:
            raise trouble
        return journal

    def _look_at(self, trial: Trial) -> Trial:
        if trial.job is None:
            trial = self._start(trial) if trial.state is TrialState.PROPOSED else self._find(trial)
        if trial.job is None:
            return trial
        status = self._jobs.describe(trial.job)
        looked = with_status(self._read(trial), status, self._journal.spec, datetime.now(UTC))
        if looked.state is TrialState.STOPPING and status.phase in (JobPhase.PENDING, JobPhase.RUNNING):
            self._jobs.stop(trial.job)
        return looked

    def _start(self, trial: Trial) -> Trial:
        submission = self._jobs.create_or_adopt(self._order(trial), stop_former=False)
        return dataclasses.replace(trial, job=submission.reference, state=TrialState.RUNNING)

    def _find(self, trial: Trial) -> Trial:
        """Return the trial with its job, if that was created before the sweep was to end; without one it has ended."""
        try:
            submission = self._jobs.find(self._order(trial))
        except JobFailed as error:
            return dataclasses.replace(trial, state=TrialState.FAILED, reason=str(error))
        if submission is None:
            return dataclasses.replace(trial, state=TrialState.STOPPED)
        return dataclasses.replace(trial, job=submission.reference)

    def _read(self, trial: Trial) -> Trial:
        """Read on in the log."""
        assert trial.job is not None
        cursor = LogCursor(since_ms=trial.read_until_ms)
        prefix = f"{trial.job.name}/"
        page = read_log(self._client("logs"), group=TRAINING_LOG_GROUP, stream_prefix=prefix, cursor=cursor)
        trial = dataclasses.replace(trial, read_until_ms=page.cursor.since_ms)
        return with_lines(trial, page.lines, self._journal.spec)

    def _order(self, trial: Trial) -> JobOrder:
        journal = self._journal
        identity = journal.identity
        training = trial_training(journal, trial)
        return JobOrder(
            request=training_request(training, S3Uri.parse(journal.code_uri)),
            # No task can be named so: a colon is no letter of theirs.
            identity=dataclasses.replace(identity, task_id=f"{identity.task_id}:{trial.number}"),
            tags={**training.tags, "dlaws:sweep": journal.name, "dlaws:trial": str(trial.number)},
            root=S3Uri.parse(training.output_s3_uri),
        )


def trial_training(journal: SweepJournal, trial: Trial) -> TrainingSpec:
    """Return the job of a trial: the sweep's, with the trial's parameters and a place of its own for checkpoints."""
    training = journal.spec.training
    checkpoints = training.checkpoint_s3_uri
    if checkpoints:
        checkpoints = f"{checkpoints.rstrip('/')}/{journal.name}/trial-{trial.number}"
    return dataclasses.replace(
        training,
        hyperparameters={**training.hyperparameters, **trial.parameters},
        metrics=tuple(dict.fromkeys((*training.metrics, journal.spec.objective))),
        checkpoint_s3_uri=checkpoints,
    )


def _tell(journal: SweepJournal, before: Trial, after: Trial) -> SweepJournal:
    """Write down what has become of a trial."""
    if after.state is before.state or after.state is TrialState.STOPPING:
        return journal
    name = after.job.name if after.job else "no job"
    texts = {
        TrialState.RUNNING: f"trial {after.number} runs as {name}",
        TrialState.PROPOSED: f"trial {after.number} was interrupted and is run again",
        TrialState.COMPLETED: f"trial {after.number} completed: {journal.spec.objective} {after.value}",
        TrialState.STOPPED: f"trial {after.number} has stopped: {after.reason}",
        TrialState.FAILED: f"trial {after.number} failed: {after.reason}",
    }
    return journal.tell(datetime.now(UTC), texts[after.state])
