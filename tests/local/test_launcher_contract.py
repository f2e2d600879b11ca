"""The launchers of SageMaker's jobs against the local AWS: the contract of all launchers, and what is their own."""

from __future__ import annotations

import dataclasses
import functools
import threading
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import job_spec
import pytest
from launcher_contract import Count, Killed, LauncherContract, Specs, any_task, ended, wait_for
from service_queue import service_queue

from airflow_dlaws.errors import ServiceUnavailable, SpecificationError
from airflow_dlaws.jobs.identity import TaskIdentity
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.queue import BatchQueue
from airflow_dlaws.jobs.reference import JobReference
from airflow_dlaws.jobs.spec import TrainingSpec
from airflow_dlaws.launchers.batch import BatchLauncher
from airflow_dlaws.launchers.protocol import Launcher, LogCursor
from airflow_dlaws.launchers.sagemaker import SageMakerLauncher
from airflow_dlaws.local.process import LocalAws


def training_specs(aws: LocalAws, bucket: str, folder: Path) -> Specs:
    """Return what makes specifications by script, over a bucket with two objects."""
    source = job_spec.write_scripts(folder / "code")
    for name in ("a", "b"):
        aws.client("s3").put_object(Bucket=bucket, Key=f"data/{name}", Body=b"1\n")

    def make(script: str = "good.py", **changes: Any) -> TrainingSpec:
        return job_spec.spec(source, bucket, script, **changes)

    return make


def dying_client(aws: LocalAws, operation: str) -> Callable[[str], Any]:
    """Return what makes clients for a process that is killed when this operation has just been answered."""

    def client(service: str) -> Any:
        made = aws.client(service)
        made.meta.events.register(f"after-call.{operation}", die)
        return made

    def die(**_: Any) -> None:
        raise Killed

    return client


class SageMakerTraining:
    """What both engines need whose jobs are SageMaker's."""

    @pytest.fixture
    def impossible(self) -> Sequence[tuple[dict[str, Any], str]]:
        return (
            ({"output_s3_uri": "s3://no-such-bucket/models"}, "bucket 'no-such-bucket' does not exist"),
            ({"instance_type": "ml.m5.lagre"}, "did you mean ml.m5.large"),
            ({"entry_point": "missing.py"}, "entry_point='missing.py' is not in"),
        )

    @pytest.fixture
    def spec(self, local_aws: LocalAws, bucket: str, tmp_path: Path) -> Specs:
        return training_specs(local_aws, bucket, tmp_path)

    @pytest.fixture
    def count_jobs(self, local_aws: LocalAws) -> Count:
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
        return BatchLauncher(functools.cache(local_aws.client))

    @pytest.fixture
    def dying(self, local_aws: LocalAws) -> Launcher[TrainingSpec]:
        return BatchLauncher(dying_client(local_aws, "batch.SubmitServiceJob"))

    #: A client token is Batch's own: nobody else can take it.
    test_a_name_taken_by_something_else_is_a_conflict = None  # type: ignore[assignment]

    @pytest.fixture
    def spec(self, local_aws: LocalAws, bucket: str, tmp_path: Path) -> Specs:
        queue = BatchQueue(name=f"queue-{bucket}")
        service_queue(local_aws, queue.name)
        make = training_specs(local_aws, bucket, tmp_path)
        return lambda *words, **changes: make(*words, **{"job_queue": queue, **changes})

    def test_a_waiting_job_is_pending_and_is_stopped_without_ever_being_paid_for(
        self,
        launcher: Launcher[TrainingSpec],
        spec: Specs,
        count_jobs: Count,
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
        self, launcher: Launcher[TrainingSpec], spec: Specs, local_aws: LocalAws
    ) -> None:
        local_aws.order_fault(kind="capacity", target="CreateTrainingJob", times=2)
        try:
            submission = launcher.submit(spec(), any_task())
            assert wait_for(launcher, submission.reference, ended).phase is JobPhase.SUCCEEDED
        finally:
            local_aws.clear_faults()

    def test_another_queue_is_another_job_and_stops_the_one_in_the_first(
        self, launcher: Launcher[TrainingSpec], spec: Specs, local_aws: LocalAws
    ) -> None:
        task = any_task()
        first = launcher.submit(spec("forever.py"), task)
        other = BatchQueue(name=f"queue-{uuid.uuid4().hex}")
        service_queue(local_aws, other.name)
        second = launcher.submit(spec(job_queue=other), task)
        assert second.reference != first.reference
        assert wait_for(launcher, first.reference, ended).phase is JobPhase.STOPPED

    def test_a_task_that_leaves_its_queue_or_enters_one_stops_what_it_had_left(
        self, launcher: Launcher[TrainingSpec], spec: Specs, local_aws: LocalAws
    ) -> None:
        direct = SageMakerLauncher(functools.cache(local_aws.client))
        task = any_task()
        queued = launcher.submit(spec("forever.py"), task)
        at_once = direct.submit(spec("forever.py", job_queue=None), task)
        assert wait_for(launcher, queued.reference, ended).phase is JobPhase.STOPPED
        cleared = launcher.submit(spec("good.py"), dataclasses.replace(task, clear_marker=1))
        assert wait_for(direct, at_once.reference, ended).phase is JobPhase.STOPPED
        assert wait_for(launcher, cleared.reference, ended).phase is JobPhase.SUCCEEDED

    def test_a_queue_that_is_gone_holds_up_no_task(
        self, launcher: Launcher[TrainingSpec], spec: Specs, local_aws: LocalAws, bucket: str
    ) -> None:
        task = any_task()
        wait_for(launcher, launcher.submit(spec(), task).reference, ended)
        note = f"models/tasks/{task.task_key}.json"
        s3 = local_aws.client("s3")
        noted = s3.get_object(Bucket=bucket, Key=note)["Body"].read().decode()
        s3.put_object(Bucket=bucket, Key=note, Body=noted.replace(f"queue-{bucket} ", "deleted-queue ").encode())
        again = launcher.submit(spec(), dataclasses.replace(task, clear_marker=1))
        assert wait_for(launcher, again.reference, ended).phase is JobPhase.SUCCEEDED

    def test_a_specification_without_a_queue_is_refused(self, launcher: Launcher[TrainingSpec], spec: Specs) -> None:
        with pytest.raises(SpecificationError, match="needs job_queue"):
            launcher.submit(spec(job_queue=None), any_task())


