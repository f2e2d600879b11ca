"""Create, Describe, Stop and List of processing and transform jobs, which differ in their nouns and their runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_dlaws.local import listing
from airflow_dlaws.local.batch_job import BatchJob
from airflow_dlaws.local.context import Handler, LocalContext, RequestContext
from airflow_dlaws.local.errors import validation_error
from airflow_dlaws.local.job_run import JobRun
from airflow_dlaws.local.job_table import JobTable

#: Checks a Create request and returns how a job made of it will be run.
Prepare = Callable[[Mapping[str, Any], RequestContext], Callable[[BatchJob], JobRun]]


@dataclass(frozen=True, kw_only=True)
class BatchKind:
    """One of the two kinds.

    :param noun: as members and operations begin, "Processing".
    :param not_stopped: what Stop answers where there is no such job, before its name.
    :param defaults: members that are described though the request did not have them.
    """

    noun: str
    not_stopped: str
    defaults: Mapping[str, Any]


PROCESSING = BatchKind(
    noun="Processing",
    not_stopped="Could not find requested job with name",
    defaults={"StoppingCondition": {"MaxRuntimeInSeconds": 86_400}},
)
#: "Could not find job to update with name" is what clients of StopTransformJob match on.
TRANSFORM = BatchKind(noun="Transform", not_stopped="Could not find job to update with name", defaults={})


class BatchJobs:
    """The operations on the jobs of one kind.

    :param prepare: raises ServiceError for a request that AWS would refuse, or that cannot be done here.
    """

    def __init__(self, context: LocalContext, kind: BatchKind, prepare: Prepare) -> None:
        self._context, self._kind, self._prepare = context, kind, prepare
        self._noun = kind.noun
        self._jobs: JobTable[BatchJob] = JobTable(context, f"{kind.noun.lower()} job")

    def operations(self) -> dict[str, Handler]:
        """See `Resource`."""
        return {
            f"Create{self._noun}Job": self._create,
            f"Describe{self._noun}Job": self._describe,
            f"Stop{self._noun}Job": self._stop,
            f"List{self._noun}Jobs": self._list,
        }

    def runtime_operations(self) -> dict[str, Handler]:
        """See `Resource`."""
        return {}

    def close(self) -> None:
        """End all jobs; the context's `closing` is set."""
        self._jobs.close()

    def _create(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        make_run = self._prepare(parameters, request)
        arn = request.arn(f"{self._noun.lower()}-job", parameters[f"{self._noun}JobName"].lower())
        job = BatchJob(self._noun, parameters, arn, self._context.now, self._kind.defaults)
        self._jobs.start(job, request.region, parameters, make_run(job).perform)
        return {f"{self._noun}JobArn": arn}

    def _describe(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        return self._existing(parameters, request, "Could not find requested job with name").describe()

    def _stop(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        self._jobs.stop(self._existing(parameters, request, self._kind.not_stopped))
        return {}

    def _list(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        return listing.page(
            self._jobs.summaries(request.region),
            parameters,
            into=f"{self._noun}JobSummaries",
            name=f"{self._noun}JobName",
            exact={"StatusEquals": f"{self._noun}JobStatus"},
        )

    def _existing(self, parameters: dict[str, Any], request: RequestContext, sentence: str) -> BatchJob:
        name = parameters[f"{self._noun}JobName"]
        job = self._jobs.get(name, request.region)
        if job is None:
            raise validation_error(f"{sentence}: {name}")
        return job
