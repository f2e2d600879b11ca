"""A sweep for tests: trials that take a second and need no torch, and one task that is tried as often as one likes."""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

import job_spec
import pytest
from airflow.sdk.exceptions import TaskDeferred
from running_task import RunningTask, resumed

from airflow_dlaws.jobs.reference import JobReference, Submission
from airflow_dlaws.jobs.wire import from_json
from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.operators.sweep import HyperparameterSweepOperator
from airflow_dlaws.triggers.job import JobTrigger

#: The error falls with the epochs; how far depends on how close `rate` is to 0.1. `mood` makes trials that go wrong.
TRIAL = """
import argparse, json, math, os, pathlib, time
parser = argparse.ArgumentParser()
parser.add_argument("--rate", type=float, default=0.1)
parser.add_argument("--mood", default="good")
parser.add_argument("--epochs", type=int, default=4)
parser.add_argument("--seconds", type=float, default=0.1)
parser.add_argument("--gate", help="a file to wait for before the first epoch")
options = parser.parse_args()
if options.mood == "raises":
    raise ValueError("the labels are empty")
while options.gate and not os.path.exists(options.gate):
    time.sleep(0.02)
for epoch in range(1, options.epochs + 1):
    time.sleep(options.seconds)
    error = abs(math.log10(options.rate) + 1) + 1 / epoch
    error = float("nan") if options.mood == "diverges" and epoch == 2 else error
    metrics = {"accuracy": 0.5} if options.mood == "silent" else {"epoch": epoch, "error": error}
    print(json.dumps({"dlaws_metrics": metrics}), flush=True)
pathlib.Path(os.environ["SM_MODEL_DIR"], "rate").write_text(str(options.rate))
"""
SPACE = {"rate": {"low": 1e-4, "high": 1.0, "log": True}}


class SweepTask:
    """One task in one bucket. Each try is a new operator, as in Airflow."""

    def __init__(self, aws: LocalAws, bucket: str, folder: Path) -> None:
        self.aws, self.bucket, self.source = aws, bucket, folder
        folder.mkdir()
        (folder / "trial.py").write_text(TRIAL)
        self.sagemaker, self.s3 = aws.client("sagemaker"), aws.client("s3")
        self.run_id = uuid.uuid4().hex
        self.pushed: dict[str, Any] = {}

    def task(self, **changes: Any) -> RunningTask:
        task = RunningTask("sweep", run_id=self.run_id, **{"max_tries": 2, **changes})
        task.pushed = self.pushed
        return task

    def operator(self, **changes: Any) -> HyperparameterSweepOperator:
        fields = {
            **job_spec.fields(self.source, self.bucket, "trial.py"),
            "task_id": "sweep",
            "aws_conn_id": None,
            "poll_interval": 0.2,
            "space": SPACE,
            "objective": "error",
            "max_trials": 4,
            "parallel_trials": 2,
            "early_stopping": None,
        }
        return HyperparameterSweepOperator(**{**fields, **changes})

    def defer(self, *, task: RunningTask | None = None, **changes: Any) -> TaskDeferred:
        """Execute until the task defers."""
        with pytest.raises(TaskDeferred) as deferred:
            self.operator(**changes).execute((task or self.task()).context)
        return deferred.value

    def resume(self, deferred: TaskDeferred, *, task: RunningTask | None = None, **changes: Any) -> Any:
        """Let the trigger run to its event, and the task go on with it."""

        async def event() -> Any:
            (fired,) = [event async for event in trigger_of(deferred).run()]
            return json.loads(json.dumps(fired.payload))

        return resumed(self.operator(**changes), deferred, asyncio.run(event()), (task or self.task()).context)

    def sweep(self, *, task: RunningTask | None = None, **changes: Any) -> Any:
        """Run the whole task."""
        return self.resume(self.defer(task=task, **changes), task=task, **changes)

    def jobs(self) -> list[tuple[str, str]]:
        """Return (trial, state) of all jobs of this task, in order."""
        pages = self.sagemaker.get_paginator("list_training_jobs").paginate()
        found = []
        for row in pages.search("TrainingJobSummaries[]"):
            answer = self.sagemaker.list_tags(ResourceArn=row["TrainingJobArn"])["Tags"]
            tags = {tag["Key"]: tag["Value"] for tag in answer}
            if tags.get("dlaws:run") == self.run_id:
                found.append((tags["dlaws:trial"], str(row["TrainingJobStatus"])))
        return sorted(found)

    def document(self, uri: str) -> Any:
        """Return a JSON document from S3."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return json.loads(self.s3.get_object(Bucket=bucket, Key=key)["Body"].read())


def trigger_of(deferred: TaskDeferred) -> JobTrigger:
    """Make the trigger anew from what Airflow keeps of it."""
    return JobTrigger(**json.loads(json.dumps(deferred.trigger.serialize()[1])))


def reference_of(deferred: TaskDeferred) -> JobReference:
    """Return the sweep that a deferred task waits for."""
    return from_json(Submission, json.loads(json.dumps(deferred.kwargs["submission"]))).reference
