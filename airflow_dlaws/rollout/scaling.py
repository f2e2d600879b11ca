"""How a variant is registered with Application Auto Scaling, and what a rollout does with that.

SageMaker's developer guide ("Update endpoints that use auto scaling"): an update that changes the instance type of a
registered variant is refused, so it must be deregistered before and registered again after; one that changes the model
alone is allowed, and scaling waits by itself until the update is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_dlaws.errors import SpecificationError


@dataclass(frozen=True, kw_only=True)
class ScalableTarget:
    """All that is needed to register a variant again. Capacities are instances."""

    min_capacity: int
    max_capacity: int
    suspended: Mapping[str, bool] = field(default_factory=dict)
    #: Members of PutScalingPolicy, without those that name the variant, by PolicyName.
    policies: tuple[Mapping[str, Any], ...] = ()
    #: Members of PutScheduledAction, likewise.
    actions: tuple[Mapping[str, Any], ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    def includes(self, other: ScalableTarget) -> bool:
        """Tell whether everything of another registration is in this one; somebody may have added to it."""
        return (
            (self.min_capacity, self.max_capacity, self.suspended)
            == (other.min_capacity, other.max_capacity, other.suspended)
            and all(each in self.policies for each in other.policies)
            and all(each in self.actions for each in other.actions)
            and other.tags.items() <= self.tags.items()
        )

    @property
    def sentence(self) -> str:
        """Say it to a person."""
        names = [str(each["PolicyName"]) for each in self.policies]
        names += [str(each["ScheduledActionName"]) for each in self.actions]
        return f"{self.min_capacity} to {self.max_capacity} instances by {', '.join(names) or 'no policy'}"


@dataclass(frozen=True, kw_only=True)
class ScalingRecord:
    """What a rollout remembers of its variant's scaling, before it changes anything."""

    target: ScalableTarget
    #: The instance type changes: AWS refuses the update of a registered variant.
    must_go: bool
    #: It is deregistered, or may be, and must be registered again.
    is_off: bool = False

    @property
    def sentence(self) -> str:
        """Say it to a person."""
        if self.is_off:
            return f"off: {self.target.sentence}, registered again when the rollout is over"
        return self.target.sentence


def record_of(target: ScalableTarget, *, old_type: str, new_type: str, variant: str) -> ScalingRecord:
    """Return what is to be remembered of a registered variant that moves from one instance type to another.

    :raises SpecificationError: it has to be deregistered, and could not be registered again as it was.
    """
    must_go = old_type != new_type
    stepping = [
        str(each["PolicyName"]) for each in target.policies if each.get("PolicyType") != "TargetTrackingScaling"
    ]
    if must_go and stepping:
        raise SpecificationError(
            f"variant {variant} moves from {old_type} to {new_type}, for which AWS wants it deregistered from "
            f"Application Auto Scaling; its policies {stepping} would come back with other ARNs, and the alarms that "
            "call them would call nothing. Keep the instance type, or deregister the variant by hand and set its "
            "policies and alarms up anew after the rollout"
        )
    return ScalingRecord(target=target, must_go=must_go)
