"""Warm pools: the machines of a job that has ended wait, for a while, for a job of the same kind.

"Train Using SageMaker Managed Warm Pools" says what must match, and how the status goes: InUse while the job runs,
then Available, then Reused by another job or Terminated. Assumed: only a job that completed leaves a pool, and a job
need not ask for a pool of its own to take another's. Terminated by hand (UpdateTrainingJob) and the seven days of a
chain are left out. The period is scaled as all waits are; the billable seconds are real ones.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from typing import Any

_MATCHED = ("RoleArn", "VpcConfig", "EnableInterContainerTrafficEncryption", "EnableNetworkIsolation")
_MATCHED_RESOURCES = ("InstanceCount", "InstanceType", "VolumeKmsKeyId", "VolumeSizeInGB")


class WarmPool:
    """The machines of one job, while it runs and after it.

    :param key: what the job that takes them must have in common with this one.
    :param keep_alive: seconds for which they wait.
    """

    def __init__(self, key: str, keep_alive: float) -> None:
        self.key, self._keep_alive = key, keep_alive
        self._lock = threading.Lock()
        self._since: float | None = None
        self._until: float | None = None
        self._reused_by = ""
        self._gone = False

    def open(self) -> None:
        """The job has completed: from now on another one may have the machines."""
        with self._lock:
            self._since = time.monotonic()

    def give_up(self) -> None:
        """The job did not complete: its machines are not kept."""
        with self._lock:
            self._gone = True

    def take(self, job: str) -> bool:
        """Give the machines to a job, if they are still there."""
        with self._lock:
            if self._status() != "Available":
                return False
            self._until, self._reused_by = time.monotonic(), job
            return True

    def describe(self) -> dict[str, Any]:
        """Return WarmPoolStatus."""
        with self._lock:
            status = self._status()
            if self._since is None or status == "Available":
                return {"Status": status}
            until = self._until or self._since + self._keep_alive
            answer: dict[str, Any] = {
                "Status": status,
                "ResourceRetainedBillableTimeInSeconds": max(0, round(until - self._since)),
            }
            return {**answer, "ReusedByJob": self._reused_by} if self._reused_by else answer

    def _status(self) -> str:
        if self._gone:
            return "Terminated"
        if self._since is None:
            return "InUse"
        if self._reused_by:
            return "Reused"
        return "Available" if time.monotonic() < self._since + self._keep_alive else "Terminated"


class WarmPools:
    """The pools of all regions."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pools: list[WarmPool] = []

    def open(self, pool: WarmPool) -> None:
        """A job has completed, and its machines wait."""
        pool.open()
        with self._lock:
            self._pools.append(pool)

    def take(self, region: str, request: Mapping[str, Any]) -> bool:
        """Give a job the machines of a pool that match; tell whether there were any."""
        key = key_of(region, request)
        with self._lock:
            matching = [pool for pool in self._pools if pool.key == key]
        return any(pool.take(request["TrainingJobName"]) for pool in matching)


def key_of(region: str, request: Mapping[str, Any]) -> str:
    """Return what two jobs must have in common; spot jobs, groups and preferences have it with none."""
    resources = request["ResourceConfig"]
    if request.get("EnableManagedSpotTraining") or "InstanceType" not in resources:
        return f"{region} {request['TrainingJobName']}"
    members = {name: request.get(name) or None for name in _MATCHED}
    members |= {name: resources.get(name) for name in _MATCHED_RESOURCES}
    return f"{region} {json.dumps(members, sort_keys=True)}"
