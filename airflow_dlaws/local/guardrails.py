"""The schedule of a blue/green update: which share of the traffic green serves when, and for how long.

Pure: no clock, no I/O. Waits are service seconds; who performs the schedule scales them. The rules stand in AWS's pages
on deployment guardrails (canary, linear, all at once, exclusions) and, where they are prose, not in botocore's model.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

#: A canary may serve at most half of the fleet, a linear step 10 to 50 % of it (API reference, TrafficRoutingConfig).
LARGEST_STEP = 0.5
SMALLEST_LINEAR_STEP = 0.1

#: Shares are sums of equal steps; below this they differ only by the rounding of binary fractions.
ROUNDING = 1e-9


class Routing(enum.StrEnum):
    """How traffic moves from blue to green."""

    ALL_AT_ONCE = "ALL_AT_ONCE"
    CANARY = "CANARY"
    LINEAR = "LINEAR"


@dataclass(frozen=True, kw_only=True)
class StepSize:
    """A CapacitySize: `value` instances, or `value` per cent of a variant's fleet."""

    unit: str
    value: int

    def share_of(self, instance_count: int) -> float:
        """Return the share (may exceed 1) of a fleet of `instance_count` instances."""
        return self.value / instance_count if self.unit == "INSTANCE_COUNT" else self.value / 100


@dataclass(frozen=True, kw_only=True)
class DeploymentPlan:
    """A DeploymentConfig with its defaults. Without one AWS shifts everything at once and waits for nothing."""

    routing: Routing = Routing.ALL_AT_ONCE
    step: StepSize | None = None
    wait_seconds: int = 0
    termination_wait_seconds: int = 0
    timeout_seconds: int | None = None
    alarms: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Green serves `green_share[variant]` of a variant's requests, for `wait_seconds`, while the alarms are watched."""

    green_share: Mapping[str, float]
    wait_seconds: int
    wait_name: str
    is_full: bool


def read_plan(config: Mapping[str, Any] | None) -> DeploymentPlan:
    """Read a DeploymentConfig that satisfies botocore's model."""
    config = config or {}
    policy = config.get("BlueGreenUpdatePolicy") or {}
    traffic = policy.get("TrafficRoutingConfiguration") or {}
    routing = Routing(traffic.get("Type", "ALL_AT_ONCE"))
    key = {Routing.CANARY: "CanarySize", Routing.LINEAR: "LinearStepSize"}.get(routing)
    size = traffic.get(key) if key else None
    return DeploymentPlan(
        routing=routing,
        step=StepSize(unit=size["Type"], value=size["Value"]) if size else None,
        wait_seconds=traffic.get("WaitIntervalInSeconds", 0),
        termination_wait_seconds=policy.get("TerminationWaitInSeconds", 0),
        timeout_seconds=policy.get("MaximumExecutionTimeoutInSeconds"),
        alarms=tuple(alarm["AlarmName"] for alarm in _alarms(config)),
    )


def refusal(config: Mapping[str, Any] | None, instance_counts: Mapping[str, int]) -> str | None:
    """Say why AWS would refuse this DeploymentConfig for a fleet of these instance counts per variant, or None.

    That the alarms exist and are quiet is for the caller to ask: they live in CloudWatch.
    """
    return next(_problems(config or {}, instance_counts), None)


def _problems(config: Mapping[str, Any], instance_counts: Mapping[str, int]) -> Iterator[str]:
    if "RollingUpdatePolicy" in config:
        yield "RollingUpdatePolicy is not supported by the local AWS; use BlueGreenUpdatePolicy."
    yield from _alarm_problems(config)
    traffic = (config.get("BlueGreenUpdatePolicy") or {}).get("TrafficRoutingConfiguration") or {}
    yield from _misplaced_sizes(traffic)
    plan = read_plan(config)
    if plan.routing is Routing.ALL_AT_ONCE:
        yield from _timeout_problems(plan, instance_counts)
        return
    if plan.step is None:
        field = "CanarySize" if plan.routing is Routing.CANARY else "LinearStepSize"
        yield f"TrafficRoutingConfiguration of type {plan.routing} needs {field}."
        return
    yield from _size_problems(plan.routing, plan.step, instance_counts)
    yield from _timeout_problems(plan, instance_counts)


