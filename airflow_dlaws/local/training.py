"""CreateTrainingJob, DescribeTrainingJob, StopTrainingJob, ListTrainingJobs."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from airflow_dlaws.local import listing, training_request
from airflow_dlaws.local.context import Handler, LocalContext, PerRegion, RequestContext
from airflow_dlaws.local.errors import resource_in_use, unsupported, validation_error
from airflow_dlaws.local.training_job import TrainingJob
from airflow_dlaws.local.training_run import TrainingRun

#: A job gets no grace when the server goes down; this is for shipping its last log lines.
_CLOSE_SECONDS = 10.0


class _Region:
    """The jobs of one region. A name is taken for ever."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.jobs: dict[str, TrainingJob] = {}


class TrainingJobs:
    """The operations on training jobs, and the threads that run them."""

    def __init__(self, context: LocalContext) -> None:
        self._context = context
        self._regions: PerRegion[_Region] = PerRegion(_Region)
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def operations(self) -> dict[str, Handler]:
        """See `Resource`."""
        return {
            "CreateTrainingJob": self._create,
            "DescribeTrainingJob": self._describe,
            "StopTrainingJob": self._stop,
            "ListTrainingJobs": self._list,
        }

    def runtime_operations(self) -> dict[str, Handler]:
        """See `Resource`."""
        return {}

    def close(self) -> None:
        """End all jobs; the context's `closing` is set."""
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(_CLOSE_SECONDS)

    def start(self, parameters: Mapping[str, Any], request: RequestContext, *, tuning_arn: str = "") -> TrainingJob:
        """Start a job from its CreateTrainingJob request.

        :param tuning_arn: the tuning job that launches it.
        :raises ServiceError: the request is refused, or the name is taken.
        """
        training_request.check(parameters, self._context.client("s3", request.region), request.region)
        arn = request.arn("training-job", parameters["TrainingJobName"].lower())
        job = TrainingJob(parameters, arn, self._context.now, tuning_arn=tuning_arn)
        region = self._regions[request.region]
        with region.lock:
            if job.name in region.jobs:
                raise resource_in_use(
                    "Training job names must be unique within an AWS account and region, and a training job with "
                    f"this name already exists ({arn})"
                )
            region.jobs[job.name] = job
        self._context.tags.create(arn, parameters.get("Tags"))
        run = TrainingRun(self._context, job, request.region)
        thread = threading.Thread(target=run.perform, name=f"training {job.name}", daemon=True)
        with self._lock:
            self._threads = [other for other in self._threads if other.is_alive()] + [thread]
            thread.start()
        return job

    def _create(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        return {"TrainingJobArn": self.start(parameters, request).arn}

    def _describe(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        return self._existing(parameters, request).describe()

    def _stop(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        job = self._existing(parameters, request)
        if not job.request_stop():
            raise validation_error(f"The request was rejected because the training job is in status {job.status}")
        return {}

    def _list(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        for member in ("WarmPoolStatusEquals", "TrainingPlanArnEquals"):
            if member in parameters:
                raise unsupported(f"{member} in ListTrainingJobs")
        region = self._regions[request.region]
        with region.lock:
            summaries = [job.summary() for job in region.jobs.values()]
        return listing.page(
            summaries,
            parameters,
            into="TrainingJobSummaries",
            name="TrainingJobName",
            exact={"StatusEquals": "TrainingJobStatus"},
            newest_first=False,
        )

    def _existing(self, parameters: dict[str, Any], request: RequestContext) -> TrainingJob:
        region = self._regions[request.region]
        with region.lock:
            job = region.jobs.get(parameters["TrainingJobName"])
        if job is None:
            raise validation_error("Requested resource not found.")
        return job
