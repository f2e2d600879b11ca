"""What every resource of the local SageMaker is given: where it runs, the time, the clients, the shared stores."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from airflow_dlaws.local.clients import make_client
from airflow_dlaws.local.faults import FaultOrders
from airflow_dlaws.local.images import ImageRegistry
from airflow_dlaws.local.scalable_targets import ScalableTargets
from airflow_dlaws.local.tag_store import TagStore
from airflow_dlaws.local.warm_pools import WarmPools

#: moto's account, and the one in every example of this project.
ACCOUNT = "123456789012"

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RequestContext:
    """Who asks, and where: what AWS reads from the signature."""

    region: str
    account: str = ACCOUNT

    def arn(self, kind: str, name: str) -> str:
        """Return the ARN of a SageMaker resource; `kind` as in "training-job", "endpoint", "model"."""
        return f"arn:aws:sagemaker:{self.region}:{self.account}:{kind}/{name}"


Handler = Callable[[dict[str, Any], RequestContext], Mapping[str, Any]]


class Resource(Protocol):
    """A kind of SageMaker resource: it owns the operations on it and everything it started."""

    def operations(self) -> dict[str, Handler]:
        """The operations of the service `sagemaker` it answers, by name."""

    def runtime_operations(self) -> dict[str, Handler]:
        """The operations of the service `sagemaker-runtime` it answers, by name."""

    def close(self) -> None:
        """End every process and thread it started. The server is going down."""


class PerRegion(Generic[T]):
    """One `T` for each region, made when first asked for. Thread-safe."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make, self._lock, self._by_region = make, threading.Lock(), dict[str, T]()

    def __getitem__(self, region: str) -> T:
        with self._lock:
            if region not in self._by_region:
                self._by_region[region] = self._make()
            return self._by_region[region]

    def all(self) -> list[T]:
        """Return what there is, in every region."""
        with self._lock:
            return list(self._by_region.values())


@dataclass(kw_only=True, eq=False)
class LocalContext:
    """The machine the local AWS runs on. One for each server."""

    state_dir: Path
    endpoint_url: str
    images: ImageRegistry
    #: Multiplies the waits that AWS makes (starting, grace periods, guardrail waits). Work itself takes what it takes.
    time_scale: float = 1.0
    #: What a spot instance costs, as a share of the price on demand.
    spot_price: float = 0.3
    #: What GetProducts of the price list chooses from; None where nobody has named a file.
    products: list[dict[str, Any]] | None = None
    #: Folders that stand for file systems of FSx and EFS, by id.
    file_systems: Mapping[str, Path] = field(default_factory=dict)
    warm_pools: WarmPools = field(default_factory=WarmPools)
    tags: TagStore = field(default_factory=TagStore)
    faults: FaultOrders = field(default_factory=FaultOrders)
    scalable_targets: ScalableTargets = field(default_factory=ScalableTargets)
    #: Set when the server goes down; waits end early on it.
    closing: threading.Event = field(default_factory=threading.Event)

    def now(self) -> datetime:
        """The time in whole milliseconds: what answers give is what filters compare with."""
        now = datetime.now(UTC)
        return now.replace(microsecond=now.microsecond // 1000 * 1000)

    def scaled(self, seconds: float) -> float:
        """How long a wait of AWS's lasts here, in seconds."""
        return seconds * self.time_scale

    def wait(self, seconds: float) -> bool:
        """Wait as AWS would; return False if the server goes down meanwhile."""
        return not self.closing.wait(self.scaled(seconds))

    @functools.cache  # noqa: B019  one context lives as long as the process
    def client(self, service: str, region: str) -> Any:
        """Return a boto3 client of this very server: S3, CloudWatch, Logs as any client sees them."""
        return make_client(self.endpoint_url, service, region)
