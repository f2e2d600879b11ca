"""The schedule of an update, blue/green or rolling: which share of the traffic green serves when, and for how long.

Pure: no clock, no I/O. Waits are service seconds; who performs the schedule scales them. The rules stand in AWS's pages
on deployment guardrails (canary, linear, all at once, rolling, exclusions) and, where they are prose, not in a model.
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
#: RollingUpdatePolicy, MaximumBatchSize: "between 5% to 50% of the variant's total instance count".
SMALLEST_BATCH = 0.05

#: Shares are sums of equal steps; below this they differ only by the rounding of binary fractions.
ROUNDING = 1e-9


class Routing(enum.StrEnum):
    """How traffic moves from blue to green."""

    ALL_AT_ONCE = "ALL_AT_ONCE"
    CANARY = "CANARY"
    LINEAR = "LINEAR"
    #: Not a Type of AWS's: what RollingUpdatePolicy asks for. Instances of blue end as green's take over.
    ROLLING = "ROLLING"


@dataclass(frozen=True, kw_only=True)
class StepSize:
    """A CapacitySize: `value` instances, or `value` per cent of a variant's fleet."""

    unit: str
    value: int

    def share_of(self, instance_count: int) -> float:
        """Return the share (may exceed 1) of a fleet of `instance_count` instances."""
        return self.value / instance_count if self.unit == "INSTANCE_COUNT" else self.value / 100

    def instances_of(self, instance_count: int) -> int:
        """Return how many whole instances of a fleet these are, at least one."""
        return max(1, math.floor(self.share_of(instance_count) * instance_count + ROUNDING))


@dataclass(frozen=True, kw_only=True)
class DeploymentPlan:
    """A DeploymentConfig with its defaults. Without one AWS shifts everything at once and waits for nothing."""

    routing: Routing = Routing.ALL_AT_ONCE
    step: StepSize | None = None
    #: How much goes back at a time after a rolling update; None is everything.
    rollback_step: StepSize | None = None
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
    if "RollingUpdatePolicy" in config:
        return _rolling_plan(config)
    policy = config.get("BlueGreenUpdatePolicy") or {}
    traffic = policy.get("TrafficRoutingConfiguration") or {}
    routing = Routing(traffic.get("Type", "ALL_AT_ONCE"))
    key = {Routing.CANARY: "CanarySize", Routing.LINEAR: "LinearStepSize"}.get(routing)
    size = traffic.get(key) if key else None
    return DeploymentPlan(
        routing=routing,
        step=_step(size),
        wait_seconds=traffic.get("WaitIntervalInSeconds", 0),
        termination_wait_seconds=policy.get("TerminationWaitInSeconds", 0),
        timeout_seconds=policy.get("MaximumExecutionTimeoutInSeconds"),
        alarms=tuple(alarm["AlarmName"] for alarm in _alarms(config)),
    )


def _rolling_plan(config: Mapping[str, Any]) -> DeploymentPlan:
    policy = config["RollingUpdatePolicy"]
    return DeploymentPlan(
        routing=Routing.ROLLING,
        step=_step(policy.get("MaximumBatchSize")),
        rollback_step=_step(policy.get("RollbackMaximumBatchSize")),
        wait_seconds=policy.get("WaitIntervalInSeconds", 0),
        timeout_seconds=policy.get("MaximumExecutionTimeoutInSeconds"),
        alarms=tuple(alarm["AlarmName"] for alarm in _alarms(config)),
    )


def _step(size: Mapping[str, Any] | None) -> StepSize | None:
    return StepSize(unit=size["Type"], value=size["Value"]) if size else None


def refusal(config: Mapping[str, Any] | None, instance_counts: Mapping[str, int]) -> str | None:
    """Say why AWS would refuse this DeploymentConfig for a fleet of these instance counts per variant, or None.

    That the alarms exist and are quiet is for the caller to ask: they live in CloudWatch.
    """
    return next(_problems(config or {}, instance_counts), None)