def _alarms(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list((config.get("AutoRollbackConfiguration") or {}).get("Alarms") or [])


def _alarm_problems(config: Mapping[str, Any]) -> Iterator[str]:
    names = [alarm.get("AlarmName") for alarm in _alarms(config)]
    if any(name is None for name in names):
        yield "AutoRollbackConfiguration.Alarms: each alarm needs an AlarmName."
    if len(names) > 10:
        yield f"AutoRollbackConfiguration.Alarms has {len(names)} alarms; at most 10 are allowed."


def _misplaced_sizes(traffic: Mapping[str, Any]) -> Iterator[str]:
    for field, owner in (("CanarySize", "CANARY"), ("LinearStepSize", "LINEAR")):
        if field in traffic and traffic.get("Type") != owner:
            yield f"{field} is only allowed with traffic routing type {owner}, not {traffic.get('Type')}."


def _size_problems(routing: Routing, step: StepSize, instance_counts: Mapping[str, int]) -> Iterator[str]:
    smallest = SMALLEST_LINEAR_STEP if routing is Routing.LINEAR else 0.0
    for variant, count in instance_counts.items():
        share = step.share_of(count)
        if not smallest - ROUNDING <= share <= LARGEST_STEP + ROUNDING:
            allowed = "10-50%" if routing is Routing.LINEAR else "less than or equal to 50%"
            field = "LinearStepSize" if routing is Routing.LINEAR else "CanarySize"
            yield (
                f"{field} must be {allowed} of the variant's total instance count, but {step.value} {step.unit} is "
                f"{share:.0%} of the {count} instance(s) of variant {variant}."
            )


def _timeout_problems(plan: DeploymentPlan, instance_counts: Mapping[str, int]) -> Iterator[str]:
    total = sum(stage.wait_seconds for stage in schedule(plan, instance_counts))
    if plan.timeout_seconds is not None and plan.timeout_seconds <= total:
        yield (
            f"MaximumExecutionTimeoutInSeconds ({plan.timeout_seconds}) must be larger than the total waiting time "
            f"specified in TerminationWaitInSeconds and WaitIntervalInSeconds ({total})."
        )


def schedule(plan: DeploymentPlan, instance_counts: Mapping[str, int]) -> tuple[Stage, ...]:
    """Return the stages of an update, in order; the last one has all traffic on green.

    `instance_counts` is green's, per variant. Between steps the wait is WaitIntervalInSeconds, after the last one
    TerminationWaitInSeconds. A share in per cent is taken as it is, not rounded up to whole instances: one process
    stands for all instances of a variant.
    """
    partial = [
        Stage(green_share=shares, wait_seconds=plan.wait_seconds, wait_name="WaitIntervalInSeconds", is_full=False)
        for shares in _partial_shares(plan, instance_counts)
    ]
    last = Stage(
        green_share=dict.fromkeys(instance_counts, 1.0),
        wait_seconds=plan.termination_wait_seconds,
        wait_name="TerminationWaitInSeconds",
        is_full=True,
    )
    return (*partial, last)


def _partial_shares(plan: DeploymentPlan, instance_counts: Mapping[str, int]) -> Iterator[dict[str, float]]:
    if plan.step is None or plan.routing is Routing.ALL_AT_ONCE:
        return
    sizes = {variant: min(1.0, plan.step.share_of(count)) for variant, count in instance_counts.items()}
    if plan.routing is Routing.CANARY:
        yield sizes
        return
    steps = max(math.ceil(1 / size - ROUNDING) for size in sizes.values())
    for number in range(1, steps):
        yield {variant: min(1.0, size * number) for variant, size in sizes.items()}


def shifts_traffic(blue_variants: Iterable[str], green_variants: Iterable[str]) -> bool:
    """Whether guardrails apply: only if both configurations name the same variants (else a plain replacement)."""
    return set(blue_variants) == set(green_variants)


def activating_message(stage: Stage, variant: str, instance_count: int) -> str:
    """AWS's message while traffic is turned on (developer guide, EventBridge events of deployments)."""
    if stage.is_full:
        return f"Activating traffic on full capacity of {instance_count} instance(s)."
    return f"Activating traffic on canary capacity of {_active(stage, variant, instance_count)} instance(s)."


def baking_message(stage: Stage, variant: str, instance_count: int) -> str:
    """AWS's message while the alarms are watched."""
    capacity = "full" if stage.is_full else "canary"
    active = instance_count if stage.is_full else _active(stage, variant, instance_count)
    return (
        f"Baking for {stage.wait_seconds} seconds ({stage.wait_name}) with traffic enabled on {capacity} capacity of "
        f"{active} instance(s)."
    )


def _active(stage: Stage, variant: str, instance_count: int) -> int:
    return max(1, math.ceil(stage.green_share[variant] * instance_count - ROUNDING))
