"""What Application Auto Scaling keeps of variants: scalable targets, their policies and scheduled actions."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True)
class ScalableTarget:
    """One registered variant. `description` is a ScalableTarget, the others by name as their Describe answers them."""

    description: dict[str, Any]
    policies: dict[str, dict[str, Any]] = field(default_factory=dict)
    actions: dict[str, dict[str, Any]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class ScalableTargets:
    """All targets, by region and ResourceId (endpoint/NAME/variant/NAME). Whoever changes one holds `lock`."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._targets: dict[tuple[str, str], ScalableTarget] = {}

    def find(self, region: str, resource_id: str) -> ScalableTarget | None:
        """Return a target, None where there is none."""
        return self._targets.get((region, resource_id))

    def all(self, region: str) -> list[ScalableTarget]:
        """Return all targets of a region, the oldest first."""
        with self.lock:
            return [target for (where, _), target in self._targets.items() if where == region]

    def add(self, region: str, resource_id: str, target: ScalableTarget) -> None:
        """Register."""
        with self.lock:
            self._targets[(region, resource_id)] = target

    def remove(self, region: str, resource_id: str) -> bool:
        """Deregister, with policies and scheduled actions; return whether there was such a target."""
        with self.lock:
            return self._targets.pop((region, resource_id), None) is not None

    def variants(self, region: str, endpoint_name: str) -> list[str]:
        """Return the names of an endpoint's registered variants."""
        with self.lock:
            parts = [resource.split("/") for where, resource in self._targets if where == region]
        return sorted(variant for _, endpoint, _, variant in parts if endpoint == endpoint_name)
