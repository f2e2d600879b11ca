"""What must hold after every round of chaos, read from the local AWS's own books and from Airflow's.

Pure functions over records: a violation is a sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

#: (run id, task id, map index): one task instance, through all its lives.
TaskKey = tuple[str, str, int]


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """A job as its service tells of it.

    :param marker: the life of the task it was created in.
    :param wanted_until: when it ended or was asked to stop; None while it runs and nobody has asked.
    """

    name: str
    task: TaskKey
    marker: int
    status: str
    created: datetime
    wanted_until: datetime | None

    @property
    def running(self) -> bool:
        """Whether it costs money and nobody has asked it to stop."""
        return self.wanted_until is None


@dataclass(frozen=True, kw_only=True)
class TaskRecord:
    """A task instance as Airflow tells of it, and what it has handed on."""

    task: TaskKey
    state: str
    marker: int
    artifact_uri: str = ""
    job_name: str = ""


@dataclass
class RoundBooks:
    """All jobs and task instances of a round. `artifacts` holds the URIs that were found in S3, with bytes in them."""

    jobs: list[JobRecord]
    tasks: list[TaskRecord]
    artifacts: set[str] = field(default_factory=set)

    def violations(self) -> list[str]:
        """Return what is wrong; nothing is the only answer that passes."""
        return [*never_two_at_a_time(self.jobs), *one_success_a_life(self.jobs), *self.green_means_done()]

    def green_means_done(self) -> Iterable[str]:
        """A green task has the artifact it names, made by a job of its own life that completed."""
        jobs = {job.name: job for job in self.jobs}
        for task in self.tasks:
            if task.state != "success":
                continue
            if task.artifact_uri not in self.artifacts:
                yield f"{task.task} is green and its artifact {task.artifact_uri!r} is not there"
            job = jobs.get(task.job_name)
            if job is None or (job.task, job.marker, job.status) != (task.task, task.marker, "Completed"):
                yield f"{task.task} is green by a job that is not its own or has not completed: {task.job_name} {job}"


def never_two_at_a_time(jobs: Sequence[JobRecord]) -> Iterable[str]:
    """No task instance, in whatever lives, has two jobs that run at the same time and nobody has asked to stop."""
    for task, own in by_task(jobs).items():
        for former, later in pairwise(sorted(own, key=lambda job: job.created)):
            if former.wanted_until is None or former.wanted_until > later.created:
                yield f"{task} had two jobs at the same time: {former} and {later}"


def one_success_a_life(jobs: Sequence[JobRecord]) -> Iterable[str]:
    """A life pays once: after a completed job there is no other, and what came before has failed or was stopped."""
    lives: dict[tuple[TaskKey, int], list[JobRecord]] = {}
    for job in jobs:
        lives.setdefault((job.task, job.marker), []).append(job)
    for (task, marker), own in lives.items():
        *former, _ = sorted(own, key=lambda job: job.created)
        for job in former:
            if job.status not in ("Failed", "Stopped", "Stopping"):
                yield f"{task} in life {marker} started a job after {job}"


def left_running(jobs: Sequence[JobRecord], tasks: Sequence[TaskRecord]) -> list[JobRecord]:
    """Return the jobs that run although their task has ended, was cleared since, or is gone."""
    now = {task.task: task for task in tasks}
    ended = {"success", "failed", "skipped", "upstream_failed", "removed"}

    def owned(job: JobRecord) -> bool:
        task = now.get(job.task)
        return task is not None and task.marker == job.marker and task.state not in ended

    return [job for job in jobs if job.running and not owned(job)]


def by_task(jobs: Iterable[JobRecord]) -> dict[TaskKey, list[JobRecord]]:
    """Return the jobs of each task instance."""
    found: dict[TaskKey, list[JobRecord]] = {}
    for job in jobs:
        found.setdefault(job.task, []).append(job)
    return found


def job_record(answer: Mapping[str, Any], tags: Mapping[str, str]) -> JobRecord:
    """Read DescribeTrainingJob's answer."""
    stopping = [row["StartTime"] for row in answer["SecondaryStatusTransitions"] if row["Status"] == "Stopping"]
    ended = answer["TrainingJobStatus"] in ("Completed", "Failed", "Stopped")
    last = answer["LastModifiedTime"] if ended else None
    return JobRecord(
        name=answer["TrainingJobName"],
        task=(tags["dlaws:run"], tags["dlaws:task"], int(tags["dlaws:map-index"])),
        marker=int(tags["dlaws:clear-marker"]),
        status=answer["TrainingJobStatus"],
        created=answer["CreationTime"],
        wanted_until=min([*stopping, *([last] if last else [])], default=None),
    )
