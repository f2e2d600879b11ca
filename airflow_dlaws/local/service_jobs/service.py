"""The operations of AWS Batch on service jobs, their queues and environments. Batch's container jobs are not here."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from werkzeug.wrappers import Request, Response

from airflow_dlaws.local import dispatch, protocol, service_model
from airflow_dlaws.local.context import Handler, LocalContext, PerRegion, RequestContext
from airflow_dlaws.local.errors import ServiceError, unsupported, unsupported_operation
from airflow_dlaws.local.service_jobs.job import ServiceJob
from airflow_dlaws.local.service_jobs.queues import QueueBook, batch_arn, check_name, client_error
from airflow_dlaws.local.service_jobs.scheduler import Scheduler
from airflow_dlaws.local.training import TrainingJobs

_PAGE = 100


class Batch:
    """The service `batch`."""

    def __init__(self, context: LocalContext, training: TrainingJobs) -> None:
        self._context, self._training = context, training
        self._books: PerRegion[QueueBook] = PerRegion(QueueBook)
        self._schedulers: dict[str, Scheduler] = {}
        self.operations: dict[str, Handler] = {
            "CreateServiceEnvironment": lambda asked, request: self._book(request).create_environment(asked, request),
            "DescribeServiceEnvironments": self._describe_environments,
            "CreateJobQueue": lambda asked, request: self._book(request).create_queue(asked, request),
            "DescribeJobQueues": self._describe_queues,
            "SubmitServiceJob": self._submit,
            "DescribeServiceJob": lambda asked, request: self._job(asked, request).describe(),
            "ListServiceJobs": self._list,
            "TerminateServiceJob": self._terminate,
        }

    def close(self) -> None:
        """End; the context's `closing` is set."""
        for scheduler in self._schedulers.values():
            scheduler.close()

    def answer(self, request: Request, region: str) -> Response:
        """Answer a request signed for `batch`."""
        return dispatch.guarded(protocol.rest_error, lambda: self._answer(request, region))

    def _answer(self, request: Request, region: str) -> Response:
        found = protocol.rest_operation(service_model.load("batch"), request)
        if found is None or found[0].name not in self.operations:
            name = found[0].name if found else f"{request.method} {request.path}"
            raise unsupported_operation(name, list(self.operations))
        operation, path = found
        document = protocol.rest_parameters(operation, request, path)
        try:
            answer = dispatch.perform(self._context, self.operations[operation.name], operation, document, region)
        except ServiceError as error:
            if error.code == "ValidationException":  # Batch has one code for all that is wrong with a request
                raise client_error(error.message) from error
            raise
        return protocol.rest_answer(operation, answer)

    def _book(self, request: RequestContext) -> QueueBook:
        return self._books[request.region]

    def _scheduler(self, request: RequestContext) -> Scheduler:
        new = Scheduler(self._context, self._training, self._book(request), request.region)
        return self._schedulers.setdefault(request.region, new)

    def _describe_environments(self, asked: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        return {"serviceEnvironments": self._book(request).environments(asked.get("serviceEnvironments", []))}

    def _describe_queues(self, asked: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        return {"jobQueues": self._book(request).queues(asked.get("jobQueues", []))}

    def _submit(self, asked: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        _check_submission(asked)
        queue = self._book(request).queue(asked["jobQueue"])
        if queue["state"] != "ENABLED":
            raise client_error(f"Job queue {asked['jobQueue']} is not enabled")
        job_id = str(uuid.uuid4())
        arn = batch_arn(request, "service-job", job_id)
        job = ServiceJob(asked, job_id=job_id, arn=arn, queue_arn=queue["jobQueueArn"], now=self._context.now)
        self._scheduler(request).submit(job)
        return {"jobId": job.id, "jobArn": job.arn, "jobName": job.name}

    def _job(self, asked: Mapping[str, Any], request: RequestContext) -> ServiceJob:
        job = self._scheduler(request).get(asked["jobId"])
        if job is None:
            raise client_error(f"Service job {asked['jobId']} does not exist")
        return job

    def _terminate(self, asked: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        self._scheduler(request).terminate(self._job(asked, request), asked["reason"])
        return {}

    def _list(self, asked: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        """Answer ListServiceJobs, with the filter JOB_NAME alone."""
        if "jobQueue" not in asked:
            raise client_error("jobQueue must be specified")
        queue = self._book(request).queue(asked["jobQueue"])
        rows = [job for job in self._scheduler(request).jobs() if job.queue_arn == queue["jobQueueArn"]]
        filters = asked.get("filters", [])
        if filters:
            if len(filters) != 1 or filters[0].get("name") != "JOB_NAME":
                raise unsupported("filters of ListServiceJobs other than one JOB_NAME")
            rows = [job for job in rows if _matches(job.name, filters[0].get("values", []))]
        else:
            status = asked.get("jobStatus", "RUNNING")
            rows = [job for job in rows if job.status == status]
        start, most = int(asked.get("nextToken", "0")), int(asked.get("maxResults", _PAGE))
        page = [job.summary() for job in rows[start : start + most]]
        more = start + most < len(rows)
        return {"jobSummaryList": page, **({"nextToken": str(start + most)} if more else {})}


def _check_submission(asked: Mapping[str, Any]) -> None:
    """Refuse what Batch refuses; the payload is passed on without validation, as AWS says."""
    check_name("jobName", asked["jobName"])
    for member in ("shareIdentifier", "quotaShareName", "preemptionConfiguration"):
        if member in asked:
            raise client_error(f"{member} is for job queues with a scheduling policy, and this one has none")
    if "timeoutConfig" in asked:
        raise unsupported("timeoutConfig of a service job; give the payload a StoppingCondition")
    attempts, priority = asked.get("retryStrategy", {}).get("attempts", 1), asked.get("schedulingPriority", 0)
    if not 1 <= attempts <= 10:
        raise client_error(f"retryStrategy.attempts {attempts} must be between 1 and 10")
    if not 0 <= priority <= 9999:
        raise client_error(f"schedulingPriority {priority} must be between 0 and 9999")


def _matches(name: str, patterns: list[str]) -> bool:
    """Match names as the filter JOB_NAME does: without regard to case, and by beginning before an asterisk."""
    lowered = name.lower()
    return any(
        lowered.startswith(pattern[:-1].lower()) if pattern.endswith("*") else lowered == pattern.lower()
        for pattern in patterns
    )
