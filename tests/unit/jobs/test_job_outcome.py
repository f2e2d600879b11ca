"""What a job's state means to a task that finds it and to a task that has waited for it."""

from __future__ import annotations

import pytest

from airflow_dlaws.jobs.outcome import Reuse, decide_reuse, failure_message, judge
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.reference import JobReference, JobStatus

ALGORITHM = JobStatus(phase=JobPhase.FAILED, reason="AlgorithmError: ValueError: bad label, exit code: 1")
CAPACITY = JobStatus(phase=JobPhase.FAILED, reason="CapacityError: Unable to provision requested ML compute capacity")
INTERNAL = JobStatus(phase=JobPhase.FAILED, reason="InternalServerError: please try again")
CLIENT = JobStatus(phase=JobPhase.FAILED, reason="ClientError: Data download failed")
TOO_LONG = JobStatus(phase=JobPhase.STOPPED, detail="MaxRuntimeExceeded")
STOPPED = JobStatus(phase=JobPhase.STOPPED, detail="Stopped")


@pytest.mark.parametrize(
    ("status", "reuse"),
    [
        (JobStatus(phase=JobPhase.PENDING), Reuse.ADOPT),
        (JobStatus(phase=JobPhase.RUNNING), Reuse.ADOPT),
        (JobStatus(phase=JobPhase.SUCCEEDED), Reuse.ADOPT),
        (JobStatus(phase=JobPhase.STOPPING), Reuse.START_ANOTHER),
        (STOPPED, Reuse.START_ANOTHER),
        (CAPACITY, Reuse.START_ANOTHER),
        (INTERNAL, Reuse.START_ANOTHER),
        (ALGORITHM, Reuse.GIVE_UP),
        (CLIENT, Reuse.GIVE_UP),
        (TOO_LONG, Reuse.GIVE_UP),
    ],
)
def test_a_task_adopts_a_living_job_and_never_pays_twice_for_a_bug(status: JobStatus, reuse: Reuse) -> None:
    decision, reason = decide_reuse(status)
    assert decision is reuse
    assert reason


@pytest.mark.parametrize(
    ("status", "succeeded", "permanent", "words"),
    [
        (JobStatus(phase=JobPhase.SUCCEEDED), True, True, "completed"),
        (ALGORITHM, False, True, "bad label"),
        (CLIENT, False, True, "Data download failed"),
        (CAPACITY, False, False, "capacity"),
        (INTERNAL, False, False, "AWS's"),
        (STOPPED, False, True, "was stopped"),
        (TOO_LONG, False, True, "max_runtime_s"),
        (JobStatus(phase=JobPhase.STOPPED, detail="MaxWaitTimeExceeded"), False, True, "max_wait_s"),
    ],
)
def test_only_a_completed_job_is_success(status: JobStatus, succeeded: bool, permanent: bool, words: str) -> None:
    verdict = judge(status)
    assert (verdict.succeeded, verdict.permanent) == (succeeded, permanent)
    assert words in verdict.sentence


def test_a_failure_names_the_job_the_reason_the_last_lines_and_where_to_read_on() -> None:
    reference = JobReference(engine="sagemaker", name="job-1", arn="arn", region="us-east-1")
    message = failure_message(reference, "it failed", log_tail=["[algo-1] ValueError"], logs_url="https://logs")
    assert message == "Job job-1: it failed\nLast 1 log lines:\n    [algo-1] ValueError\nLogs: https://logs"


def test_a_failure_without_log_says_so() -> None:
    reference = JobReference(engine="sagemaker", name="job-1", arn="arn", region="us-east-1")
    assert "No log line has arrived" in failure_message(reference, "x", log_tail=[], logs_url="u")
