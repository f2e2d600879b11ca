"""The service jobs that this package has queued with AWS Batch, in every queue for training of an account and region.

Batch keeps no list over all queues, and its rows carry no tags: each queue is asked, and each job in it is described,
other teams' too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

from airflow_dlaws.jobs.identity import NAME_LIMIT
from airflow_dlaws.jobs.ownership import claim_of
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.reference import JobReference
from airflow_dlaws.launchers.aws_errors import service_errors
from airflow_dlaws.launchers.batch import JOB_TYPE, SERVICE_STATES, BatchLauncher
from airflow_dlaws.launchers.found_job import FoundJob, machines_of
from airflow_dlaws.launchers.job_tags import DIGEST_TAG

KIND = "queued"


class ServiceJobFinder:
    """Finds service jobs through an injected client ("batch").

    :param client: gives the boto3 client of a service by name.
    """

    def __init__(self, client: Callable[[str], Any]) -> None:
        self._client, self.launcher = client, BatchLauncher(client)

    def find(self, phases: Iterable[JobPhase], *, since: datetime | None = None) -> dict[str, FoundJob]:
        """Return the jobs in these phases, each by the name of the training job that it has become, or else by its ARN.

        :param since: leaves out what was created before.
        :raises ServiceUnavailable: or ServiceRefused; half a list would be mistaken for a whole one.
        """
        wanted = frozenset(phases)
        found: dict[str, FoundJob] = {}
        for queue in self._queues():
            for row in self._listed(queue, wanted):
                answer = self.launcher.description_of(row["jobId"])
                job = self._described(answer) if DIGEST_TAG in answer.get("tags", {}) else None
                created = job.status.created_at if job else None
                if job and job.status.phase in wanted and not (since and created and created < since):
                    found[self.launcher.training_name(answer) or job.reference.arn] = job
        return found

    def _queues(self) -> Iterator[str]:
        with service_errors("list the job queues of AWS Batch"):
            for page in self._client("batch").get_paginator("describe_job_queues").paginate():
                yield from (row["jobQueueArn"] for row in page["jobQueues"] if row.get("jobQueueType") == JOB_TYPE)

    def _listed(self, queue: str, phases: frozenset[JobPhase]) -> Iterator[dict[str, Any]]:
        """Return the rows of one queue that may be in these phases: a job that is being stopped keeps its state."""
        may_be = phases | ({JobPhase.PENDING, JobPhase.RUNNING} if JobPhase.STOPPING in phases else set())
        may_be |= {JobPhase.FAILED} if JobPhase.STOPPED in phases else set()
        with service_errors(f"list the service jobs of {queue}"):
            pages = self._client("batch").get_paginator("list_service_jobs")
            for state in (state for state, phase in SERVICE_STATES.items() if phase in may_be):
                for page in pages.paginate(jobQueue=queue, jobStatus=state):
                    yield from page["jobSummaryList"]

    def _described(self, answer: dict[str, Any]) -> FoundJob:
        name, arn, tags = str(answer["jobName"]), str(answer["jobArn"]), dict(answer["tags"])
        machines, count = machines_of(json.loads(answer["serviceRequestPayload"]), ("ResourceConfig",))
        return FoundJob(
            reference=JobReference(engine="batch", name=name, arn=arn, region=arn.split(":")[3]),
            kind=KIND,
            claim=claim_of(tags, name, limit=NAME_LIMIT),
            status=self.launcher.read_status(answer),
            tags=tags,
            machines=machines,
            instance_count=count,
        )