class TestSageMakerLauncher(SageMakerTraining, LauncherContract):
    @pytest.fixture
    def launcher(self, local_aws: LocalAws) -> Launcher[TrainingSpec]:
        return SageMakerLauncher(functools.cache(local_aws.client))

    @pytest.fixture
    def dying(self, local_aws: LocalAws) -> Launcher[TrainingSpec]:
        return SageMakerLauncher(dying_client(local_aws, "sagemaker.CreateTrainingJob"))

    @pytest.fixture
    def taken_name(self, local_aws: LocalAws) -> Callable[[JobReference], None]:
        tags = [{"Key": "dlaws:digest", "Value": "other"}]
        sagemaker = local_aws.client("sagemaker")
        return lambda reference: sagemaker.add_tags(ResourceArn=reference.arn, Tags=tags)

    def test_missing_capacity_lets_the_next_try_start_another_job(
        self, launcher: Launcher[TrainingSpec], spec: Specs, local_aws: LocalAws
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

    def test_after_many_failed_jobs_the_next_try_asks_for_the_last_one_first(
        self, spec: Specs, local_aws: LocalAws
    ) -> None:
        task, asked = any_task(), []
        local_aws.order_fault(kind="capacity", target="CreateTrainingJob", times=3)
        try:
            for _ in range(3):
                launcher = SageMakerLauncher(functools.cache(local_aws.client))
                wait_for(launcher, launcher.submit(spec(), task).reference, ended)
        finally:
            local_aws.clear_faults()
        clients = functools.cache(local_aws.client)
        clients("sagemaker").meta.events.register("before-call.sagemaker", lambda model, **_: asked.append(model.name))
        last = SageMakerLauncher(clients).submit(spec(), task)
        assert (last.adopted, last.attempt) == (False, 4)
        assert asked == ["CreateTrainingJob", "DescribeTrainingJob", "ListTags", "CreateTrainingJob"]
        wait_for(SageMakerLauncher(clients), last.reference, ended)

    def test_a_job_is_adopted_though_its_tags_come_into_sight_later(
        self, launcher: Launcher[TrainingSpec], spec: Specs, local_aws: LocalAws
    ) -> None:
        task, sagemaker = any_task(), local_aws.client("sagemaker")
        first = launcher.submit(spec("forever.py"), task)
        tags = sagemaker.list_tags(ResourceArn=first.reference.arn)["Tags"]
        sagemaker.delete_tags(ResourceArn=first.reference.arn, TagKeys=[tag["Key"] for tag in tags])
        late = threading.Timer(1.5, lambda: sagemaker.add_tags(ResourceArn=first.reference.arn, Tags=tags))
        late.start()
        try:
            assert launcher.submit(spec("forever.py"), task).reference == first.reference
        finally:
            late.join()
            launcher.stop(first.reference)

    def test_a_job_whose_name_is_taken_but_that_cannot_be_seen_yet_is_looked_for_again(
        self, launcher: Launcher[TrainingSpec], spec: Specs, local_aws: LocalAws
    ) -> None:
        task = any_task()
        first = launcher.submit(spec("forever.py"), task)
        unseen = {"code": "ValidationException", "message": "Requested resource not found."}
        local_aws.order_fault(kind="error", target="DescribeTrainingJob", times=1, **unseen)
        try:
            with pytest.raises(ServiceUnavailable, match="the name is taken"):
                launcher.submit(spec("forever.py"), task)
        finally:
            local_aws.clear_faults()
        assert launcher.submit(spec("forever.py"), task).reference == first.reference
        launcher.stop(first.reference)

    def test_a_retry_adopts_the_running_job_even_if_its_data_has_gone(
        self, launcher: Launcher[TrainingSpec], spec: Specs, local_aws: LocalAws, bucket: str
    ) -> None:
        task = any_task()
        first = launcher.submit(spec("forever.py"), task)
        wait_for(launcher, first.reference, lambda status: status.detail == "Training")  # it has copied them
        for name in ("a", "b"):
            local_aws.client("s3").delete_object(Bucket=bucket, Key=f"data/{name}")
        assert launcher.submit(spec("forever.py"), task).reference == first.reference
        with pytest.raises(SpecificationError, match="has no objects"):
            launcher.submit(spec("forever.py"), any_task())
        launcher.stop(first.reference)
        wait_for(launcher, first.reference, ended)

    def test_throttling_is_not_a_refusal(
        self, spec: Specs, local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        launcher = SageMakerLauncher(local_aws.client)
        local_aws.order_fault(kind="throttle", target="CreateTrainingJob")
        try:
            with pytest.raises(ServiceUnavailable, match="ThrottlingException"):
                launcher.submit(spec(), any_task())
        finally:
            local_aws.clear_faults()
