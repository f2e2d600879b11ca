"""An endpoint: its status, the fleet that serves it, and what DescribeEndpoint tells of it."""

from __future__ import annotations

import enum
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from airflow_dlaws.local.endpoint_configs import EndpointConfig
from airflow_dlaws.local.fleet import Fleet, TrafficTable
from airflow_dlaws.local.model_server import VariantSpec


class EndpointStatus(enum.StrEnum):
    """EndpointStatus. RollingBack belongs to autoscaling: here it shows only where a fault orders it."""

    CREATING = "Creating"
    IN_SERVICE = "InService"
    UPDATING = "Updating"
    SYSTEM_UPDATING = "SystemUpdating"
    ROLLING_BACK = "RollingBack"
    UPDATE_ROLLBACK_FAILED = "UpdateRollbackFailed"
    OUT_OF_SERVICE = "OutOfService"
    DELETING = "Deleting"
    FAILED = "Failed"


#: While one of these lasts, AWS takes no other change.
IN_PROGRESS = frozenset(
    {
        EndpointStatus.CREATING,
        EndpointStatus.UPDATING,
        EndpointStatus.SYSTEM_UPDATING,
        EndpointStatus.ROLLING_BACK,
        EndpointStatus.DELETING,
    }
)
#: In these an endpoint has no fleet that takes requests.
NOT_FOUND_BY_REQUESTS = frozenset({EndpointStatus.CREATING, EndpointStatus.FAILED, EndpointStatus.DELETING})


@dataclass
class Endpoint:
    """One endpoint. Whoever changes several fields holds `lock`."""

    name: str
    arn: str
    created: datetime
    config: EndpointConfig
    deployment_config: Mapping[str, Any] | None
    modified: datetime
    status: EndpointStatus = EndpointStatus.CREATING
    failure_reason: str | None = None
    fleet: Fleet | None = None
    #: A second fleet that a failed rollback left behind.
    leftover: Fleet | None = None
    traffic: TrafficTable = field(default_factory=TrafficTable)
    pending: dict[str, Any] | None = None
    #: How many instances of the fleet a rolling update under way has ended, by variant.
    retired: Mapping[str, int] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def settle(self, status: EndpointStatus, at: datetime, reason: str | None = None) -> None:
        """Leave a change behind: new status, nothing pending."""
        with self.lock:
            self.status, self.failure_reason, self.pending, self.modified = status, reason, None, at
            self.retired = {}

    def fleets(self) -> list[Fleet]:
        """Every fleet that runs for it."""
        return [fleet for fleet in (self.fleet, self.leftover) if fleet is not None]

    def describe(self) -> dict[str, Any]:
        """The answer of DescribeEndpoint."""
        with self.lock:
            answer = {
                **self.summary(),
                "EndpointConfigName": self.config.name,
                "FailureReason": self.failure_reason,
                "LastDeploymentConfig": self.deployment_config,
                "PendingDeploymentSummary": self.pending,
                "MetricsConfig": self.config.request.get("MetricsConfig"),
                "DataCaptureConfig": self.fleet.capture.summary() if self.fleet and self.fleet.capture else None,
            }
            if self.fleet is not None:
                specs = [server.spec for server in self.fleet.servers.values()]
                answer["ProductionVariants"] = [
                    variant_summary(spec, self.modified, spec.instance_count - self.retired.get(spec.name, 0))
                    for spec in specs
                ]
                if self.fleet.shadows:
                    shadows = [server.spec for server in self.fleet.shadows.values()]
                    answer["ShadowProductionVariants"] = [variant_summary(spec, self.modified) for spec in shadows]
            return answer

    def summary(self) -> dict[str, Any]:
        """The answer of ListEndpoints."""
        return {
            "EndpointName": self.name,
            "EndpointArn": self.arn,
            "CreationTime": self.created,
            "LastModifiedTime": self.modified,
            "EndpointStatus": self.status.value,
        }


def variant_summary(spec: VariantSpec, deployed: datetime, current: int | None = None) -> dict[str, Any]:
    """A ProductionVariantSummary; `current` is the running instance count where it is not the desired one."""
    return {
        "VariantName": spec.name,
        "DeployedImages": [
            {"SpecifiedImage": spec.container.image, "ResolvedImage": spec.container.image, "ResolutionTime": deployed}
        ],
        "CurrentWeight": spec.weight,
        "DesiredWeight": spec.weight,
        "CurrentInstanceCount": spec.instance_count if current is None else current,
        "DesiredInstanceCount": spec.instance_count,
    }
