"""What a look at a trial's job says of the trial: its metric lines, and how the job stands. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from datetime import datetime

from airflow_dlaws.jobs.metric_line import parse_line
from airflow_dlaws.jobs.outcome import judge
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.reference import JobStatus
from airflow_dlaws.sweeps.journal import Report, Trial, TrialState
from airflow_dlaws.sweeps.spec import Halving, SweepSpec

#: A trial that finds no machine, or whose machine fails, so often is given up.
INTERRUPTION_LIMIT = 5
#: The service keeps metrics in single precision, and the log has what the script printed.
_SINGLE_PRECISION = 1e-5


def with_lines(trial: Trial, lines: Iterable[str], spec: SweepSpec) -> Trial:
    """Return the trial with what its log lines report. Lines that were read before change nothing."""
    resource = (spec.early_stopping or Halving()).resource
    reports = {report.resource: report.value for report in trial.reports}
    diverged = trial.diverged
    for line in lines:
        metrics = parse_line(line) or {}
        if spec.objective not in metrics:
            continue
        if not math.isfinite(metrics[spec.objective]):
            diverged = True
        elif resource in metrics:
            reports[metrics[resource]] = metrics[spec.objective]
    ordered = tuple(Report(resource=key, value=reports[key]) for key in sorted(reports))
    trial = dataclasses.replace(trial, reports=ordered, diverged=diverged)
    if diverged and trial.state is TrialState.RUNNING:
        return dataclasses.replace(trial, state=TrialState.STOPPING, reason=_divergence(spec))
    return trial


def with_status(trial: Trial, status: JobStatus, spec: SweepSpec, now: datetime) -> Trial:
    """Return the trial as its job's status leaves it."""
    trial = dataclasses.replace(
        trial,
        billable_seconds=_billable(status, now) * (status.instance_count or spec.training.hosts),
        started_at=trial.started_at or status.created_at,
    )
    if not status.terminal:
        state = TrialState.STOPPING if trial.state is TrialState.STOPPING else TrialState.RUNNING
        return dataclasses.replace(trial, state=state)
    trial = dataclasses.replace(trial, ended_at=status.ended_at or now, artifact_uri=status.artifact_uri)
    if trial.diverged:  # its parameters' fault, not the script's, however the script ends
        return dataclasses.replace(trial, state=TrialState.STOPPED, reason=_divergence(spec))
    if status.phase is JobPhase.SUCCEEDED:
        return _completed(trial, status, spec)
    verdict = judge(status)
    if status.phase is JobPhase.STOPPED and (trial.state is TrialState.STOPPING or verdict.permanent):
        return _stopped(trial, status)
    if not verdict.permanent and trial.interruptions < INTERRUPTION_LIMIT:
        return again(trial)
    return dataclasses.replace(trial, state=TrialState.FAILED, reason=status.reason or verdict.sentence)


def again(trial: Trial) -> Trial:
    """Return a trial whose job was interrupted, ready for another one."""
    return Trial(
        number=trial.number,
        parameters=trial.parameters,
        billed_before=trial.cost,
        started_at=trial.started_at,
        interruptions=trial.interruptions + 1,
    )


def _billable(status: JobStatus, now: datetime) -> float:
    """Return the seconds one instance is billed for; until the service says it, the time since the start."""
    if status.terminal:
        return status.billable_seconds
    return max(0.0, (now - status.started_at).total_seconds()) if status.started_at else 0.0


def _completed(trial: Trial, status: JobStatus, spec: SweepSpec) -> Trial:
    final = status.metrics.get(spec.objective)
    last = trial.reports[-1].value if trial.reports else None
    value = last if final is None or _same(last, final) else final
    if value is None:
        reason = (
            f"the job completed, but never reported {spec.objective!r}: the script must print it on a metric line, "
            f'{{"dlaws_metrics": {{"{spec.objective}": 0.1}}}}'
        )
        return dataclasses.replace(trial, state=TrialState.FAILED, reason=reason)
    if not math.isfinite(value):
        return dataclasses.replace(trial, state=TrialState.STOPPED, reason=_divergence(spec))
    return dataclasses.replace(trial, state=TrialState.COMPLETED, value=value, reason="")


def _same(last: float | None, final: float) -> bool:
    return last is not None and math.isclose(last, final, rel_tol=_SINGLE_PRECISION, abs_tol=1e-12)


def _stopped(trial: Trial, status: JobStatus) -> Trial:
    reason = trial.reason
    if trial.state is not TrialState.STOPPING:
        reason = judge(status).sentence
    return dataclasses.replace(trial, state=TrialState.STOPPED, reason=reason)


def _divergence(spec: SweepSpec) -> str:
    return f"it has diverged: {spec.objective} is no finite number"
