"""Faults that a test or a demo orders: throttling, errors, missing capacity, and what other resources name.

    POST /_dlaws/faults {"kind": "throttle", "target": "DescribeTrainingJob", "every": 3}
    POST /_dlaws/faults {"kind": "capacity", "target": "CreateTrainingJob", "times": 1}
    POST /_dlaws/faults {"kind": "error", "target": "CreateModel", "code": "AccessDeniedException", "message": "no"}
    POST /_dlaws/faults {"kind": "interruption", "target": "my-job", "seconds": 2.5, "times": 3, "grace_seconds": 1}
    POST /_dlaws/faults {"kind": "internal", "target": "my-job"}
    DELETE /_dlaws/faults

`target` is an operation, or whatever the kind says ("*" is all). `every` strikes each n-th time, `times` ends the order
after that many strikes.

`rollback` and `silent_rollback` strike when an endpoint (`target`) rolls back: it fails to, or gives no FailureReason,
as AWS does at times. `ping` fails the next health check of an endpoint's container; `endpoint_status` puts an endpoint
in the status `code`, for `seconds` where they are given.

`interruption` takes the instances of a spot job away, all of them, and `internal` lets those of any training job break;
`target` is the job's name or CreateTrainingJob. Each time the job trains anew is one occasion for such an order: it
strikes `seconds` after the beginning of the training, at once where it is ordered later. Several orders make a job be
interrupted at several moments. `grace_seconds` (not scaled) stand between SIGTERM and SIGKILL in place of AWS's 120.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from airflow_dlaws.errors import SpecificationError

#: Kinds answered at the front door, and kinds that a resource asks for by `take`.
KINDS = frozenset(
    {
        "throttle", "error", "capacity", "interruption", "internal",
        "ping", "rollback", "silent_rollback", "capture_delay", "endpoint_status",
    }
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FaultOrder:
    """One fault to make."""

    kind: str
    target: str = "*"
    every: int = 1
    times: int | None = None
    code: str = "InternalFailure"
    message: str = "A fault was ordered."
    status: int = 400
    seconds: float = 0.0
    grace_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SpecificationError(f"kind {self.kind!r} is no fault; the faults are {sorted(KINDS)}")
        if self.seconds < 0 or (self.grace_seconds or 0) < 0:
            raise SpecificationError(f"seconds ({self.seconds}) and grace_seconds ({self.grace_seconds}) are durations")
        if self.every < 1 or (self.times is not None and self.times < 1):
            raise SpecificationError(f"every ({self.every}) and times ({self.times}) must be at least 1")


class FaultOrders:
    """The faults on order. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._orders: list[FaultOrder] = []
        self._seen: dict[int, int] = {}
        self._struck: dict[int, int] = {}
        self._occasions: set[tuple[int, str]] = set()

    def order(self, fault: FaultOrder) -> None:
        """Add an order."""
        with self._lock:
            self._orders.append(fault)

    def clear(self) -> None:
        """Forget all orders."""
        with self._lock:
            self._orders.clear()
            self._seen.clear()
            self._struck.clear()
            self._occasions.clear()

    def take(self, kind: str, target: str) -> FaultOrder | None:
        """Return the order that strikes now, and count it; None where all is well."""
        with self._lock:
            for index, order in enumerate(self._orders):
                if order.kind == kind and order.target in {"*", target} and self._strikes(index, order):
                    return order
        return None

    def due(self, kind: str, targets: frozenset[str], occasion: str, elapsed: float) -> FaultOrder | None:
        """Return the order that strikes `elapsed` seconds into something, and count it; None where all is well.

        :param occasion: names that something: it is asked about again and again, and counts once for each order.
        """
        with self._lock:
            for index, order in enumerate(self._orders):
                if order.kind != kind or order.target not in targets | {"*"} or elapsed < order.seconds:
                    continue
                if (index, occasion) in self._occasions:
                    continue
                self._occasions.add((index, occasion))
                if self._strikes(index, order):
                    return order
        return None

    def _strikes(self, index: int, order: FaultOrder) -> bool:
        if order.times is not None and self._struck.get(index, 0) >= order.times:
            return False
        self._seen[index] = self._seen.get(index, 0) + 1
        if self._seen[index] % order.every:
            return False
        self._struck[index] = self._struck.get(index, 0) + 1
        return True
