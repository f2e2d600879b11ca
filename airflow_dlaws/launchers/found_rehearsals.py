"""The throw-away endpoints of rehearsals, found by their tags: what a rollout that died for good has left is paid for
until somebody deletes it. An endpoint without these tags is nobody's business here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from airflow_dlaws.errors import ServiceUnavailable
from airflow_dlaws.jobs.identity import NAME_LIMIT
from airflow_dlaws.jobs.ownership import claim_of
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.reference import JobReference, JobStatus
from airflow_dlaws.launchers.aws_errors import service_errors
from airflow_dlaws.launchers.endpoint import EndpointPort
from airflow_dlaws.launchers.found_job import FoundJob
from airflow_dlaws.launchers.job_tags import DIGEST_TAG
from airflow_dlaws.launchers.rehearsal import ROLE, ROLE_TAG, remove_endpoint

KIND = ROLE
#: A failed endpoint has no instances left.
_PHASES: Mapping[str, JobPhase] = {"Deleting": JobPhase.STOPPING, "Failed": JobPhase.FAILED}


class RehearsalFinder:
    """Finds, describes and deletes throw-away endpoints. `client` gives the boto3 client of a service.

    :param tags_of: returns the tags of each of some ARNs.
    """

    def __init__(
        self, client: Callable[[str], Any], tags_of: Callable[[Iterable[str]], Mapping[str, Mapping[str, str]]]
    ) -> None:
        self._client, self._tags_of = client, tags_of

    def find(self, phases: Iterable[JobPhase], *, since: datetime | None) -> Iterator[FoundJob]:
        """Yield those in these phases.

        :param since: leaves out what was created before.
        :raises ServiceRefused: endpoints may not be listed.
        """
        after = {"CreationTimeAfter": since} if since else {}
        with service_errors("list endpoints"):
            pages = self._client("sagemaker").get_paginator("list_endpoints").paginate(MaxResults=100, **after)
            rows = {row["EndpointArn"]: row for page in pages for row in page["Endpoints"]}
        wanted = {arn: row for arn, row in rows.items() if _status(row).phase in set(phases)}
        for arn, tags in self._tags_of(wanted).items():
            if tags.get(ROLE_TAG) == ROLE and DIGEST_TAG in tags:
                yield _found(wanted[arn], tags)

    def describe(self, reference: JobReference) -> JobStatus:
        """Return how one stands; one that is gone has ended."""
        live = EndpointPort(self._client("sagemaker")).describe(reference.name)
        return JobStatus(phase=JobPhase.STOPPED if live is None else _phase(live.status.value))

    def stop(self, reference: JobReference) -> bool:
        """Delete it, with its configuration; tell whether it was there.

        :raises ServiceUnavailable: it is being created, and AWS deletes it only after that.
        """
        ran = self.describe(reference).phase is JobPhase.RUNNING
        if not remove_endpoint(self._client("sagemaker"), reference.name):
            raise ServiceUnavailable(
                f"endpoint {reference.name} is being created, which AWS lets nobody stop: try again in half an hour"
            )
        return ran


def _found(row: Mapping[str, Any], tags: Mapping[str, str]) -> FoundJob:
    name, arn = row["EndpointName"], row["EndpointArn"]
    return FoundJob(
        reference=JobReference(engine=KIND, name=name, arn=arn, region=arn.split(":")[3]),
        kind=KIND,
        claim=claim_of(tags, name, limit=NAME_LIMIT, role=ROLE),
        status=_status(row),
        tags=dict(tags),
        machines=f"1 x {tags['dlaws:machine']}" if "dlaws:machine" in tags else "?",
        instance_count=1,
    )


def _status(row: Mapping[str, Any]) -> JobStatus:
    created, status = row["CreationTime"], row["EndpointStatus"]
    return JobStatus(phase=_phase(status), detail=status, created_at=created, started_at=created)


def _phase(status: str) -> JobPhase:
    return _PHASES.get(status, JobPhase.RUNNING)
