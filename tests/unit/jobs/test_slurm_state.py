"""How a job on a cluster stands, by what the controller says and what the job's folder says: the whole table."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_dlaws.jobs.failure import FailureKind
from airflow_dlaws.jobs.outcome import judge
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.slurm_state import (
    CANCELLED,
    FILES_LATE_S,
    MACHINE_FAULTS,
    OVER_TIME,
    WAITING,
    WORKING,
    JobFiles,
    QueueRow,
    job_status,
)

NOW, ENDED = 1_000_000.0, 999_000
#: What the job's program leaves: it began, ended well, failed, was told to stop, or ended before it was queued again.
BEGAN: dict[str, Any] = {"start": {"at": 998_000, "first": 998_000, "earlier_s": 0, "restarts": 1}}
GOOD = {**BEGAN, "end": {"phase": "Completed", "at": 998_900, "restarts": 1, "metrics": {"loss": 0.5}}}
BAD = {**BEGAN, "end": {"phase": "Failed", "at": 998_900, "restarts": 1, "reason": "AlgorithmError: no label"}}
TERMED = {**BEGAN, "end": {"phase": "Stopped", "at": 998_900, "restarts": 1, "detail": "Stopped"}}
BEFORE = {**BEGAN, "end": {"phase": "Stopped", "at": 997_000, "restarts": 0}}
NOTHING: dict[str, Any] = {}


def status(state: str | None, files: dict[str, Any], *, ended: int = ENDED, **more: Any) -> Any:
    row = QueueRow(job_id="7", state=state, reason=more.pop("reason", ""), ended=ended) if state else None
    return job_status(row, JobFiles(job_id="7", submitted=997_500, **files, **more), now=NOW)


@pytest.mark.parametrize("state", sorted(WAITING))
@pytest.mark.parametrize("files", [NOTHING, BEFORE, TERMED])
def test_a_job_that_waits_is_pending_whatever_an_earlier_life_has_left(state: str, files: dict[str, Any]) -> None:
    assert status(state, files).phase is JobPhase.PENDING
    assert status(state, files, reason="Resources").detail == f"{state} (Resources)"


@pytest.mark.parametrize("state", sorted(WORKING))
def test_a_job_on_its_nodes_runs_until_slurm_says_otherwise(state: str) -> None:
    assert status(state, GOOD).phase is JobPhase.RUNNING, "it may be queued again: its end does not count yet"
    assert status(state, BEGAN, stop_asked=999_999).phase is JobPhase.STOPPING


@pytest.mark.parametrize("files", [NOTHING, BEGAN, GOOD])
def test_a_job_in_a_state_of_a_newer_slurm_has_not_ended(files: dict[str, Any]) -> None:
    found = status("EXPEDITING", files, ended=0)
    assert (found.phase, found.detail) == (JobPhase.RUNNING, "EXPEDITING"), "another one would be paid for beside it"


@pytest.mark.parametrize("state", ["COMPLETED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", None])
def test_a_job_that_has_said_it_is_done_is_done(state: str | None) -> None:
    found = status(state, GOOD)
    assert (found.phase, found.metrics, found.billable_seconds) == (JobPhase.SUCCEEDED, {"loss": 0.5}, 900)


@pytest.mark.parametrize(
    ("state", "files", "phase", "kind", "retried"),
    [
        *[(state, BEGAN, JobPhase.FAILED, FailureKind.INTERNAL, True) for state in sorted(MACHINE_FAULTS)],
        ("PREEMPTED", BEGAN, JobPhase.FAILED, FailureKind.CAPACITY, True),
        ("PREEMPTED", TERMED, JobPhase.FAILED, FailureKind.CAPACITY, True),
        ("OUT_OF_MEMORY", BAD, JobPhase.FAILED, FailureKind.ALGORITHM, False),
        ("FAILED", BAD, JobPhase.FAILED, FailureKind.ALGORITHM, False),
        (None, BAD, JobPhase.FAILED, FailureKind.ALGORITHM, False),
        ("FAILED", BEGAN, JobPhase.FAILED, FailureKind.INTERNAL, True),
        ("FAILED", NOTHING, JobPhase.FAILED, FailureKind.INTERNAL, True),
        ("COMPLETED", BEFORE, JobPhase.FAILED, FailureKind.INTERNAL, True),
        (None, BEGAN, JobPhase.FAILED, FailureKind.INTERNAL, True),
        (None, NOTHING, JobPhase.FAILED, FailureKind.INTERNAL, True),
    ],
)
def test_a_failure_is_told_apart_by_whose_fault_it_is(
    state: str | None, files: dict[str, Any], phase: JobPhase, kind: FailureKind, retried: bool
) -> None:
    found = status(state, files)
    verdict = judge(found)
    assert (found.phase, verdict.kind, verdict.permanent) == (phase, kind, not retried)


@pytest.mark.parametrize("state", sorted(OVER_TIME))
def test_over_slurm_s_limit_it_is_stopped_for_that(state: str) -> None:
    found = status(state, BEGAN)
    assert (found.phase, found.detail) == (JobPhase.STOPPED, "MaxRuntimeExceeded")


@pytest.mark.parametrize("state", sorted(CANCELLED))
@pytest.mark.parametrize("files", [NOTHING, BEGAN, TERMED, BEFORE])
def test_what_a_person_has_cancelled_is_stopped(state: str, files: dict[str, Any]) -> None:
    assert status(state, files).phase is JobPhase.STOPPED
    assert judge(status(state, files)).succeeded is False


def test_what_was_asked_to_stop_and_is_forgotten_is_stopped() -> None:
    assert status(None, BEGAN, stop_asked=999_000).phase is JobPhase.STOPPED


def test_files_that_are_late_are_waited_for() -> None:
    fresh = status("COMPLETED", BEGAN, ended=int(NOW) - FILES_LATE_S + 1)
    assert fresh.phase is JobPhase.RUNNING
    assert "its files are not seen yet" in fresh.detail
    assert status("COMPLETED", BEGAN, ended=int(NOW) - FILES_LATE_S).phase is JobPhase.FAILED


def test_the_lives_before_a_requeue_are_paid_for_too() -> None:
    lives = {"start": {**BEGAN["start"], "earlier_s": 300}, "end": GOOD["end"]}
    assert status("COMPLETED", lives).billable_seconds == 1200
