"""Slurm's words for how a job stands, and what they mean together with the job's own files. Pure decisions.

The controller forgets a job five minutes after its end (MinJobAge), and not every cluster keeps accounts of them. So
the program that runs the job (`slurm_driver.py`) leaves small files in the job's folder; while the controller knows
the job its word counts, and the files say the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.reference import JobStatus

#: Not started, or about to be started again.
WAITING = frozenset(
    {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
)
#: On its nodes. A job that is COMPLETING may yet be queued again: until that is known, its files do not count.
WORKING = frozenset({"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT"})
#: The cluster has ended the job, at a limit that it knows.
OVER_TIME = frozenset({"TIMEOUT", "DEADLINE"})
#: The machines' fault: another job may do well.
MACHINE_FAULTS = {
    "NODE_FAIL": "a node failed",
    "BOOT_FAIL": "the nodes did not boot",
    "LAUNCH_FAILED": "the nodes could not start it",
    "RECONFIG_FAIL": "the nodes could not be set up",
}
CANCELLED = frozenset({"CANCELLED", "REVOKED"})
#: All words for an end. One that is in no list here is a newer Slurm's, for a job that has not ended: taken for an end,
#: it would have the task pay for another job beside this one.
ENDED = frozenset({"COMPLETED", "FAILED", "OUT_OF_MEMORY", "PREEMPTED", *MACHINE_FAULTS, *OVER_TIME, *CANCELLED})
#: How long a shared file system may take to show on the head node what a node has written (NFS: acdirmax, 60 s).
FILES_LATE_S = 120


@dataclass(frozen=True, kw_only=True)
class QueueRow:
    """What squeue says of one job. Moments are seconds since the epoch, 0 where Slurm gives none."""

    job_id: str
    state: str
    reason: str = ""
    submitted: int = 0
    started: int = 0
    ended: int = 0
    digest: str = ""


@dataclass(frozen=True, kw_only=True)
class JobFiles:
    """What the job's folder says.

    :param job_id: Slurm's id, from the program that runs it, or from who asked sbatch.
    :param digest: of what the folder was made for; empty where nothing was.
    :param holder: the try of the task that has created or adopted it last.
    :param submitted: when it was handed to Slurm, seconds since the epoch.
    :param stop_asked: when this package was asked to stop it, 0 if never.
    :param start: of its last beginning: `at`, `first`, `earlier_s` (before that beginning), `restarts`.
    :param end: `phase` ("Completed", "Failed", "Stopped"), `detail`, `reason`, `at`, `restarts`, `metrics`.
    :param output: where its archives belong; `collected`: whether they are there.
    """

    job_id: str = ""
    digest: str = ""
    holder: str = ""
    submitted: int = 0
    stop_asked: int = 0
    start: Mapping[str, Any] = field(default_factory=dict)
    end: Mapping[str, Any] = field(default_factory=dict)
    output: str = ""
    collected: bool = False


def job_status(row: QueueRow | None, files: JobFiles, *, now: float) -> JobStatus:
    """Judge how a job stands from the controller's word, None where it has forgotten the job, and the job's files."""
    if row is not None and row.state in WAITING:
        detail = f"{row.state} ({row.reason})" if row.reason not in ("", "None") else row.state
        return _status(JobPhase.PENDING, row, files, detail=detail)
    if row is not None and row.state not in ENDED:
        phase = JobPhase.STOPPING if files.stop_asked else JobPhase.RUNNING
        return _status(phase, row, files, detail=row.state)
    return _ended(row, files, now)


def _ended(row: QueueRow | None, files: JobFiles, now: float) -> JobStatus:
    """Judge a job that the controller calls ended, or does not know any more."""
    state = row.state if row else ""
    end = _last_end(files)
    if end.get("phase") == "Completed":
        return _status(JobPhase.SUCCEEDED, row, files, detail="COMPLETED")
    if state in MACHINE_FAULTS:
        return _failed(row, files, f"InternalServerError: Slurm reports {state}: {MACHINE_FAULTS[state]}")
    if state == "PREEMPTED":
        return _failed(row, files, "CapacityError: Slurm reports PREEMPTED: its nodes were given to a job before it")
    if state == "OUT_OF_MEMORY":
        reason = "AlgorithmError: Slurm reports OUT_OF_MEMORY: ask for more with sbatch={'mem': ...}"
        return _failed(row, files, reason)
    if state in OVER_TIME:
        return _status(JobPhase.STOPPED, row, files, detail="MaxRuntimeExceeded", reason=f"Slurm reports {state}")
    if end:
        phase = JobPhase.FAILED if end.get("phase") == "Failed" else JobPhase.STOPPED
        return _status(phase, row, files, detail=str(end.get("detail", "")), reason=str(end.get("reason", "")))
    if state in CANCELLED or files.stop_asked:
        return _status(JobPhase.STOPPED, row, files, detail=state or "CANCELLED")
    return _without_an_end(row, files, now)


def _without_an_end(row: QueueRow | None, files: JobFiles, now: float) -> JobStatus:
    """Judge a job whose program has not said how it ended: killed outright, or the file system is late."""
    if row is not None and row.ended and now - row.ended < FILES_LATE_S:
        return _status(JobPhase.RUNNING, row, files, detail=f"{row.state}, and its files are not seen yet")
    if row is not None:
        reason = (
            f"InternalServerError: Slurm reports {row.state}, and the job's program has left no word: it was killed, "
            "or `python` or `work_dir` is not there on the nodes"
        )
        return _failed(row, files, reason)
    begun = "had begun" if files.start else "had not begun"
    reason = f"InternalServerError: the cluster does not know the job any more; it {begun}, and has left no word"
    return _failed(row, files, reason)


def _last_end(files: JobFiles) -> Mapping[str, Any]:
    """Return how the job ended, unless it was begun again after that."""
    return files.end if files.end.get("restarts") == files.start.get("restarts") else {}


def _failed(row: QueueRow | None, files: JobFiles, reason: str) -> JobStatus:
    return _status(JobPhase.FAILED, row, files, detail=row.state if row else "", reason=reason)


def _status(phase: JobPhase, row: QueueRow | None, files: JobFiles, *, detail: str, reason: str = "") -> JobStatus:
    end = _last_end(files)
    created = files.submitted or (row.submitted if row else 0)
    started = int(files.start.get("first", 0))
    ended = int(end.get("at", 0)) or (row.ended if row and phase not in (JobPhase.PENDING, JobPhase.RUNNING) else 0)
    since = int(files.start.get("at", 0))
    seconds = int(files.start.get("earlier_s", 0)) + (max(0, ended - since) if since and ended else 0)
    return JobStatus(
        phase=phase,
        reason=reason,
        detail=detail,
        created_at=_moment(created),
        started_at=_moment(started),
        ended_at=_moment(ended) if phase not in (JobPhase.PENDING, JobPhase.RUNNING, JobPhase.STOPPING) else None,
        billable_seconds=seconds,
        training_seconds=seconds,
        artifact_uri=f"{files.output}/output/model.tar.gz" if files.collected else None,
        output_uri=f"{files.output}/output/output.tar.gz" if files.output else None,
        metrics={name: float(value) for name, value in dict(end.get("metrics", {})).items()},
    )


def _moment(seconds: int) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
