"""A training task for tests: executed, deferred, its trigger run and the task resumed, as Airflow would do it."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import job_spec
import pytest
from airflow.sdk.exceptions import TaskDeferred
from running_task import RunningTask, resumed

from airflow_dlaws.jobs.reference import TrainingResult
from airflow_dlaws.jobs.wire import from_json
from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.operators.training import DistributedTrainingOperator
from airflow_dlaws.triggers.job import JobTrigger


class Training:
    """One training task in one bucket, tried as often as the test likes; each try is a new operator, as in Airflow."""

    def __init__(self, aws: LocalAws, bucket: str, folder: Path) -> None:
        self.bucket, self.source = bucket, job_spec.write_scripts(folder)
        self.sagemaker, self.s3 = aws.client("sagemaker"), aws.client("s3")
        self.run_id = uuid.uuid4().hex
        self.s3.put_object(Bucket=bucket, Key="data/a", Body=b"1\n")
        self.pushed: dict[str, Any] = {}

    def task(self, **changes: Any) -> RunningTask:
        task = RunningTask("train", run_id=self.run_id, **{"max_tries": 2, **changes})
        task.pushed = self.pushed
        return task

    def operator(self, script: str = "good.py", **changes: Any) -> DistributedTrainingOperator:
        fields = job_spec.fields(self.source, self.bucket, script, channels={"train": f"s3://{self.bucket}/data/"})
        fixed = {"task_id": "train", "aws_conn_id": None, "poll_interval": 0.2}
        return DistributedTrainingOperator(**{**fixed, **fields, **changes})

    def defer(self, script: str = "good.py", *, task: RunningTask | None = None, **changes: Any) -> TaskDeferred:
        """Execute until the task defers."""
        with pytest.raises(TaskDeferred) as deferred:
            self.operator(script, **changes).execute((task or self.task()).context)
        return deferred.value

    def resume(
        self, deferred: TaskDeferred, script: str = "good.py", *, task: RunningTask | None = None, **changes: Any
    ) -> Any:
        """Let the trigger run to its event, and the task go on with it."""
        payload = asyncio.run(event_of(trigger_of(deferred)))
        return self.go_on(deferred, payload, script, task=task, **changes)

    def go_on(
        self, deferred: TaskDeferred, payload: Any, script: str, *, task: RunningTask | None = None, **changes: Any
    ) -> Any:
        return resumed(self.operator(script, **changes), deferred, payload, (task or self.task()).context)

    def train(self, script: str = "good.py", *, task: RunningTask | None = None, **changes: Any) -> TrainingResult:
        """Run the whole task."""
        deferred = self.defer(script, task=task, **changes)
        return from_json(TrainingResult, self.resume(deferred, script, task=task, **changes))

    def jobs(self) -> list[str]:
        """Return the states of all jobs of this task."""
        pages = self.sagemaker.get_paginator("list_training_jobs").paginate()
        rows = [row for row in pages.search("TrainingJobSummaries[]") if self._is_ours(row["TrainingJobArn"])]
        return [str(row["TrainingJobStatus"]) for row in rows]

    def wait_for_jobs(self, *states: str) -> None:
        """Poll until the jobs of this task are in these states."""
        wait_until(lambda: sorted(self.jobs()) == sorted(states), lambda: f"jobs are {self.jobs()}, not {states}")

    def _is_ours(self, arn: str) -> bool:
        tags = self.sagemaker.list_tags(ResourceArn=arn)["Tags"]
        return {"Key": "dlaws:run", "Value": self.run_id} in tags


def wait_until(condition: Callable[[], bool], describe: Callable[[], str]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, describe()
        time.sleep(0.05)


def trigger_of(deferred: TaskDeferred) -> JobTrigger:
    """Make the trigger anew from what Airflow keeps of it."""
    classpath, kwargs = deferred.trigger.serialize()
    assert classpath == "airflow_dlaws.triggers.job.JobTrigger"
    return JobTrigger(**json.loads(json.dumps(kwargs)))


async def event_of(trigger: JobTrigger) -> Any:
    """Return the payload of the trigger's one event, as Airflow stores it."""
    events = [event async for event in trigger.run()]
    assert len(events) == 1
    return json.loads(json.dumps(events[0].payload))


async def cancelled_after(trigger: JobTrigger, seconds: float, *, by_user: bool) -> None:
    """Cancel the trigger as the triggerer does: at its own end, or (Airflow 3.3) for a user, who also has it killed."""
    running = asyncio.ensure_future(event_of(trigger))
    await asyncio.sleep(seconds)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    if by_user:
        await trigger.on_kill()
