"""A training job as DescribeTrainingJob shows it: the request, its status, how it came there, and what it left."""

from __future__ import annotations

import enum
import math
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from airflow_dlaws.local.training_hosts import Choice, choices
from airflow_dlaws.local.training_request import DEFAULT_RUN_SECONDS
from airflow_dlaws.local.warm_pools import WarmPool

#: Longest FailureReason of the service model.
_REASON_LIMIT = 1024


class TrainingStatus(enum.StrEnum):
    """TrainingJobStatus."""

    IN_PROGRESS = "InProgress"
    STOPPING = "Stopping"
    COMPLETED = "Completed"
    FAILED = "Failed"
    STOPPED = "Stopped"


class SecondaryStatus(enum.StrEnum):
    """SecondaryStatus, those that this machine goes through."""

    STARTING = "Starting"
    DOWNLOADING = "Downloading"
    TRAINING = "Training"
    STOPPING = "Stopping"
    UPLOADING = "Uploading"
    COMPLETED = "Completed"
    FAILED = "Failed"
    STOPPED = "Stopped"
    MAX_RUNTIME_EXCEEDED = "MaxRuntimeExceeded"
    MAX_WAIT_TIME_EXCEEDED = "MaxWaitTimeExceeded"
    INTERRUPTED = "Interrupted"
    RESTARTING = "Restarting"


#: AWS's messages for each state; those of the last three are assumed.
_MESSAGES = {
    SecondaryStatus.STARTING: "Preparing the instances for training",
    SecondaryStatus.DOWNLOADING: "Downloading input data",
    SecondaryStatus.TRAINING: "Training image download completed. Training in progress.",
    SecondaryStatus.STOPPING: "Stopping the training job",
    SecondaryStatus.UPLOADING: "Uploading generated training model",
    SecondaryStatus.COMPLETED: "Training job completed",
    SecondaryStatus.FAILED: "Training job failed",
    SecondaryStatus.STOPPED: "Training job stopped",
    SecondaryStatus.MAX_RUNTIME_EXCEEDED: "Training job runtime exceeded MaxRuntimeInSeconds provided",
    SecondaryStatus.MAX_WAIT_TIME_EXCEEDED: "Training job wait time exceeded MaxWaitTimeInSeconds provided",
    SecondaryStatus.INTERRUPTED: "The managed spot training instances were interrupted",
    SecondaryStatus.RESTARTING: "Retrying the training job after an internal error",
}
_ENDS = {
    SecondaryStatus.COMPLETED: TrainingStatus.COMPLETED,
    SecondaryStatus.FAILED: TrainingStatus.FAILED,
    SecondaryStatus.STOPPED: TrainingStatus.STOPPED,
    SecondaryStatus.MAX_RUNTIME_EXCEEDED: TrainingStatus.STOPPED,
    SecondaryStatus.MAX_WAIT_TIME_EXCEEDED: TrainingStatus.STOPPED,
}
#: From here on the job has no instances.
_WITHOUT_INSTANCES = frozenset({SecondaryStatus.INTERRUPTED, SecondaryStatus.RESTARTING, *_ENDS})
#: Members of the request that are not described: tags are listed by ListTags, the session is nobody's business.
_NOT_DESCRIBED = frozenset({"Tags", "SessionChainingConfig"})


