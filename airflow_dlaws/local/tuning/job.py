"""A tuning job as DescribeHyperParameterTuningJob shows it: request, status, the training jobs it has launched."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from airflow_dlaws.local.training_job import TrainingStatus
from airflow_dlaws.local.tuning.child import Child, ObjectiveStatus
from airflow_dlaws.local.tuning.progress import Criteria, Tally, not_improving

#: Members of the request that the description repeats.
_ECHOED = ("HyperParameterTuningJobName", "HyperParameterTuningJobConfig", "TrainingJobDefinition")


class TuningStatus(enum.StrEnum):
    """HyperParameterTuningJobStatus."""

    IN_PROGRESS = "InProgress"
    STOPPING = "Stopping"
    COMPLETED = "Completed"
    FAILED = "Failed"
    STOPPED = "Stopped"


class TuningJob:
    """The record of one tuning job. Thread-safe; who runs it tells it what happens."""

    def __init__(self, request: Mapping[str, Any], arn: str, now: Callable[[], datetime]) -> None:
        self.request, self.arn, self._now = request, arn, now
        self.name: str = request["HyperParameterTuningJobName"]
        self.config: Mapping[str, Any] = request["HyperParameterTuningJobConfig"]
        self.criteria = Criteria.read(self.config)
        #: Set by StopHyperParameterTuningJob.
        self.stop_requested = threading.Event()
        self._lock = threading.RLock()
        self.status = TuningStatus.IN_PROGRESS
        self.created = self.modified = now()
        self.ended: datetime | None = None
        self._reason = ""
        self._children: list[Child] = []
        self._ended: list[Child] = []

    @property
    def objective(self) -> Mapping[str, str]:
        """Type and MetricName."""
        objective: Mapping[str, str] = self.config["HyperParameterTuningJobObjective"]
        return objective

    @property
    def children(self) -> list[Child]:
        """All training jobs, in the order of their launch."""
        with self._lock:
            return list(self._children)

    @property
    def tally(self) -> Tally:
        """What has come of the training jobs whose end was noted."""
        with self._lock:
            silent = [
                child for child in self._ended
                if child.job.status is TrainingStatus.COMPLETED and child.objective is None
            ]  # fmt: skip
            return Tally(objectives=[child.objective for child in self._ended], silent=len(silent))

    def launched(self, child: Child) -> None:
        """Note a training job."""
        with self._lock:
            self._children.append(child)
            self.modified = self._now()

    def note_ends(self) -> list[Child]:
        """Note the training jobs that have ended since the last call, and return them."""
        with self._lock:
            known = {id(child) for child in self._ended}
            fresh = [child for child in self._children if not child.running and id(child) not in known]
            fresh.sort(key=lambda child: child.job.modified)
            self._ended += fresh
            if fresh:
                self.modified = self._now()
            return fresh

    def request_stop(self) -> bool:
        """Begin to stop; return False where the job is not in progress."""
        with self._lock:
            if self.status is not TuningStatus.IN_PROGRESS:
                return False
            self.status, self.modified = TuningStatus.STOPPING, self._now()
            self.stop_requested.set()
            return True

    def finish(self, status: TuningStatus, reason: str = "") -> None:
        """End the job."""
        with self._lock:
            self.status = TuningStatus.STOPPED if self.stop_requested.is_set() else status
            self._reason = "" if self.status is TuningStatus.STOPPED else reason
            self.modified = self.ended = self._now()

    def best(self) -> Child | None:
        """Return the child with the best objective."""
        found = [(child.objective, child) for child in self.children if child.objective is not None]
        if not found:
            return None
        sign = 1 if self.criteria.minimize else -1
        return min(found, key=lambda pair: sign * pair[0])[1]

    def summary(self) -> dict[str, Any]:
        """Return the job's row in ListHyperParameterTuningJobs."""
        with self._lock:
            return {
                "HyperParameterTuningJobName": self.name,
                "HyperParameterTuningJobArn": self.arn,
                "HyperParameterTuningJobStatus": self.status,
                "Strategy": self.config["Strategy"],
                "CreationTime": self.created,
                "HyperParameterTuningEndTime": self.ended,
                "LastModifiedTime": self.modified,
                **self._counters(),
                "ResourceLimits": self.config["ResourceLimits"],
            }

    def describe(self) -> dict[str, Any]:
        """Return the answer of DescribeHyperParameterTuningJob.

        OverallBestTrainingJob belongs to warm starts, which are refused.
        """
        with self._lock:
            best = self.best()
            answer = {
                name: value for name, value in self.summary().items() if name not in {"Strategy", "ResourceLimits"}
            }
            return {
                **answer,
                **{member: self.request[member] for member in _ECHOED},
                "BestTrainingJob": best.summary() if best else None,
                "FailureReason": self._reason or None,
                "TuningJobCompletionDetails": {
                    "NumberOfTrainingJobsObjectiveNotImproving": not_improving(
                        self.tally.found, minimize=self.criteria.minimize
                    )
                },
                "ConsumedResources": {
                    "RuntimeInSeconds": round(((self.ended or self._now()) - self.created).total_seconds())
                },
            }

    def _counters(self) -> dict[str, dict[str, int]]:
        children = self.children
        kinds = [child.kind for child in children]
        objectives = [child.objective_status for child in children]
        counted = ("Completed", "InProgress", "RetryableError", "NonRetryableError", "Stopped")
        return {
            "TrainingJobStatusCounters": {kind: kinds.count(kind) for kind in counted},
            "ObjectiveStatusCounters": {status.value: objectives.count(status) for status in ObjectiveStatus},
        }
