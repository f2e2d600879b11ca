"""CreateTransformJob, DescribeTransformJob, StopTransformJob, ListTransformJobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from airflow_dlaws.local import transform_request
from airflow_dlaws.local.batch_job import BatchJob
from airflow_dlaws.local.batch_jobs import TRANSFORM, BatchJobs
from airflow_dlaws.local.context import LocalContext, RequestContext
from airflow_dlaws.local.job_run import JobRun
from airflow_dlaws.local.models import Models
from airflow_dlaws.local.transform_run import TransformRun


class TransformJobs(BatchJobs):
    """The operations on transform jobs."""

    def __init__(self, context: LocalContext, models: Models) -> None:
        super().__init__(context, TRANSFORM, self._prepared)
        self._models = models

    def _prepared(self, parameters: Mapping[str, Any], request: RequestContext) -> Callable[[BatchJob], JobRun]:
        """Look up the model, as AWS does at creation."""
        model = self._models.find(parameters["ModelName"], request)
        role, s3 = model.request["ExecutionRoleArn"], self._context.client("s3", request.region)
        transform_request.check(parameters, role, s3, request.region)
        self._models.check_artifact(model.container.model_data_url, request.region)
        return lambda job: TransformRun(self._context, job, request.region, model)
