"""A processing job, said once: a program over files, and the files it leaves. Checks itself when it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs import limits
from airflow_dlaws.jobs.channel import Channel

#: Where the container finds input NAME, and where what it leaves in output NAME is uploaded from.
INPUTS, OUTPUTS = "/opt/ml/processing/input", "/opt/ml/processing/output"
#: CreateProcessingJob: ProcessingInputs.
INPUT_COUNT = 10
#: CreateProcessingJob: MaxRuntimeInSeconds, seven days.
LONGEST_RUNTIME_S = 7 * 24 * 3600


@dataclass(frozen=True, kw_only=True)
class ProcessingSpec:
    """One processing job on one machine.

    :param command: the program and its arguments.
    :param inputs: each lies in INPUTS/<its name>, copied before the start.
    :param outputs: name -> prefix in S3; OUTPUTS/<name> is uploaded there once the program has ended well.
    :param isolated: without any network; data come and go through `inputs` and `outputs` all the same.
    """

    image: str
    command: tuple[str, ...]
    inputs: tuple[Channel, ...]
    outputs: Mapping[str, str]
    role_arn: str
    instance_type: str
    volume_size_gb: int = 30
    environment: Mapping[str, str] = field(default_factory=dict)
    max_runtime_s: int = 3600
    isolated: bool = True
    subnets: tuple[str, ...] = ()
    security_group_ids: tuple[str, ...] = ()
    kms_key_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, check in FIELD_CHECKS.items():
            check(name, getattr(self, name))
        names = [channel.name for channel in self.inputs]
        if len(set(names)) != len(names) or len(names) > INPUT_COUNT:
            raise SpecificationError(f"inputs={names} must have different names, and be at most {INPUT_COUNT}")
        if not self.command:
            raise SpecificationError("command=() runs nothing: name the program and its arguments")

    @property
    def longest_s(self) -> int:
        """Seconds the job may take."""
        return self.max_runtime_s


def _each_location(name: str, value: Any) -> None:
    for key, location in value.items():
        limits.check_s3_uri(f"{name}[{key!r}]", location)


#: One check a field; an operator runs those whose value is known when a DAG is parsed.
FIELD_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "image": limits.check_image,
    "outputs": _each_location,
    "role_arn": limits.check_role_arn,
    "instance_type": limits.check_instance_type,
    "volume_size_gb": lambda name, value: limits.check_range(name, value, 1, 16384, "GB"),
    "environment": limits.check_environment,
    "max_runtime_s": lambda name, value: limits.check_range(name, value, 1, LONGEST_RUNTIME_S, "seconds"),
    "subnets": lambda name, value: limits.check_network_ids(name, value, 16),
    "security_group_ids": lambda name, value: limits.check_network_ids(name, value, 5),
    "tags": limits.check_tags,
}
