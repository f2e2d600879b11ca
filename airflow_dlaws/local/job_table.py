"""The jobs of one kind: who has which name, and the threads that run them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from airflow_dlaws.local.context import LocalContext, PerRegion
from airflow_dlaws.local.errors import resource_in_use, validation_error

#: A job gets no grace when the server goes down; this is for shipping its last log lines.
_CLOSE_SECONDS = 10.0


class Job(Protocol):
    """What all records of jobs can say and do."""

    name: str
    arn: str

    @property
    def state(self) -> str:
        """The job's status, in AWS's words."""

    def request_stop(self) -> bool:
        """Begin to stop; return False where the job is not in progress."""

    def summary(self) -> dict[str, Any]:
        """Return the job's row in the answer of List."""


JobT = TypeVar("JobT", bound=Job)


class _Region(Generic[JobT]):
    """The jobs of one region. A name is taken for ever."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.jobs: dict[str, JobT] = {}


class JobTable(Generic[JobT]):
    """All jobs of one kind. Thread-safe.

    :param noun: as in AWS's messages, "training job".
    """

    def __init__(self, context: LocalContext, noun: str) -> None:
        self._context, self._noun = context, noun
        self._regions: PerRegion[_Region[JobT]] = PerRegion(_Region)
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def start(self, job: JobT, region: str, request: Mapping[str, Any], perform: Callable[[], None]) -> None:
        """Take the job up and let a thread perform it.

        :raises ServiceError: ResourceInUse, the name is taken.
        """
        place = self._regions[region]
        with place.lock:
            if job.name in place.jobs:
                raise resource_in_use(
                    f"{self._noun.capitalize()} names must be unique within an AWS account and region, and a "
                    f"{self._noun} with this name already exists ({job.arn})"
                )
            place.jobs[job.name] = job
            self._context.tags.create(job.arn, request.get("Tags"))
        thread = threading.Thread(target=perform, name=f"{self._noun} {job.name}", daemon=True)
        with self._lock:
            self._threads = [other for other in self._threads if other.is_alive()] + [thread]
            thread.start()

    def get(self, name: str, region: str) -> JobT | None:
        """Return the job of that name, if there is one."""
        place = self._regions[region]
        with place.lock:
            return place.jobs.get(name)

    def summaries(self, region: str) -> list[dict[str, Any]]:
        """Return the rows for List."""
        place = self._regions[region]
        with place.lock:
            return [job.summary() for job in place.jobs.values()]

    def stop(self, job: JobT) -> None:
        """Begin to stop a job.

        :raises ServiceError: it is not in progress.
        """
        if not job.request_stop():
            raise validation_error(f"The request was rejected because the {self._noun} is in status {job.state}")

    def close(self) -> None:
        """Wait for the end of all jobs; the context's `closing` is set."""
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(_CLOSE_SECONDS)
