"""The record of a training job goes through AWS's states."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from airflow_dlaws.local import model_codec, service_model
from airflow_dlaws.local.training_job import SecondaryStatus, TrainingJob, TrainingStatus

REQUEST = {
    "TrainingJobName": "j",
    "RoleArn": "arn:aws:iam::123456789012:role/r",
    "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
    "Tags": [{"Key": "a", "Value": "b"}],
}


def ticking() -> Iterator[datetime]:
    """Yield times ten seconds apart."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    while True:
        yield now
        now += timedelta(seconds=10)


@pytest.fixture
def job() -> TrainingJob:
    clock = ticking()
    return TrainingJob(REQUEST, "arn:aws:sagemaker:us-east-1:123456789012:training-job/j", lambda: next(clock))


def test_a_job_that_goes_well_shows_each_state_with_its_times(job: TrainingJob) -> None:
    for state in (SecondaryStatus.DOWNLOADING, SecondaryStatus.TRAINING, SecondaryStatus.UPLOADING):
        job.enter(state)
    job.finish(SecondaryStatus.COMPLETED, artifact="s3://bucket/out/j/output/model.tar.gz")
    shown = job.describe()
    rows = shown["SecondaryStatusTransitions"]
    assert [row["Status"] for row in rows] == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert all(row["EndTime"] == after["StartTime"] for row, after in itertools.pairwise(rows))
    assert shown["TrainingJobStatus"] == "Completed"
    assert shown["BillableTimeInSeconds"] == shown["TrainingTimeInSeconds"] == 30
    assert shown["StoppingCondition"] == {"MaxRuntimeInSeconds": 86_400}


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (SecondaryStatus.FAILED, TrainingStatus.FAILED),
        (SecondaryStatus.STOPPED, TrainingStatus.STOPPED),
        (SecondaryStatus.MAX_RUNTIME_EXCEEDED, TrainingStatus.STOPPED),
    ],
)
def test_other_ends_are_no_completion(job: TrainingJob, end: SecondaryStatus, status: TrainingStatus) -> None:
    job.finish(end, reason="because")
    assert job.describe()["TrainingJobStatus"] == status
    assert job.describe()["SecondaryStatusTransitions"][-1]["StatusMessage"] == "because"


def test_only_a_job_in_progress_can_be_stopped_and_only_once(job: TrainingJob) -> None:
    assert job.request_stop()
    assert job.status == "Stopping"
    assert not job.request_stop()
    job.finish(SecondaryStatus.STOPPED)
    assert not job.request_stop()
    assert job.status == "Stopped"


def test_a_job_that_never_trained_is_not_billed(job: TrainingJob) -> None:
    job.finish(SecondaryStatus.STOPPED)
    assert "BillableTimeInSeconds" not in job.describe()


def test_the_description_fits_the_service_model_and_shows_no_tags(job: TrainingJob) -> None:
    job.record_metric("loss", 0.5, job.created)
    shape = service_model.load("sagemaker").operation_model("DescribeTrainingJob").output_shape
    wire = model_codec.encode(shape, job.describe())
    assert "Tags" not in wire
    assert wire["FinalMetricDataList"][0]["MetricName"] == "loss"


def test_a_long_reason_is_cut_to_the_limit_of_aws(job: TrainingJob) -> None:
    job.finish(SecondaryStatus.FAILED, reason="x" * 5000)
    assert len(job.describe()["FailureReason"]) == 1024
