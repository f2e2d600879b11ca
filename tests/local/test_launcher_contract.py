"""What every launcher must do: one task, one job. SageMaker runs it here; other engines will run the same class."""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import job_spec
import pytest
from service_queue import service_queue

from airflow_dlaws.errors import IdentityConflict, JobFailed, ServiceUnavailable, SpecificationError
from airflow_dlaws.jobs.identity import TaskIdentity
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.queue import BatchQueue
from airflow_dlaws.jobs.reference import JobReference, JobStatus
from airflow_dlaws.jobs.spec import TrainingSpec
from airflow_dlaws.launchers.batch import BatchLauncher
from airflow_dlaws.launchers.protocol import Launcher, LogCursor
from airflow_dlaws.launchers.sagemaker import SageMakerLauncher
from airflow_dlaws.local.process import LocalAws


def wait_for(
    launcher: Launcher[TrainingSpec], reference: JobReference, reached: Callable[[JobStatus], bool]
) -> JobStatus:
    """Poll until the job's status is as wanted."""
    until = time.monotonic() + 60
    while not reached(status := launcher.describe(reference)):
        assert time.monotonic() < until, f"still {status}"
        time.sleep(0.05)
    return status


def ended(status: JobStatus) -> bool:
    return status.terminal


def any_task(**changes: Any) -> TaskIdentity:
    """Return a task nobody else has."""
    return TaskIdentity(**{"dag_id": "dag", "run_id": uuid.uuid4().hex, "task_id": "train", **changes})


class LauncherContract:
    """Needs the fixtures `launcher`, `spec` (makes specifications by script) and `count_jobs` (of a task)."""

    def test_a_job_runs_to_its_end_and_leaves_what_it_should(
        self, launcher: Launcher[TrainingSpec], spec: Callable[..., TrainingSpec]
    ) -> None:
        submission = launcher.submit(spec(hyperparameters={"epochs": 2}, metrics=("rows",)), any_task())
        assert (submission.adopted, submission.attempt) == (False, 1)
        assert not submission.status.terminal
        status = wait_for(launcher, submission.reference, ended)
        assert status.phase is JobPhase.SUCCEEDED, status
        assert status.metrics == {"rows": 2.0}
        assert status.artifact_uri is not None
        assert status.created_at is not None
        assert status.billable_seconds >= 0
        lines = launcher.log_lines(submission.reference, LogCursor()).lines
        assert "[algo-1] arguments ['--epochs', '2']" in lines

    def test_a_retry_adopts_the_running_job_and_then_the_finished_one(
        self,
        launcher: Launcher[TrainingSpec],
        spec: Callable[..., TrainingSpec],
        count_jobs: Callable[[TaskIdentity], int],
    ) -> None:
        task = any_task()
        first = launcher.submit(spec(), task)
        again = launcher.submit(spec(), task)
        assert (again.adopted, again.reference) == (True, first.reference)
        wait_for(launcher, first.reference, ended)
        last = launcher.submit(spec(), task)
        assert (last.adopted, last.reference, last.status.phase) == (True, first.reference, JobPhase.SUCCEEDED)
        assert count_jobs(task) == 1

    def test_a_cleared_task_starts_another_job(
        self, launcher: Launcher[TrainingSpec], spec: Callable[..., TrainingSpec]
    ) -> None:
        task = any_task()
        first = launcher.submit(spec(), task)
        wait_for(launcher, first.reference, ended)
        cleared = launcher.submit(spec(), dataclasses.replace(task, clear_marker=2))
        assert not cleared.adopted
        assert cleared.reference != first.reference
        assert wait_for(launcher, cleared.reference, ended).phase is JobPhase.SUCCEEDED
        assert launcher.describe(first.reference).phase is JobPhase.SUCCEEDED

    @pytest.mark.parametrize("stop_former", [True, False])
    def test_a_cleared_task_stops_the_job_of_its_former_life_unless_told_otherwise(
        self, launcher: Launcher[TrainingSpec], spec: Callable[..., TrainingSpec], stop_former: bool
    ) -> None:
        task = any_task()
        first = launcher.submit(spec("forever.py"), task)
        launcher.submit(spec(), dataclasses.replace(task, clear_marker=2), stop_former=stop_former)
        status = launcher.describe(first.reference)
        assert (status.phase in {JobPhase.STOPPING, JobPhase.STOPPED}) is stop_former
        launcher.stop(first.reference)

    def test_a_stopped_job_is_stopped_and_the_next_try_starts_another(
        self, launcher: Launcher[TrainingSpec], spec: Callable[..., TrainingSpec]
    ) -> None:
        task = any_task()
        first = launcher.submit(spec("forever.py"), task)
        assert launcher.stop(first.reference)
        second = launcher.submit(spec("forever.py"), task)
        assert (second.adopted, second.attempt) == (False, 2)
        assert launcher.stop(second.reference)
        for submission in (first, second):
            assert wait_for(launcher, submission.reference, ended).phase is JobPhase.STOPPED

    def test_stopping_a_job_that_has_ended_is_no_error(
        self, launcher: Launcher[TrainingSpec], spec: Callable[..., TrainingSpec]
    ) -> None:
        submission = launcher.submit(spec(), any_task())
        wait_for(launcher, submission.reference, ended)
        assert launcher.stop(submission.reference) is False

    def test_a_bug_is_not_paid_for_twice(
        self,
        launcher: Launcher[TrainingSpec],
        spec: Callable[..., TrainingSpec],
        count_jobs: Callable[[TaskIdentity], int],
    ) -> None:
        task = any_task()
        submission = launcher.submit(spec("raises.py"), task)
        status = wait_for(launcher, submission.reference, ended)
        assert status.phase is JobPhase.FAILED
        assert "ValueError: label column is empty" in status.reason
        assert any("ValueError" in line for line in launcher.log_tail(submission.reference, 20))
        with pytest.raises(JobFailed, match="label column is empty") as failed:
            launcher.submit(spec("raises.py"), task)
        assert failed.value.permanent
        assert count_jobs(task) == 1

    def test_a_folder_that_changes_is_another_job_and_stops_the_first(
        self, launcher: Launcher[TrainingSpec], spec: Callable[..., TrainingSpec]
    ) -> None:
        task = any_task()
        first = launcher.submit(spec("forever.py"), task)
        Path(spec().source, "forever.py").write_text(job_spec.SCRIPTS["forever.py"] + "# changed\n")
        second = launcher.submit(spec("forever.py"), task)
        assert second.reference != first.reference
        assert launcher.describe(first.reference).phase in {JobPhase.STOPPING, JobPhase.STOPPED}
        launcher.stop(second.reference)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"output_s3_uri": "s3://no-such-bucket/models"}, "bucket 'no-such-bucket' does not exist"),
            ({"instance_type": "ml.m5.lagre"}, "did you mean ml.m5.large"),
            ({"entry_point": "missing.py"}, "entry_point='missing.py' is not in"),
        ],
    )
    def test_what_cannot_work_is_refused_before_a_job_is_made(
        self,
        launcher: Launcher[TrainingSpec],
        spec: Callable[..., TrainingSpec],
        count_jobs: Callable[[TaskIdentity], int],
        change: dict[str, Any],
        words: str,
    ) -> None:
        task = any_task()
        with pytest.raises(SpecificationError, match=words):
            launcher.submit(spec(**change), task)
        assert count_jobs(task) == 0


