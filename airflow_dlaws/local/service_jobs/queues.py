"""Service environments, which bound how many instances run at a time, and the queues of jobs before them."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import Any

from airflow_dlaws.local.context import RequestContext
from airflow_dlaws.local.errors import ServiceError, unsupported

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


def client_error(message: str) -> ServiceError:
    """Batch's answer to every bad request."""
    return ServiceError("ClientException", message)


def batch_arn(request: RequestContext, kind: str, name: str) -> str:
    """Return the ARN of a resource of Batch."""
    return f"arn:aws:batch:{request.region}:{request.account}:{kind}/{name}"


def check_name(member: str, name: str) -> None:
    """Refuse what Batch refuses as a name."""
    if not _NAME.fullmatch(name):
        raise client_error(f"{member} {name} must be 1 to 128 letters, numbers, hyphens and underscores")


class QueueBook:
    """The service environments and job queues of one region. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._environments: dict[str, dict[str, Any]] = {}
        self._queues: dict[str, dict[str, Any]] = {}

    def create_environment(self, parameters: Mapping[str, Any], request: RequestContext) -> dict[str, str]:
        """Answer CreateServiceEnvironment."""
        name, limits = parameters["serviceEnvironmentName"], parameters["capacityLimits"]
        check_name("serviceEnvironmentName", name)
        if len(limits) != 1 or limits[0].get("capacityUnit") != "NUM_INSTANCES" or limits[0].get("maxCapacity", 0) < 1:
            raise client_error(f"capacityLimits {limits} must be one maxCapacity of at least 1 in NUM_INSTANCES")
        arn = batch_arn(request, "service-environment", name)
        environment = {"state": "ENABLED", **parameters, "serviceEnvironmentArn": arn, "status": "VALID"}
        with self._lock:
            if name in self._environments:
                raise client_error(f"Object already exists: {name}")
            self._environments[name] = environment
        return {"serviceEnvironmentName": name, "serviceEnvironmentArn": arn}

    def create_queue(self, parameters: Mapping[str, Any], request: RequestContext) -> dict[str, str]:
        """Answer CreateJobQueue."""
        name = parameters["jobQueueName"]
        check_name("jobQueueName", name)
        if parameters.get("jobQueueType") != "SAGEMAKER_TRAINING":
            raise unsupported("job queues other than those of type SAGEMAKER_TRAINING")
        for member in ("schedulingPolicyArn", "jobStateTimeLimitActions", "computeEnvironmentOrder"):
            if parameters.get(member):
                raise unsupported(f"{member} of a job queue")
        order = parameters.get("serviceEnvironmentOrder", [])
        if len(order) != 1:
            raise client_error(f"serviceEnvironmentOrder {order} must name one service environment")
        environment = self.environment(order[0]["serviceEnvironment"])
        arn = batch_arn(request, "job-queue", name)
        with self._lock:
            if name in self._queues:
                raise client_error(f"Object already exists: {name}")
            self._queues[name] = {
                "state": "ENABLED",
                **parameters,
                "serviceEnvironmentOrder": [
                    {"order": order[0]["order"], "serviceEnvironment": environment["serviceEnvironmentArn"]}
                ],
                "jobQueueArn": arn,
                "status": "VALID",
                "computeEnvironmentOrder": [],
            }
        return {"jobQueueName": name, "jobQueueArn": arn}

    def environment(self, name: str) -> dict[str, Any]:
        """Return a service environment by name or ARN."""
        with self._lock:
            found = self._environments.get(_name(name))
        if found is None:
            raise client_error(f"Service environment {name} does not exist")
        return found

    def queue(self, name: str) -> dict[str, Any]:
        """Return a job queue by name or ARN."""
        with self._lock:
            found = self._queues.get(_name(name))
        if found is None:
            raise client_error(f"Job queue {name} does not exist")
        return found

    def environments(self, names: list[str]) -> list[dict[str, Any]]:
        """Return the rows of DescribeServiceEnvironments; names that do not exist are left out, as AWS does."""
        with self._lock:
            return [row for name, row in self._environments.items() if not names or name in map(_name, names)]

    def queues(self, names: list[str]) -> list[dict[str, Any]]:
        """Return the rows of DescribeJobQueues."""
        with self._lock:
            return [row for name, row in self._queues.items() if not names or name in map(_name, names)]


def _name(name_or_arn: str) -> str:
    return name_or_arn.rpartition("/")[2]
