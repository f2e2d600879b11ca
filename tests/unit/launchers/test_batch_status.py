"""How a service job of AWS Batch stands, by Batch's word and by that of its training job."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_dlaws.jobs.failure import FailureKind
from airflow_dlaws.jobs.outcome import judge
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.reference import JobStatus
from airflow_dlaws.launchers.batch import batch_status

DONE = JobStatus(phase=JobPhase.SUCCEEDED, detail="Completed", artifact_uri="s3://bucket/model.tar.gz")


def answer(status: str, **more: Any) -> dict[str, Any]:
    return {"status": status, "createdAt": 1_790_000_000_000, **more}


@pytest.mark.parametrize("asked_to_end", [False, True])
def test_a_job_that_was_told_to_end_when_it_had_succeeded_has_succeeded(asked_to_end: bool) -> None:
    found = batch_status(answer("SUCCEEDED", isTerminated=asked_to_end, statusReason="stopped"), DONE)
    assert (found.phase, found.reason, found.artifact_uri) == (JobPhase.SUCCEEDED, "", DONE.artifact_uri)


def test_a_terminated_job_is_stopped_whatever_its_training_job_says() -> None:
    failed = JobStatus(phase=JobPhase.FAILED, reason="AlgorithmError: SIGTERM")
    assert batch_status(answer("FAILED", isTerminated=True, statusReason="enough"), failed).phase is JobPhase.STOPPED


def test_a_state_of_the_future_is_no_end() -> None:
    assert batch_status(answer("HIBERNATING"), None).phase is JobPhase.RUNNING


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("InternalServerError: try later", FailureKind.INTERNAL),
        ("CapacityError: none", FailureKind.CAPACITY),
        ("ValidationException: no such image", FailureKind.ALGORITHM),
    ],
)
def test_what_sagemaker_has_said_is_understood_though_batch_quotes_it(words: str, kind: FailureKind) -> None:
    found = batch_status(answer("FAILED", statusReason=f"Received status from SageMaker: {words}"), None)
    assert (found.reason, judge(found).kind) == (words, kind)