def training_specs(aws: LocalAws, bucket: str, folder: Path) -> Callable[..., TrainingSpec]:
    """Return what makes specifications by script, over a bucket with two objects."""
    source = job_spec.write_scripts(folder / "code")
    for name in ("a", "b"):
        aws.client("s3").put_object(Bucket=bucket, Key=f"data/{name}", Body=b"1\n")

    def make(script: str = "good.py", **changes: Any) -> TrainingSpec:
        return job_spec.spec(source, bucket, script, **changes)

    return make


class SageMakerTraining:
    """What both engines need whose jobs are SageMaker's."""

    @pytest.fixture
    def spec(self, local_aws: LocalAws, bucket: str, tmp_path: Path) -> Callable[..., TrainingSpec]:
        return training_specs(local_aws, bucket, tmp_path)

    @pytest.fixture
    def count_jobs(self, local_aws: LocalAws) -> Callable[[TaskIdentity], int]:
        sagemaker = local_aws.client("sagemaker")

        def count(task: TaskIdentity) -> int:
            pages = sagemaker.get_paginator("list_training_jobs").paginate()
            arns = [row["TrainingJobArn"] for row in pages.search("TrainingJobSummaries[]")]
            tags = [sagemaker.list_tags(ResourceArn=arn)["Tags"] for arn in arns]
            return sum({"Key": "dlaws:run", "Value": task.run_id} in of_job for of_job in tags)

        return count


