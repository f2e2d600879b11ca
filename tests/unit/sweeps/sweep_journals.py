"""Sweeps for tests: a specification, and journals at any point of their life."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_dlaws.jobs.identity import TaskIdentity
from airflow_dlaws.jobs.reference import JobReference
from airflow_dlaws.jobs.spec import TrainingSpec
from airflow_dlaws.sweeps.journal import Report, SweepJournal, Trial, TrialState
from airflow_dlaws.sweeps.space import parse_space
from airflow_dlaws.sweeps.spec import Halving, SweepSpec

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SPACE = parse_space(
    {"lr": {"low": 1e-4, "high": 0.3, "log": True}, "layers": {"low": 1, "high": 3, "integer": True}, "act": ["a", "b"]}
)
TRAINING = TrainingSpec(
    image="123456789012.dkr.ecr.us-east-1.amazonaws.com/image:1",
    source="code",
    entry_point="train.py",
    output_s3_uri="s3://bucket/models",
    role_arn="arn:aws:iam::123456789012:role/role",
    instance_type="ml.m5.large",
    max_runtime_s=600,
)


def sweep_spec(**changes: Any) -> SweepSpec:
    """Return a specification with early stopping at epochs 1, 3, 9 ..."""
    fields = {"training": TRAINING, "space": SPACE, "objective": "error", "early_stopping": Halving(resource="epoch")}
    return SweepSpec(**{**fields, **changes})


def sweep_journal(*trials: Trial, **changes: Any) -> SweepJournal:
    """Return the journal of a sweep with these trials."""
    identity = TaskIdentity(dag_id="dag", run_id="run", task_id="sweep")
    spec = sweep_spec(**changes)
    return SweepJournal(
        name="sweep-1", spec=spec, identity=identity, code_uri="s3://bucket/code/1/", created_at=NOW, trials=trials
    )


def sweep_trial(number: int, *errors: float, state: TrialState = TrialState.RUNNING, **changes: Any) -> Trial:
    """Return a trial that has reported these errors after epochs 1, 2, 3 ..."""
    trial = Trial(
        number=number,
        parameters={"lr": 0.001 * (number + 1), "layers": 1 + number % 3, "act": "ab"[number % 2]},
        state=state,
        job=JobReference(engine="sagemaker", name=f"job-{number}", arn=f"arn-{number}", region="us-east-1"),
        reports=tuple(Report(resource=epoch, value=error) for epoch, error in enumerate(errors, 1)),
        started_at=NOW,
    )
    return dataclasses.replace(trial, **changes)


def completed(number: int, error: float, **changes: Any) -> Trial:
    """Return a trial that has run to its end."""
    done = {"state": TrialState.COMPLETED, "value": error, "ended_at": NOW + timedelta(minutes=1), **changes}
    return sweep_trial(number, error, **done)
