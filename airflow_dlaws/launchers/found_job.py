"""What is told of a job of this package, whichever service has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow_dlaws.jobs.ownership import JobClaim
from airflow_dlaws.jobs.reference import JobReference, JobStatus


@dataclass(frozen=True, kw_only=True)
class FoundJob:
    """A job of this package.

    :param kind: "training", "transform", "processing", "tuning", "trial" of a sweep, "queued" with AWS Batch, "slurm"
        on a cluster, "rehearsal" for the throw-away endpoint of a rollout.
    :param claim: whose it says it is; None where its tags cannot be read.
    :param machines: such as "2 x ml.g5.xlarge"; "?" where the request says it in a way not known here.
    :param instance_count: machines at the same time, 0 if not known.
    :param tuner: ARN of the tuning job that has launched it, and that alone can end it for good.
    """

    reference: JobReference
    kind: str
    claim: JobClaim | None
    status: JobStatus
    tags: Mapping[str, str]
    machines: str
    instance_count: int
    tuner: str = ""

    def billable_seconds(self, now: datetime) -> int:
        """Return the instance-seconds that are to be paid for so far; a tuning job's stand with its trials."""
        if self.kind == "tuning":
            return 0
        seconds = self.status.billable_seconds
        if not self.status.terminal and self.status.started_at:
            seconds = max(0, round((now - self.status.started_at).total_seconds()))
        return seconds * max(1, self.instance_count)


def machines_of(answer: Mapping[str, Any], path: tuple[str, ...]) -> tuple[str, int]:
    """Return what a job runs on, and how many machines that are."""
    resources: Any = answer
    for member in path:
        resources = resources.get(member) or {}
    groups = resources.get("InstanceGroups") or [resources]
    rows = [(group.get("InstanceCount"), group.get("InstanceType")) for group in groups]
    if not all(count and instance for count, instance in rows):
        return "?", 0
    return " + ".join(f"{count} x {instance}" for count, instance in rows), sum(count for count, _ in rows)
