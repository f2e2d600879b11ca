"""The operations on hyperparameter tuning jobs. Their training jobs are those of `training`, real and visible."""

from __future__ import annotations

import threading
from typing import Any

from airflow_dlaws.local import listing
from airflow_dlaws.local.context import Handler, LocalContext, PerRegion, RequestContext
from airflow_dlaws.local.errors import resource_in_use, resource_not_found, validation_error
from airflow_dlaws.local.training import TrainingJobs
from airflow_dlaws.local.tuning.job import TuningJob
from airflow_dlaws.local.tuning.request import check
from airflow_dlaws.local.tuning.run import TuningRun

#: The tuner looks ten times a second; its training jobs are ended by their own resource.
_CLOSE_SECONDS = 5.0


class _Region:
    """The tuning jobs of one region. A name is taken for ever."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.jobs: dict[str, TuningJob] = {}


class TuningJobs:
    """The operations, and the threads that run the jobs."""

    def __init__(self, context: LocalContext, training: TrainingJobs) -> None:
        self._context, self._training = context, training
        self._regions: PerRegion[_Region] = PerRegion(_Region)
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def operations(self) -> dict[str, Handler]:
        """See `Resource`."""
        return {
            "CreateHyperParameterTuningJob": self._create,
            "DescribeHyperParameterTuningJob": self._describe,
            "StopHyperParameterTuningJob": self._stop,
            "ListHyperParameterTuningJobs": self._list,
            "ListTrainingJobsForHyperParameterTuningJob": self._list_children,
        }

    def runtime_operations(self) -> dict[str, Handler]:
        """See `Resource`."""
        return {}

    def close(self) -> None:
        """End all tuning jobs; the context's `closing` is set."""
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(_CLOSE_SECONDS)

    def _create(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        check(parameters, self._context.client("s3", request.region), request.region, self._context.file_systems)
        arn = request.arn("hyper-parameter-tuning-job", parameters["HyperParameterTuningJobName"].lower())
        job = TuningJob(parameters, arn, self._context.now)
        region = self._regions[request.region]
        with region.lock:
            if job.name in region.jobs:
                raise resource_in_use(
                    "Hyper parameter tuning job names must be unique within an AWS account and region, and a hyper "
                    f"parameter tuning job with this name already exists ({arn})"
                )
            region.jobs[job.name] = job
        self._context.tags.create(arn, parameters.get("Tags"))
        run = TuningRun(self._context, job, lambda child: self._training.start(child, request, tuning_arn=arn))
        thread = threading.Thread(target=run.perform, name=f"tuning {job.name}", daemon=True)
        with self._lock:
            self._threads = [other for other in self._threads if other.is_alive()] + [thread]
            thread.start()
        return {"HyperParameterTuningJobArn": arn}

    def _describe(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        return self._existing(parameters, request).describe()

    def _stop(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        job = self._existing(parameters, request)
        if not job.request_stop():  # text assumed, after StopTrainingJob's
            raise validation_error(
                f"The request was rejected because the hyper parameter tuning job is in status {job.status}"
            )
        return {}

    def _list(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        region = self._regions[request.region]
        with region.lock:
            summaries = [job.summary() for job in region.jobs.values()]
        return listing.page(
            summaries,
            {"SortBy": "Name", **parameters},
            into="HyperParameterTuningJobSummaries",
            name="HyperParameterTuningJobName",
            exact={"StatusEquals": "HyperParameterTuningJobStatus"},
            newest_first=False,
        )

    def _list_children(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        job = self._existing(parameters, request)
        summaries = [child.summary() for child in job.children]
        if parameters.get("SortBy") == "FinalObjectiveMetricValue":
            summaries = [row for row in summaries if row["FinalHyperParameterTuningJobObjectiveMetric"]]
        return listing.page(
            summaries,
            {"SortBy": "Name", **parameters},
            into="TrainingJobSummaries",
            name="TrainingJobName",
            exact={"StatusEquals": "TrainingJobStatus"},
            newest_first=False,
        )

    def _existing(self, parameters: dict[str, Any], request: RequestContext) -> TuningJob:
        name = parameters["HyperParameterTuningJobName"]
        region = self._regions[request.region]
        with region.lock:
            job = region.jobs.get(name)
        if job is None:
            raise resource_not_found(f"Amazon SageMaker can't find a tuning job with the name {name}")
        return job
