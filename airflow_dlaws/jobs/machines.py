"""Which machines a job asks for: one type, groups of several types, or an ordered list of types to choose from.

Rules: ResourceConfig and InstancePreference in the SageMaker API reference, and the developer guide's "Instance
preference lists for training jobs" and "Train Using SageMaker Managed Warm Pools"; read on 2026-11-24.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs import instances, limits

GROUP_COUNT = 5
PREFERENCE_COUNT = 5
#: Six hours, the longest that a warm pool waits for its next job.
MAX_KEEP_ALIVE_S = 21_600
MIN_PENDING_S, MAX_PENDING_S = 1800, 28 * 24 * 3600

_PLAN_ARN = re.compile(r"arn:aws[a-z-]*:sagemaker:[a-z0-9-]*:\d{12}:training-plan/.+")
#: Narrower than AWS's ".+": the names are written into the container's command.
_GROUP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class InstanceGroup:
    """Hosts of one type in a job of several types (a heterogeneous cluster).

    :param name: a channel may name the groups that get its data.
    :param processes: worker processes on each of its hosts; by default one an accelerator.
    """

    name: str
    instance_type: str
    instance_count: int = 1
    processes: int | None = None

    def __post_init__(self) -> None:
        where = f"instance group {self.name!r}"
        if not isinstance(self.name, str) or not _GROUP_NAME.fullmatch(self.name):
            raise SpecificationError(
                f"instance group name={self.name!r} must be 1 to 64 letters, digits, dots, dashes, underscores"
            )
        instances.check_training_instance(f"{where}: instance_type", self.instance_type)
        limits.check_range(f"{where}: instance_count", self.instance_count, 1, 1000)
        if self.processes is not None:
            limits.check_range(f"{where}: processes", self.processes, 1, 128)


@dataclass(frozen=True, kw_only=True)
class CapacityPreference:
    """One of the types that a job may get.

    :param instance_count: hosts, if it is this type; on all preferences of a job, or on none.
    :param training_plan_arn: reserved capacity of this type to take it from; on-demand capacity without.
    """

    instance_type: str
    instance_count: int | None = None
    training_plan_arn: str | None = None

    def __post_init__(self) -> None:
        instances.check_training_instance("capacity preference: instance_type", self.instance_type)
        if self.instance_count is not None:
            limits.check_range(
                f"capacity preference {self.instance_type}: instance_count", self.instance_count, 1, 1000
            )
        if self.training_plan_arn is not None:
            check_plan_arn(f"capacity preference {self.instance_type}: training_plan_arn", self.training_plan_arn)


def check_plan_arn(field: str, value: Any) -> None:
    """Refuse what is not the ARN of a training plan."""
    if not isinstance(value, str) or not _PLAN_ARN.fullmatch(value):
        raise SpecificationError(
            f"{field}={value!r} is no training plan: write arn:aws:sagemaker:REGION:ACCOUNT:training-plan/NAME"
        )


def instance_types(
    instance_type: str | None, groups: Sequence[InstanceGroup], preferences: Sequence[CapacityPreference]
) -> tuple[str, ...]:
    """Return every type that a host of the job may have."""
    named = [group.instance_type for group in groups] + [choice.instance_type for choice in preferences]
    return tuple(dict.fromkeys([instance_type, *named] if instance_type else named))


def check_machines(
    *,
    instance_type: str | None,
    instance_count: int,
    instance_groups: Sequence[InstanceGroup],
    capacity_preferences: Sequence[CapacityPreference],
    processes_per_instance: int | None,
    spot: bool,
    training_plan_arn: str | None,
) -> None:
    """Refuse machines that are asked for in no way, or in two at once.

    :raises SpecificationError: says which to keep.
    """
    ways = {
        "instance_type": instance_type,
        "instance_groups": instance_groups,
        "capacity_preferences": capacity_preferences,
    }
    given = [name for name, value in ways.items() if value]
    if len(given) != 1:
        raise SpecificationError(
            f"{' and '.join(given) or 'nothing'} given: say which machines by exactly one of {', '.join(ways)}"
        )
    if instance_groups:
        _check_groups(instance_groups, instance_count, processes_per_instance)
    elif capacity_preferences:
        _check_preferences(capacity_preferences, instance_count, spot=spot, plan=training_plan_arn)
    if processes_per_instance is None and not instance_groups:
        for name in instance_types(instance_type, (), capacity_preferences):
            instances.processes_on(name)


def _check_groups(groups: Sequence[InstanceGroup], count: int, processes: int | None) -> None:
    if len(groups) > GROUP_COUNT:
        raise SpecificationError(f"{len(groups)} instance_groups; a job takes {GROUP_COUNT} at most")
    names = [group.name for group in groups]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SpecificationError(f"instance_groups {twice} are named twice: each group needs its own name")
    if count != 1:
        raise SpecificationError(
            f"instance_count={count} beside instance_groups: leave it out, each group has its own instance_count"
        )
    if processes is not None:
        raise SpecificationError(
            f"processes_per_instance={processes} beside instance_groups: leave it out, a group may say processes"
        )
    counts = [f"{group.name}={group.processes or instances.processes_on(group.instance_type)}" for group in groups]
    if (length := len(",".join(counts))) > limits.ARGUMENT_LENGTH:
        raise SpecificationError(
            f"instance_groups {names}: their names and processes make an argument of {length} characters for the "
            f"container, which takes {limits.ARGUMENT_LENGTH}: give them shorter names"
        )


def _check_preferences(choices: Sequence[CapacityPreference], count: int, *, spot: bool, plan: str | None) -> None:
    if len(choices) > PREFERENCE_COUNT:
        raise SpecificationError(f"{len(choices)} capacity_preferences; a job takes {PREFERENCE_COUNT} at most")
    names = [choice.instance_type for choice in choices]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SpecificationError(f"capacity_preferences name {twice} twice: a type may stand in the list once")
    counted = [choice.instance_type for choice in choices if choice.instance_count is not None]
    if counted and len(counted) < len(choices):
        raise SpecificationError(
            f"capacity_preferences: only {counted} have an instance_count: give it to all of them, or to none and "
            "set the job's instance_count"
        )
    if counted and count != 1:
        raise SpecificationError(
            f"instance_count={count} beside capacity_preferences with counts of their own: leave one of them out"
        )
    if spot:
        raise SpecificationError(
            "spot=True with capacity_preferences: AWS chooses among on-demand and planned capacity only. "
            "Set spot=False, or give one instance_type"
        )
    if plan and any(choice.training_plan_arn for choice in choices):
        raise SpecificationError(
            "training_plan_arn beside capacity_preferences that name plans themselves: keep one of the two"
        )


def check_warm_pool(*, keep_alive_s: int | None, spot: bool, instance_groups: Sequence[InstanceGroup]) -> None:
    """Refuse a warm pool that AWS does not keep."""
    if not keep_alive_s:
        return
    if spot:
        raise SpecificationError(
            f"keep_alive_s={keep_alive_s} with spot=True: AWS keeps no spot machines warm. Leave one of the two out"
        )
    if instance_groups:
        raise SpecificationError(
            f"keep_alive_s={keep_alive_s} with instance_groups: AWS keeps no heterogeneous cluster warm. "
            "Leave one of the two out"
        )


def check_pending(*, max_pending_s: int | None, instance_types: Sequence[str]) -> None:
    """Refuse a limit of waiting that AWS would ignore."""
    if max_pending_s is not None and not any(instances.is_accelerated(name) for name in instance_types):
        raise SpecificationError(
            f"max_pending_s={max_pending_s} has no effect on {', '.join(instance_types)}: AWS heeds it for types with "
            "accelerators only. Leave it out"
        )


def check_volume_key(*, volume_kms_key_id: str | None, instance_types: Sequence[str]) -> None:
    """Refuse a key for volumes that AWS encrypts with the machine's own."""
    local = [name for name in instance_types if instances.has_local_storage(name)]
    if volume_kms_key_id and local:
        raise SpecificationError(
            f"volume_kms_key_id={volume_kms_key_id!r}: the volume of {', '.join(local)} is NVMe on the machine, "
            "encrypted with its own key, and AWS takes no other. Leave it out: kms_key_id still encrypts the output"
        )
