"""CreateProcessingJob, DescribeProcessingJob, StopProcessingJob, ListProcessingJobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from airflow_dlaws.local import processing_request
from airflow_dlaws.local.batch_job import BatchJob
from airflow_dlaws.local.batch_jobs import PROCESSING, BatchJobs
from airflow_dlaws.local.context import LocalContext, RequestContext
from airflow_dlaws.local.job_run import JobRun
from airflow_dlaws.local.processing_run import ProcessingRun


class ProcessingJobs(BatchJobs):
    """The operations on processing jobs."""

    def __init__(self, context: LocalContext) -> None:
        super().__init__(context, PROCESSING, self._prepared)

    def _prepared(self, parameters: Mapping[str, Any], request: RequestContext) -> Callable[[BatchJob], JobRun]:
        processing_request.check(parameters, self._context.client("s3", request.region), request.region)
        return lambda job: ProcessingRun(self._context, job, request.region)
