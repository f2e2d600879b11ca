"""CreateTrainingJob, DescribeTrainingJob, StopTrainingJob, ListTrainingJobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_dlaws.local import listing, training_request
from airflow_dlaws.local.context import Handler, LocalContext, RequestContext
from airflow_dlaws.local.errors import unsupported, validation_error
from airflow_dlaws.local.job_table import JobTable
from airflow_dlaws.local.training_job import TrainingJob
from airflow_dlaws.local.training_run import TrainingRun
from airflow_dlaws.local.warm_pools import WarmPool, key_of


class TrainingJobs:
    """The operations on training jobs."""

    def __init__(self, context: LocalContext) -> None:
        self._context = context
        self._jobs: JobTable[TrainingJob] = JobTable(context, "training job")

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
        self._jobs.close()

    def start(self, parameters: Mapping[str, Any], request: RequestContext, *, tuning_arn: str = "") -> TrainingJob:
        """Start a job from its CreateTrainingJob request.

        :param tuning_arn: the tuning job that launches it.
        :raises ServiceError: the request is refused, or the name is taken.
        """
        training_request.check(
            parameters, self._context.client("s3", request.region), request.region, self._context.file_systems
        )
        arn = request.arn("training-job", parameters["TrainingJobName"].lower())
        keep_alive = parameters["ResourceConfig"].get("KeepAlivePeriodInSeconds", 0)
        pool = WarmPool(key_of(request.region, parameters), self._context.scaled(keep_alive)) if keep_alive else None
        job = TrainingJob(
            parameters,
            arn,
            self._context.now,
            tuning_arn=tuning_arn,
            spot_price=self._context.spot_price,
            warm_pool=pool,
        )
        self._jobs.start(job, request.region, parameters, TrainingRun(self._context, job, request.region).perform)
        return job

    def _create(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        return {"TrainingJobArn": self.start(parameters, request).arn}

    def _describe(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        return self._existing(parameters, request).describe()

    def _stop(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        self._jobs.stop(self._existing(parameters, request))
        return {}

    def _list(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        for member in ("WarmPoolStatusEquals", "TrainingPlanArnEquals"):
            if member in parameters:
                raise unsupported(f"{member} in ListTrainingJobs")
        return listing.page(
            self._jobs.summaries(request.region),
            parameters,
            into="TrainingJobSummaries",
            name="TrainingJobName",
            exact={"StatusEquals": "TrainingJobStatus"},
            newest_first=False,
        )

    def _existing(self, parameters: dict[str, Any], request: RequestContext) -> TrainingJob:
        job = self._jobs.get(parameters["TrainingJobName"], request.region)
        if job is None:
            raise validation_error("Requested resource not found.")
        return job