class TrainingJob:
    """The record of one job. Thread-safe; who runs the job tells it what happens.

    :param warm_pool: of its machines, where they are to be kept.
    :param spot_price: what a spot instance costs, as a share of the price on demand.
    """

    def __init__(
        self,
        request: Mapping[str, Any],
        arn: str,
        now: Callable[[], datetime],
        *,
        tuning_arn: str = "",
        spot_price: float = 1.0,
        warm_pool: WarmPool | None = None,
    ) -> None:
        self.request, self.arn, self._now, self._tuning_arn = request, arn, now, tuning_arn
        self._spot_price = spot_price if self.spot else 1.0
        self.warm_pool = warm_pool
        self._selected: Choice | None = None
        self.name: str = request["TrainingJobName"]
        #: Set by StopTrainingJob.
        self.stop_requested = threading.Event()
        self._lock = threading.RLock()
        self.status = TrainingStatus.IN_PROGRESS
        self.secondary = SecondaryStatus.STARTING
        self.created = self.modified = now()
        self.started: datetime | None = None
        self.ended: datetime | None = None
        #: When it got the instances that it has now, and the seconds for which it has had others.
        self._have_since: datetime | None = None
        self._had_seconds = 0.0
        self._transitions: list[dict[str, Any]] = []
        self._metrics: dict[str, dict[str, Any]] = {}
        self._series: dict[str, list[float]] = {}
        self._reason = ""
        self._artifact = ""
        self.enter(SecondaryStatus.STARTING)

    @property
    def max_runtime(self) -> float:
        """The longest it may run, in seconds."""
        return float(self.request.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", DEFAULT_RUN_SECONDS))

    @property
    def max_wait(self) -> float | None:
        """The longest a spot job may wait and run together, in seconds; None for other jobs."""
        wait = self.request.get("StoppingCondition", {}).get("MaxWaitTimeInSeconds")
        return float(wait) if self.spot and wait is not None else None

    @property
    def choices(self) -> list[Choice]:
        """What it may get, the most wanted first; nothing for a job of several groups."""
        resources = self.request["ResourceConfig"]
        return [] if "InstanceGroups" in resources else choices(resources)

    @property
    def spot(self) -> bool:
        """Whether it runs on spot instances."""
        return bool(self.request.get("EnableManagedSpotTraining"))

    @property
    def retries(self) -> int:
        """How often it is begun anew after an internal fault."""
        return int(self.request.get("RetryStrategy", {}).get("MaximumRetryAttempts", 0))

    @property
    def state(self) -> str:
        """TrainingJobStatus."""
        return self.status

    def enter(self, state: SecondaryStatus) -> None:
        """Move on to `state`."""
        with self._lock:
            self.modified = self._now()
            if state is SecondaryStatus.DOWNLOADING:
                self.started, self._have_since = self.started or self.modified, self.modified
            if state in _WITHOUT_INSTANCES and self._have_since:
                self._had_seconds += (self.modified - self._have_since).total_seconds()
                self._have_since = None
            if self._transitions:
                self._transitions[-1].setdefault("EndTime", self.modified)
            self.secondary = state
            self._transitions.append({"Status": state, "StartTime": self.modified, "StatusMessage": _MESSAGES[state]})

    def give_up_waiting(self) -> None:
        """Begin to stop, because MaxWaitTimeInSeconds are over."""
        with self._lock:
            if self.status is TrainingStatus.IN_PROGRESS:
                self.status = TrainingStatus.STOPPING
                self.enter(SecondaryStatus.STOPPING)

    def select(self, choice: Choice) -> None:
        """Note which of its choices it gets."""
        with self._lock:
            self._selected = choice

    def request_stop(self) -> bool:
        """Begin to stop; return False where the job is not in progress."""
        with self._lock:
            if self.status is not TrainingStatus.IN_PROGRESS:
                return False
            self.status = TrainingStatus.STOPPING
            self.enter(SecondaryStatus.STOPPING)
            self.stop_requested.set()
            return True

    def finish(self, state: SecondaryStatus, *, reason: str = "", artifact: str = "") -> None:
        """End the job in `state`, for a reason where it failed, with the location of the model where it left one."""
        with self._lock:
            if self.warm_pool and state is not SecondaryStatus.COMPLETED:
                self.warm_pool.give_up()
            self._reason, self._artifact = reason[:_REASON_LIMIT], artifact
            self.enter(state)
            self._transitions[-1]["EndTime"] = self.modified
            if reason:
                self._transitions[-1]["StatusMessage"] = self._reason
            if self.started:
                self.ended = self.modified
            self.status = _ENDS[state]

    def fail(self, reason: str) -> None:
        """End as Failed, for a reason."""
        self.finish(SecondaryStatus.FAILED, reason=reason)

    def record_metric(self, name: str, value: float, when: datetime) -> None:
        """Note the newest value of a metric found in the logs."""
        with self._lock:
            self._metrics[name] = {"MetricName": name, "Value": value, "Timestamp": when}
            self._series.setdefault(name, []).append(value)

    def observations(self, name: str) -> list[float]:
        """Return all values of a metric so far, in the order in which they were printed."""
        with self._lock:
            return list(self._series.get(name, ()))

    def summary(self) -> dict[str, Any]:
        """Return the job's row in ListTrainingJobs."""
        with self._lock:
            return {
                "TrainingJobName": self.name,
                "TrainingJobArn": self.arn,
                "CreationTime": self.created,
                "TrainingEndTime": self.ended,
                "LastModifiedTime": self.modified,
                "TrainingJobStatus": self.status,
                "SecondaryStatus": self.secondary,
            }

    def describe(self) -> dict[str, Any]:
        """Return the answer of DescribeTrainingJob."""
        with self._lock:
            return {
                **self._echo(),
                **self.summary(),
                "TuningJobArn": self._tuning_arn or None,
                "SecondaryStatusTransitions": [dict(transition) for transition in self._transitions],
                "TrainingStartTime": self.started,
                "FailureReason": self._reason or None,
                "ModelArtifacts": {"S3ModelArtifacts": self._artifact} if self._artifact else None,
                "FinalMetricDataList": list(self._metrics.values()) or None,
                "WarmPoolStatus": self.warm_pool.describe() if self.warm_pool else None,
                **self._seconds(),
            }

    def _echo(self) -> dict[str, Any]:
        request = {name: value for name, value in self.request.items() if name not in _NOT_DESCRIBED}
        if self._selected and "InstancePreferences" in request["ResourceConfig"]:
            selected = {
                "SelectedInstanceType": self._selected.instance_type,
                "SelectedInstanceCount": self._selected.count,
            }
            request["ResourceConfig"] = {**request["ResourceConfig"], **selected}
        flags = ("EnableNetworkIsolation", "EnableInterContainerTrafficEncryption", "EnableManagedSpotTraining")
        defaults = {"StoppingCondition": {"MaxRuntimeInSeconds": DEFAULT_RUN_SECONDS}}
        return dict.fromkeys(flags, False) | defaults | request

    def _seconds(self) -> dict[str, int]:
        """Seconds for which each instance was had, and those billed: spot instances are billed fewer."""
        if not (self.started and self.ended):
            return {}
        seconds = max(1, round(self._had_seconds))
        return {
            "TrainingTimeInSeconds": seconds,
            "BillableTimeInSeconds": max(1, math.ceil(seconds * self._spot_price)),
        }
