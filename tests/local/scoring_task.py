"""One batch inference task in one bucket, tried as often as a test likes; each try is a new operator, as in Airflow."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred
from batch_bench import Batches
from running_task import RunningTask, resumed
from serving import IMAGE, ROLE, Serving

from airflow_dlaws.operators.batch_inference import BatchInferenceOperator
from airflow_dlaws.triggers.job import JobTrigger


class ScoringTask:
    """The task `score`: data under `in/`, predictions under `out/`."""

    def __init__(self, serving: Serving, batches: Batches) -> None:
        self.serving, self.batches, self.bucket = serving, batches, serving.bucket
        self.sagemaker = serving.sagemaker
        self.run_id = uuid.uuid4().hex
        self.pushed: dict[str, Any] = {}
        #: Made once: another artifact would be another task's.
        self.artifact = serving.artifact(score=True)

    def task(self, **changes: Any) -> RunningTask:
        task = RunningTask("score", run_id=self.run_id, **{"max_tries": 2, **changes})
        task.pushed = self.pushed
        return task

    def operator(self, **changes: Any) -> BatchInferenceOperator:
        fields: dict[str, Any] = {
            "task_id": "score",
            "aws_conn_id": None,
            "poll_interval": 0.2,
            "artifact_uri": self.artifact,
            "image": IMAGE,
            "role_arn": ROLE,
            "data": f"s3://{self.bucket}/in/",
            "output_s3_uri": f"s3://{self.bucket}/out",
            "instance_type": "ml.m5.large",
            "invocation_retries": 0,
        }
        if "model_name" in changes or "model_package_arn" in changes:
            fields |= {"artifact_uri": None, "image": None}
        return BatchInferenceOperator(**{**fields, **changes})

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

    def score(self, *, task: RunningTask | None = None, **changes: Any) -> Any:
        """Run the whole task."""
        return self.resume(self.defer(task=task, **changes), task=task, **changes)

    def jobs(self) -> list[str]:
        """Return the states of all jobs of this task."""
        pages = self.sagemaker.get_paginator("list_transform_jobs").paginate(NameContains="dag-score-")
        mine = {"Key": "dlaws:run", "Value": self.run_id}
        return [
            str(row["TransformJobStatus"])
            for row in pages.search("TransformJobSummaries[]")
            if mine in self.sagemaker.list_tags(ResourceArn=row["TransformJobArn"])["Tags"]
        ]

    def models(self) -> list[str]:
        """Return the names of the models made for such tasks."""
        rows = self.sagemaker.list_models(NameContains="dag-score-", MaxResults=100)["Models"]
        return [str(row["ModelName"]) for row in rows]


def trigger_of(deferred: TaskDeferred) -> JobTrigger:
    """Make the trigger anew from what Airflow keeps of it."""
    return JobTrigger(**json.loads(json.dumps(deferred.trigger.serialize()[1])))
