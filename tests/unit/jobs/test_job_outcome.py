"""What a job's state means to a task that finds it and to a task that has waited for it."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.jobs.failure import BEHAVIOUR, FailureKind, failure_kind
from airflow_dlaws.jobs.outcome import Reuse, decide_reuse, failure_message, judge, kind_of
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.reference import JobReference, JobStatus

ALGORITHM = JobStatus(phase=JobPhase.FAILED, reason="AlgorithmError: ValueError: bad label, exit code: 1")
CAPACITY = JobStatus(phase=JobPhase.FAILED, reason="CapacityError: Unable to provision requested ML compute capacity")
INTERNAL = JobStatus(phase=JobPhase.FAILED, reason="InternalServerError: please try again")
CLIENT = JobStatus(phase=JobPhase.FAILED, reason="ClientError: Data download failed")
TOO_LONG = JobStatus(phase=JobPhase.STOPPED, detail="MaxRuntimeExceeded")
BEGAN = datetime(2026, 11, 24, tzinfo=UTC)
WAITED = JobStatus(phase=JobPhase.STOPPED, detail="MaxWaitTimeExceeded")
PENDED = JobStatus(phase=JobPhase.STOPPED, detail="MaxPendingTimeExceeded")
NO_ACCESS = JobStatus(phase=JobPhase.FAILED, reason="ClientError: Access denied when assuming the role")
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
        (NO_ACCESS, Reuse.GIVE_UP),
        (WAITED, Reuse.START_ANOTHER),
        (dataclasses.replace(WAITED, started_at=BEGAN, interruptions=1), Reuse.START_ANOTHER),
        (dataclasses.replace(WAITED, started_at=BEGAN), Reuse.GIVE_UP),
        (PENDED, Reuse.START_ANOTHER),
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
        (dataclasses.replace(WAITED, started_at=BEGAN), False, True, "max_wait_s"),
        (dataclasses.replace(WAITED, started_at=BEGAN, interruptions=2), False, False, "taken away 2 times"),
        (WAITED, False, False, "no spot instances came"),
        (NO_ACCESS, False, True, "role_arn"),
        (PENDED, False, False, "pending"),
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


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("AlgorithmError: ValueError, exit code: 1", FailureKind.ALGORITHM),
        ("ClientError: no data under the prefix", FailureKind.CLIENT),
        ("InternalServerError: please try again", FailureKind.INTERNAL),
        ("CapacityError: Unable to provision requested ML compute capacity", FailureKind.CAPACITY),
        ("ClientError: Data download failed:KMS.AccessDeniedException", FailureKind.ACCESS),
        ("ClientError: User: arn:aws:sts::1:x is not authorized to perform: ecr:BatchGetImage", FailureKind.ACCESS),
        ('ClientError: No S3 objects found ... that the role "r" has "s3:ListBucket" permissions', FailureKind.CLIENT),
        ("AlgorithmError: PermissionError: access denied: /opt/ml/x, exit code: 1", FailureKind.ALGORITHM),
        ("AlgorithmError: ValueError: buffer capacity must be positive, exit code: 1", FailureKind.ALGORITHM),
        ("ClientError: Data download failed:not enough storage capacity on the volume", FailureKind.CLIENT),
        ("We currently do not have sufficient ml.p5.48xlarge capacity", FailureKind.CAPACITY),
        ("", FailureKind.ALGORITHM),
    ],
)
def test_a_failure_reason_tells_whose_fault_it_was(reason: str, kind: FailureKind) -> None:
    assert failure_kind(reason) is kind


def secondary_statuses() -> list[str]:
    import botocore.session

    return list(botocore.session.get_session().get_service_model("sagemaker").shape_for("SecondaryStatus").enum)


REASONS = st.one_of(
    st.text(max_size=40),
    st.builds(
        lambda word, text: f"{word}: {text}",
        st.sampled_from(["AlgorithmError", "ClientError", "CapacityError", "InternalServerError", "SomethingNew"]),
        st.text(max_size=40),
    ),
)
STATUSES = st.builds(
    JobStatus,
    phase=st.sampled_from(JobPhase),
    reason=REASONS,
    detail=st.sampled_from([*secondary_statuses(), "MaxPendingTimeExceeded", "", "SomethingNew"]),
    started_at=st.none() | st.datetimes(timezones=st.just(UTC)),
    interruptions=st.integers(0, 100),
    failure=st.none() | st.sampled_from(FailureKind),
)


@given(STATUSES)
def test_whatever_the_service_says_only_completed_is_success(status: JobStatus) -> None:
    verdict = judge(status)
    assert verdict.succeeded is (status.phase is JobPhase.SUCCEEDED)
    assert verdict.sentence
    assert (verdict.kind is None) is (status.phase not in (JobPhase.FAILED, JobPhase.STOPPED))


@given(STATUSES)
def test_every_ending_says_the_way_out_and_what_a_retry_does_agrees_with_it(status: JobStatus) -> None:
    kind, (reuse, reason) = kind_of(status), decide_reuse(status)
    assert reason
    if kind is None:
        return
    verdict = judge(status)
    assert BEHAVIOUR[kind].way_out in verdict.sentence
    assert verdict.permanent is BEHAVIOUR[kind].permanent
    assert reuse is not Reuse.ADOPT
    # What a user stopped is final for the task that waited for it; a later try was asked for, and begins another.
    if kind is not FailureKind.STOPPED:
        assert (reuse is Reuse.GIVE_UP) is verdict.permanent


def test_every_kind_of_failure_has_a_behaviour() -> None:
    assert set(BEHAVIOUR) == set(FailureKind)
    assert {kind for kind, behaviour in BEHAVIOUR.items() if not behaviour.permanent} == {
        FailureKind.CAPACITY, FailureKind.PENDING_TIME, FailureKind.INTERNAL, FailureKind.SPOT,
    }  # fmt: skip
