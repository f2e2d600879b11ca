"""Which hosts a training job gets: of one type, of several groups, or of the first preference that there is.

Rules: ResourceConfig, InstancePreference and InstanceGroup in the API reference, the developer guide's pages on
instance preferences, heterogeneous clusters and warm pools. AWS publishes none of the texts: they are assumed, the
codes are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_dlaws.jobs.instances import has_local_storage
from airflow_dlaws.local.errors import unsupported, validation_error

#: AWS's name for the only group of a job whose instances are all alike.
ONLY_GROUP = "homogeneousCluster"
_WAYS = ("InstanceType", "InstanceGroups", "InstancePreferences")


@dataclass(frozen=True)
class TrainingHost:
    """One host of a job."""

    name: str
    instance_type: str
    group: str = ONLY_GROUP


@dataclass(frozen=True)
class Choice:
    """Hosts of one type that a job may get."""

    instance_type: str
    count: int


def choices(resources: Mapping[str, Any]) -> list[Choice]:
    """Return what a job of hosts that are all alike may get, the most wanted first."""
    if "InstancePreferences" in resources:
        shared = resources.get("InstanceCount")
        wanted = resources["InstancePreferences"]
        return [Choice(one["InstanceType"], one.get("InstanceCount", shared)) for one in wanted]
    return [Choice(resources["InstanceType"], resources["InstanceCount"])]


def hosts_of(resources: Mapping[str, Any], choice: Choice | None) -> list[TrainingHost]:
    """Return the hosts, algo-1 and so on over all groups, in the order of the request.

    :param choice: what hosts that are all alike are; None for groups.
    """
    if choice is not None:
        return [TrainingHost(f"algo-{number}", choice.instance_type) for number in range(1, choice.count + 1)]
    members = [group for group in resources["InstanceGroups"] for _ in range(group["InstanceCount"])]
    return [
        TrainingHost(f"algo-{number}", group["InstanceType"], group["InstanceGroupName"])
        for number, group in enumerate(members, 1)
    ]


def check(request: Mapping[str, Any]) -> None:
    """Refuse machines that AWS refuses.

    :raises ServiceError: ValidationException.
    """
    resources = request.get("ResourceConfig")
    if resources is None:
        raise validation_error("ResourceConfig is required for a training job that is not serverless.")
    for member in ("SelectedInstanceType", "SelectedInstanceCount"):
        if member in resources:
            raise validation_error(f"ResourceConfig.{member} is read-only and is not accepted in CreateTrainingJob.")
    given = [way for way in _WAYS if way in resources]
    if len(given) > 1:
        raise validation_error(f"{' and '.join(given)} in ResourceConfig are mutually exclusive.")
    if "InstancePlacementConfig" in resources:
        if "InstancePreferences" in resources:
            raise validation_error("InstancePreferences and InstancePlacementConfig are mutually exclusive.")
        raise unsupported("ResourceConfig.InstancePlacementConfig")
    if "InstanceGroups" in resources:
        _check_groups(resources)
    elif "InstancePreferences" in resources:
        _check_preferences(resources, spot=bool(request.get("EnableManagedSpotTraining")))
    elif "InstanceType" not in resources or resources.get("InstanceCount", 0) < 1:
        raise validation_error(
            f"ResourceConfig needs an InstanceType and an InstanceCount of at least 1, not "
            f"{resources.get('InstanceType')} and {resources.get('InstanceCount')}."
        )
    _check_channel_groups(request, [group["InstanceGroupName"] for group in resources.get("InstanceGroups", [])])
    _check_keep_alive(request, resources)
    _check_volume_key(resources)


def _check_groups(resources: Mapping[str, Any]) -> None:
    groups: Sequence[Mapping[str, Any]] = resources["InstanceGroups"]
    names = [group["InstanceGroupName"] for group in groups]
    if not groups or len(set(names)) < len(names):
        raise validation_error(f"InstanceGroups must have at least one group and distinct names, not {names}.")
    if "InstanceCount" in resources:
        raise validation_error("InstanceCount and InstanceGroups in ResourceConfig are mutually exclusive.")
    empty = [group["InstanceGroupName"] for group in groups if group["InstanceCount"] < 1]
    if empty:
        raise validation_error(f"InstanceGroups {empty} need an InstanceCount of at least 1.")


def _check_preferences(resources: Mapping[str, Any], *, spot: bool) -> None:
    wanted: Sequence[Mapping[str, Any]] = resources["InstancePreferences"]
    if spot:
        raise validation_error("InstancePreferences and EnableManagedSpotTraining are mutually exclusive.")
    types = [one["InstanceType"] for one in wanted]
    if len(set(types)) < len(types):
        raise validation_error(f"An instance type can appear only once in InstancePreferences: {types}.")
    counted = [one for one in wanted if "InstanceCount" in one]
    if (len(counted) not in {0, len(wanted)}) or bool(counted) == ("InstanceCount" in resources):
        raise validation_error(
            "Set InstanceCount either in ResourceConfig or on every entry of InstancePreferences, and not in both."
        )
    if any(choice.count < 1 for choice in choices(resources)):
        raise validation_error("InstancePreferences need an InstanceCount of at least 1.")
    if "TrainingPlanArn" in resources and any("TrainingPlanArns" in one for one in wanted):
        raise validation_error(
            "TrainingPlanArn and the TrainingPlanArns of InstancePreferences are mutually exclusive."
        )


def _check_channel_groups(request: Mapping[str, Any], groups: Sequence[str]) -> None:
    for channel in request.get("InputDataConfig", []):
        named = channel["DataSource"].get("S3DataSource", {}).get("InstanceGroupNames", [])
        unknown = sorted(set(named) - set(groups))
        if unknown:
            raise validation_error(
                f"Channel {channel['ChannelName']!r} names the instance groups {unknown}; the job has {list(groups)}."
            )


def _check_keep_alive(request: Mapping[str, Any], resources: Mapping[str, Any]) -> None:
    if not resources.get("KeepAlivePeriodInSeconds"):
        return
    if request.get("EnableManagedSpotTraining"):
        raise validation_error("KeepAlivePeriodInSeconds cannot be used with EnableManagedSpotTraining.")
    if "InstanceGroups" in resources:
        raise validation_error("KeepAlivePeriodInSeconds cannot be used with InstanceGroups.")


def _check_volume_key(resources: Mapping[str, Any]) -> None:
    """ "You can't request a VolumeKmsKeyId when using an instance type with local storage" (ResourceConfig)."""
    if not resources.get("VolumeKmsKeyId"):
        return
    members = [resources, *resources.get("InstanceGroups", []), *resources.get("InstancePreferences", [])]
    types = [one["InstanceType"] for one in members if "InstanceType" in one]
    local = [name for name in types if has_local_storage(name)]
    if local:
        raise validation_error(f"VolumeKmsKeyId cannot be used with instance types with local storage: {local}.")