class TestBatchLauncher(SageMakerTraining, LauncherContract):
    @pytest.fixture
    def launcher(self, local_aws: LocalAws) -> Launcher[TrainingSpec]:
        return BatchLauncher(local_aws.client)

    @pytest.fixture
    def spec(self, local_aws: LocalAws, bucket: str, tmp_path: Path) -> Callable[..., TrainingSpec]:
        queue = BatchQueue(name=f"queue-{bucket}")
        service_queue(local_aws, queue.name)
        make = training_specs(local_aws, bucket, tmp_path)
        return lambda *words, **changes: make(*words, **{"job_queue": queue, **changes})

    def test_a_waiting_job_is_pending_and_is_stopped_without_ever_being_paid_for(
        self,
        launcher: Launcher[TrainingSpec],
        spec: Callable[..., TrainingSpec],
        count_jobs: Callable[[TaskIdentity], int],
    ) -> None:
        blocker = launcher.submit(spec("forever.py", instance_count=4), any_task())
        wait_for(launcher, blocker.reference, lambda status: status.phase is JobPhase.RUNNING)
        task = any_task()
        waiting = launcher.submit(spec("forever.py"), task)
        wait_for(launcher, waiting.reference, lambda status: status.detail == "RUNNABLE")
        assert launcher.describe(waiting.reference).phase is JobPhase.PENDING
        assert launcher.log_lines(waiting.reference, LogCursor()).lines == ()
        assert launcher.stop(waiting.reference)
        assert wait_for(launcher, waiting.reference, ended).phase is JobPhase.STOPPED
        assert count_jobs(task) == 0
        launcher.stop(blocker.reference)

    def test_missing_capacity_is_waited_for(
        self, launcher: Launcher[TrainingSpec], spec: Callable[..., TrainingSpec], local_aws: LocalAws
    ) -> None:
        local_aws.order_fault(kind="capacity", target="CreateTrainingJob", times=2)
        try:
            submission = launcher.submit(spec(), any_task())
            assert wait_for(launcher, submission.reference, ended).phase is JobPhase.SUCCEEDED
        finally:
            local_aws.clear_faults()

    def test_tries_of_one_moment_queue_one_job(
        self,
        launcher: Launcher[TrainingSpec],
        spec: Callable[..., TrainingSpec],
        count_jobs: Callable[[TaskIdentity], int],
    ) -> None:
        task, made = any_task(), spec()
        with ThreadPoolExecutor(8) as pool:
            submissions = list(pool.map(lambda _: launcher.submit(made, task), range(8)))
        assert len({submission.reference for submission in submissions}) == 1
        assert [submission.adopted for submission in submissions].count(False) == 1
        wait_for(launcher, submissions[0].reference, ended)
        assert count_jobs(task) == 1

    def test_another_queue_is_another_job_and_stops_the_one_in_the_first(
        self, launcher: Launcher[TrainingSpec], spec: Callable[..., TrainingSpec], local_aws: LocalAws
    ) -> None:
        task = any_task()
        first = launcher.submit(spec("forever.py"), task)
        other = BatchQueue(name=f"queue-{uuid.uuid4().hex}")
        service_queue(local_aws, other.name)
        second = launcher.submit(spec(job_queue=other), task)
        assert second.reference != first.reference
        assert wait_for(launcher, first.reference, ended).phase is JobPhase.STOPPED

    def test_a_specification_without_a_queue_is_refused(
        self, launcher: Launcher[TrainingSpec], spec: Callable[..., TrainingSpec]
    ) -> None:
        with pytest.raises(SpecificationError, match="needs job_queue"):
            launcher.submit(spec(job_queue=None), any_task())


class TestSageMakerLauncher(SageMakerTraining, LauncherContract):
    @pytest.fixture
    def launcher(self, local_aws: LocalAws) -> Launcher[TrainingSpec]:
        return SageMakerLauncher(local_aws.client)

    def test_missing_capacity_lets_the_next_try_start_another_job(
        self, launcher: Launcher[TrainingSpec], spec: Callable[..., TrainingSpec], local_aws: LocalAws
    ) -> None:
        task = any_task()
        local_aws.order_fault(kind="capacity", target="CreateTrainingJob", times=1)
        first = launcher.submit(spec(), task)
        status = wait_for(launcher, first.reference, ended)
        assert status.phase is JobPhase.FAILED
        assert "capacity" in status.reason
        local_aws.clear_faults()
        second = launcher.submit(spec(), task)
        assert (second.adopted, second.attempt) == (False, 2)
        assert wait_for(launcher, second.reference, ended).phase is JobPhase.SUCCEEDED

    def test_a_name_taken_by_something_else_is_a_conflict(
        self, launcher: Launcher[TrainingSpec], spec: Callable[..., TrainingSpec], local_aws: LocalAws
    ) -> None:
        task = any_task()
        submission = launcher.submit(spec("forever.py"), task)
        sagemaker = local_aws.client("sagemaker")
        sagemaker.add_tags(ResourceArn=submission.reference.arn, Tags=[{"Key": "dlaws:digest", "Value": "other"}])
        with pytest.raises(IdentityConflict, match=submission.reference.name):
            launcher.submit(spec("forever.py"), task)
        launcher.stop(submission.reference)
        wait_for(launcher, submission.reference, ended)

    def test_a_retry_adopts_the_running_job_even_if_its_data_has_gone(
        self, launcher: Launcher[TrainingSpec], spec: Callable[..., TrainingSpec], local_aws: LocalAws, bucket: str
    ) -> None:
        task = any_task()
        first = launcher.submit(spec("forever.py"), task)
        for name in ("a", "b"):
            local_aws.client("s3").delete_object(Bucket=bucket, Key=f"data/{name}")
        assert launcher.submit(spec("forever.py"), task).reference == first.reference
        with pytest.raises(SpecificationError, match="has no objects"):
            launcher.submit(spec("forever.py"), any_task())
        launcher.stop(first.reference)
        wait_for(launcher, first.reference, ended)

    def test_throttling_is_not_a_refusal(
        self, spec: Callable[..., TrainingSpec], local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        launcher = SageMakerLauncher(local_aws.client)
        local_aws.order_fault(kind="throttle", target="CreateTrainingJob")
        try:
            with pytest.raises(ServiceUnavailable, match="ThrottlingException"):
                launcher.submit(spec(), any_task())
        finally:
            local_aws.clear_faults()