def _problems(config: Mapping[str, Any], instance_counts: Mapping[str, int]) -> Iterator[str]:
    if "RollingUpdatePolicy" in config and "BlueGreenUpdatePolicy" in config:
        yield "DeploymentConfig takes one of BlueGreenUpdatePolicy and RollingUpdatePolicy, not both."
    yield from _alarm_problems(config)
    traffic = (config.get("BlueGreenUpdatePolicy") or {}).get("TrafficRoutingConfiguration") or {}
    yield from _misplaced_sizes(traffic)
    plan = read_plan(config)
    if plan.routing is Routing.ALL_AT_ONCE:
        yield from _timeout_problems(plan, instance_counts)
        return
    if plan.step is None:
        yield f"TrafficRoutingConfiguration of type {plan.routing} needs {_SIZES[plan.routing].field}."
        return
    yield from _size_problems(_SIZES[plan.routing], plan.step, instance_counts)
    if plan.rollback_step is not None:
        yield from _size_problems(_ROLLBACK_SIZE, plan.rollback_step, instance_counts)
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


@dataclass(frozen=True, kw_only=True)
class _Size:
    """What AWS calls a size, and within which shares of a fleet it must be."""

    field: str
    smallest: float
    largest: float
    allowed: str


_SIZES = {
    Routing.CANARY: _Size(field="CanarySize", smallest=0.0, largest=LARGEST_STEP, allowed="less than or equal to 50%"),
    Routing.LINEAR: _Size(
        field="LinearStepSize", smallest=SMALLEST_LINEAR_STEP, largest=LARGEST_STEP, allowed="10-50%"
    ),
    Routing.ROLLING: _Size(field="MaximumBatchSize", smallest=SMALLEST_BATCH, largest=LARGEST_STEP, allowed="5-50%"),
}
#: Bounds of RollbackMaximumBatchSize are not documented; its default is 100 %.
_ROLLBACK_SIZE = _Size(field="RollbackMaximumBatchSize", smallest=0.0, largest=1.0, allowed="at most 100%")


def _size_problems(size: _Size, step: StepSize, instance_counts: Mapping[str, int]) -> Iterator[str]:
    for variant, count in instance_counts.items():
        share = step.share_of(count)
        if not size.smallest - ROUNDING <= share <= size.largest + ROUNDING:
            yield (
                f"{size.field} must be {size.allowed} of the variant's total instance count, but {step.value} "
                f"{step.unit} is {share:.0%} of the {count} instance(s) of variant {variant}."
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
    stands for all instances of a variant. Rolling replaces whole instances, and bakes after each batch, the last too.
    """
    if plan.routing is Routing.ROLLING:
        return tuple(_batches(plan, instance_counts))
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


def _batches(plan: DeploymentPlan, instance_counts: Mapping[str, int]) -> Iterator[Stage]:
    assert plan.step is not None
    step = plan.step
    batches = max(math.ceil(count / step.instances_of(count)) for count in instance_counts.values())
    for number in range(1, batches + 1):
        shares = {name: min(1.0, number * step.instances_of(n) / n) for name, n in instance_counts.items()}
        yield Stage(
            green_share=shares,
            wait_seconds=plan.wait_seconds,
            wait_name="WaitIntervalInSeconds",
            is_full=number == batches,
        )


def way_back(
    plan: DeploymentPlan, instance_counts: Mapping[str, int], green_share: Mapping[str, float]
) -> Iterator[dict[str, float]]:
    """Yield green's shares as a rollback takes the traffic away from it, batch by batch; the last ones are all 0."""
    left = dict(green_share)
    while any(left.values()):
        back = {
            name: plan.rollback_step.instances_of(n) / n if plan.rollback_step else 1.0
            for name, n in instance_counts.items()
        }
        left = {name: max(0.0, round(share - back[name], 9)) for name, share in left.items()}
        yield left


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


def shifts_traffic(plan: DeploymentPlan, blue_variants: Iterable[str], green_variants: Iterable[str]) -> bool:
    """Whether guardrails apply: only if both configurations name the same variants (else a plain replacement).

    Rolling takes no endpoints of several variants either (developer guide, Exclusions).
    """
    green = set(green_variants)
    return set(blue_variants) == green and not (plan.routing is Routing.ROLLING and len(green) > 1)


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
