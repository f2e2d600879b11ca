"""Checks of a training job's fields that can be right by themselves and wrong together."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs import fabric, images, machines
from airflow_dlaws.jobs.channel import Channel
from airflow_dlaws.jobs.machines import InstanceGroup


def check_image_choice(
    *, image: str | None, framework: str | None, framework_version: str | None, instance_types: Sequence[str]
) -> None:
    """Refuse no image, two of them, and one that AWS does not have."""
    if (image is None) == (framework is None):
        raise SpecificationError(
            f"image={image!r}, framework={framework!r}: give the URI of an image, or framework and framework_version"
        )
    if (framework is None) != (framework_version is None):
        raise SpecificationError(
            f"framework={framework!r} and framework_version={framework_version!r} belong together: give both, as in "
            "framework='pytorch', framework_version='2.13', or image"
        )
    if framework is not None and framework_version is not None:
        images.image_uri(framework, framework_version, tuple(instance_types), "us-east-1")


def check_registry(*, image: str | None, extra_request: Mapping[str, Any]) -> None:
    """Refuse an image that SageMaker may not pull: from another registry than ECR, if nobody says how to reach it.

    AWS's words: "Using non-ECR image ... without Vpc repository access mode is not supported".
    """
    algorithm = extra_request.get("AlgorithmSpecification")
    if image is None or images.is_private_ecr(image):
        return
    if not (isinstance(algorithm, Mapping) and "TrainingImageConfig" in algorithm):
        raise SpecificationError(
            f"image={image!r} is in no private registry of ECR (public.ecr.aws is none): push it to "
            "ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME:TAG. Or let the job reach its registry by your VPC: subnets, "
            "security_group_ids, extra_request={'AlgorithmSpecification': {'TrainingImageConfig': "
            "{'TrainingRepositoryAccessMode': 'Vpc'}}}"
        )


def check_network(*, channels: Sequence[Channel], subnets: Sequence[str], security_group_ids: Sequence[str]) -> None:
    """Refuse half of a VPC, and file systems without one."""
    if bool(subnets) != bool(security_group_ids):
        raise SpecificationError("subnets and security_group_ids belong together: give both, or neither")
    mounted = [channel.name for channel in channels if channel.directory]
    if mounted and not subnets:
        raise SpecificationError(
            f"channels {mounted} are file systems, which are reached from inside their VPC only: give subnets and "
            "security_group_ids that reach them"
        )


def check_channel_groups(*, channels: Sequence[Channel], instance_groups: Sequence[InstanceGroup]) -> None:
    """Refuse channels for groups that the job does not have."""
    names = [group.name for group in instance_groups]
    for channel in channels:
        unknown = sorted(set(channel.instance_groups) - set(names))
        if unknown:
            raise SpecificationError(
                f"channel {channel.name!r}: instance_groups {unknown} are none of the job's, which are {names}"
            )


def check_spot(*, spot: bool, max_runtime_s: Any, max_wait_s: Any, checkpoint_s3_uri: Any) -> None:
    """Refuse spot machines without checkpoints or waiting time, and waiting time without spot machines."""
    if not spot:
        if max_wait_s is not None:
            raise SpecificationError(f"max_wait_s={max_wait_s} is for spot machines: set spot=True, or leave it out")
        return
    if not checkpoint_s3_uri:
        raise SpecificationError(
            "spot=True without checkpoint_s3_uri: an interrupted job would start from zero each time. "
            "Give checkpoint_s3_uri=s3://bucket/prefix and let the script resume from SM_CHECKPOINT_DIR, "
            "or set spot=False"
        )
    if max_wait_s is None or (isinstance(max_runtime_s, int) and max_wait_s < max_runtime_s):
        raise SpecificationError(
            f"max_wait_s={max_wait_s!r} must be at least max_runtime_s={max_runtime_s} with spot=True"
        )


def check_resume(*, resume_on_clear: bool, checkpoint_s3_uri: Any) -> None:
    """Refuse to go on from checkpoints that are nowhere."""
    if resume_on_clear and not checkpoint_s3_uri:
        raise SpecificationError(
            "resume_on_clear=True without checkpoint_s3_uri: there is nothing to go on from. "
            "Give checkpoint_s3_uri=s3://bucket/prefix, or leave resume_on_clear out"
        )


#: Checks of fields that can be right by themselves and wrong together.
_TOGETHER: tuple[Callable[..., None], ...] = (
    machines.check_machines,
    check_spot,
    check_resume,
    check_image_choice,
    check_registry,
    check_network,
    check_channel_groups,
    machines.check_warm_pool,
    machines.check_pending,
    machines.check_volume_key,
    fabric.check_fabric,
)
#: What is not a field, and the fields it is made from.
_DERIVED = {"instance_types": ("instance_type", "instance_groups", "capacity_preferences")}


def check_together(value: Callable[[str], Any], known: Callable[[str], bool]) -> None:
    """Run the checks of several fields whose fields are all known.

    :raises SpecificationError: says which of them to change.
    """
    for check in _TOGETHER:
        names = inspect.signature(check).parameters
        if all(known(field_name) for name in names for field_name in _DERIVED.get(name, (name,))):
            check(**{name: _derived(value) if name in _DERIVED else value(name) for name in names})


def _derived(value: Callable[[str], Any]) -> tuple[str, ...]:
    return machines.instance_types(*(value(name) for name in _DERIVED["instance_types"]))
