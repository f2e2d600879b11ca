"""A processing or transform job as its Describe operation shows it: the request, its status, and how it ended.

The two differ in the names of members: ProcessingJobStatus and TransformJobStatus, ProcessingEndTime and so on.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

#: Longest FailureReason and ExitMessage of the service model.
_TEXT_LIMIT = 1024
#: AWS's default for MaxRuntimeInSeconds of a processing job is one day; a transform job has no limit of its own.
DEFAULT_RUN_SECONDS = 86_400


class BatchStatus(enum.StrEnum):
    """ProcessingJobStatus, TransformJobStatus."""

    IN_PROGRESS = "InProgress"
    STOPPING = "Stopping"
    COMPLETED = "Completed"
    FAILED = "Failed"
    STOPPED = "Stopped"


class BatchJob:
    """The record of one job. Thread-safe; who runs the job tells it what happens.

    :param noun: "Processing" or "Transform", as the members of the service model begin.
    :param defaults: members that are described though the request did not have them.
    """

    def __init__(
        self,
        noun: str,
        request: Mapping[str, Any],
        arn: str,
        now: Callable[[], datetime],
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        self.request, self.arn, self._noun, self._now = request, arn, noun, now
        self.name: str = request[f"{noun}JobName"]
        #: Set by the Stop operation.
        self.stop_requested = threading.Event()
        self._defaults = dict(defaults or {})
        self._lock = threading.RLock()
        self.status = BatchStatus.IN_PROGRESS
        self.created = self.modified = now()
        self._started: datetime | None = None
        self._ended: datetime | None = None
        self._reason = self._message = ""

    @property
    def state(self) -> str:
        """The status in AWS's words."""
        return self.status

    @property
    def max_runtime(self) -> float:
        """The longest it may run, in seconds."""
        return float(self.request.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", DEFAULT_RUN_SECONDS))

    def begin(self) -> None:
        """Note that the machines are there: from now on they are paid for."""
        with self._lock:
            self._started = self.modified = self._now()

    def request_stop(self) -> bool:
        """Begin to stop; return False where the job is not in progress."""
        with self._lock:
            if self.status is not BatchStatus.IN_PROGRESS:
                return False
            self.status, self.modified = BatchStatus.STOPPING, self._now()
            self.stop_requested.set()
            return True

    def finish(self, status: BatchStatus, *, reason: str = "", message: str = "") -> None:
        """End the job, for a reason where it failed, with what a processing container had to say."""
        with self._lock:
            self._reason, self._message = reason[:_TEXT_LIMIT], message[:_TEXT_LIMIT]
            self.modified = self._now()
            if self._started:
                self._ended = self.modified
            self.status = status

    def fail(self, reason: str) -> None:
        """End as Failed, for a reason."""
        self.finish(BatchStatus.FAILED, reason=reason)

    def summary(self) -> dict[str, Any]:
        """Return the job's row in the answer of List."""
        with self._lock:
            return {
                f"{self._noun}JobName": self.name,
                f"{self._noun}JobArn": self.arn,
                "CreationTime": self.created,
                f"{self._noun}EndTime": self._ended,
                "LastModifiedTime": self.modified,
                f"{self._noun}JobStatus": self.status,
                "FailureReason": self._reason or None,
                **self._exit_message(),
            }

    def describe(self) -> dict[str, Any]:
        """Return the answer of Describe."""
        with self._lock:
            echo = {name: value for name, value in self.request.items() if name != "Tags"}
            times = {f"{self._noun}StartTime": self._started, **self.summary()}
            if self._noun == "Transform":
                times.pop("LastModifiedTime")  # only the list has it
            return {**self._defaults, **echo, **times}

    def _exit_message(self) -> dict[str, str]:
        return {"ExitMessage": self._message} if self._message else {}
