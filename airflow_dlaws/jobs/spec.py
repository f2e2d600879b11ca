"""What a job should be, said once, whatever engine runs it. Checks itself when it is made."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs import fabric, images, instances, limits, machines
from airflow_dlaws.jobs.channel import Channel, ChannelKind, Distribution, InputMode, member_of
from airflow_dlaws.jobs.machines import CapacityPreference, InstanceGroup
from airflow_dlaws.jobs.queue import BatchQueue
from airflow_dlaws.jobs.services import MlflowTracking, ModelPackageOutput
from airflow_dlaws.jobs.together import check_together

__all__ = [
    "DEFAULT_MAX_RUNTIME_S",
    "FIELD_CHECKS",
    "CapacityPreference",
    "Channel",
    "ChannelKind",
    "Distribution",
    "InputMode",
    "InstanceGroup",
    "JobSpec",
    "MlflowTracking",
    "ModelPackageOutput",
    "OutputCompression",
    "TrainingSpec",
    "hyperparameter_text",
]

#: One day: SageMaker's own default, made explicit because a job without a limit is a bill without a limit.
DEFAULT_MAX_RUNTIME_S = 24 * 3600


class JobSpec(Protocol):
    """What every kind of specification says, whatever the job does."""

    @property
    def longest_s(self) -> int:
        """Seconds after which the service has ended the job by itself."""


class OutputCompression(enum.StrEnum):
    """How SageMaker stores what is in SM_MODEL_DIR: one archive, or the files as they are (for large models)."""

    GZIP = "GZIP"
    NONE = "NONE"


@dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """One training job: image, code, data, machines, limits.

    :param image: URI of the container image; or give `framework` and `framework_version`, such as "pytorch" and "2.13",
        for AWS's Deep Learning Container of the region (`jobs/images.py`).
    :param source: folder with the code, on the machine that submits, or an s3://bucket/prefix.
    :param dependencies: further folders with code, each copied beside the code under its own last name; as `source`.
    :param entry_point: script in that folder; gets the hyperparameters as `--name value`, then `arguments`.
    :param code_s3_uri: where the code is published, under its digest; `<output_s3_uri>/code` if left out.
    :param instance_type: of all hosts; or give `instance_groups`, several types in one job, or `capacity_preferences`,
        an ordered list of which AWS takes the first that it has.
    :param processes_per_instance: worker processes on each host; None: one an accelerator, 1 on a CPU machine
        (`jobs/instances.py`).
    :param efa: None sets the variables of `jobs/fabric.py` where all types have EFA; True insists; False sets none.
        What `environment` says wins.
    :param keep_alive_s: seconds for which the machines are kept, and paid for, for the next job of the same kind.
    :param training_plan_arn: reserved capacity to use; the job may be queued before the plan begins.
    :param max_runtime_s: seconds of running after which SageMaker itself stops the job.
    :param max_wait_s: seconds of waiting for spot machines plus running; at least `max_runtime_s`.
    :param checkpoint_s3_uri: under it each task gets a folder of its own (`jobs/checkpoints.py`).
    :param resume_on_clear: a cleared task goes on from its former checkpoints; without it, it begins at zero.
    :param max_pending_s: seconds of waiting for capacity after which SageMaker stops the job (accelerators only).
    :param max_retry_attempts: how often SageMaker begins the job anew after an internal error of its own.
    :param kms_key_id: encrypts the output, and the volumes where AWS takes a key for them.
    :param volume_kms_key_id: another key for the volumes.
    :param extra_request: further members of CreateTrainingJob, for which there is no parameter here; they are merged
        into the request (`launchers/extra_request.py`).
    :param job_queue: the AWS Batch queue it waits in, instead of asking SageMaker at once.
    :param metrics: names the script reports on its metric lines (`jobs/metric_line.py`).
    """

    image: str | None = None
    framework: str | None = None
    framework_version: str | None = None
    source: str
    entry_point: str
    output_s3_uri: str
    role_arn: str
    instance_type: str | None = None
    instance_count: int = 1
    instance_groups: tuple[InstanceGroup, ...] = ()
    capacity_preferences: tuple[CapacityPreference, ...] = ()
    processes_per_instance: int | None = None
    efa: bool | None = None
    dependencies: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    channels: tuple[Channel, ...] = ()
    code_s3_uri: str | None = None
    volume_size_gb: int = 30
    max_runtime_s: int = DEFAULT_MAX_RUNTIME_S
    spot: bool = False
    max_wait_s: int | None = None
    checkpoint_s3_uri: str | None = None
    resume_on_clear: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    subnets: tuple[str, ...] = ()
    security_group_ids: tuple[str, ...] = ()
    kms_key_id: str | None = None
    volume_kms_key_id: str | None = None
    keep_alive_s: int | None = None
    training_plan_arn: str | None = None
    max_pending_s: int | None = None
    max_retry_attempts: int | None = None
    network_isolation: bool = False
    encrypt_traffic: bool = False
    output_compression: OutputCompression = OutputCompression.GZIP
    mlflow: MlflowTracking | None = None
    model_package: ModelPackageOutput | None = None
    infra_check: bool = False
    remote_debug: bool = False
    extra_request: Mapping[str, Any] = field(default_factory=dict)
    job_queue: BatchQueue | None = None

    def __post_init__(self) -> None:
        for name, check in FIELD_CHECKS.items():
            check(name, getattr(self, name))
        self._check_channels()
        check_together(lambda name: getattr(self, name), lambda _: True)
        as_text = {key: hyperparameter_text(value) for key, value in self.hyperparameters.items()}
        object.__setattr__(self, "hyperparameters", as_text)
        object.__setattr__(self, "output_compression", OutputCompression(self.output_compression))
        limits.check_environment("environment (with the variables of EFA)", self.job_environment)

    def _check_channels(self) -> None:
        names = [channel.name for channel in self.channels]
        if len(names) >= limits.CHANNEL_COUNT:
            raise SpecificationError(f"{len(names)} channels; at most {limits.CHANNEL_COUNT - 1} fit beside the code")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise SpecificationError(f"channels {twice} are named twice: each channel needs its own name")

    @property
    def longest_s(self) -> int:
        """Seconds after which the service has ended the job by itself.

        A job may be queued for a training plan that begins in weeks: AWS does not count that time as pending.
        """
        running = self.max_wait_s if self.spot and self.max_wait_s else self.max_runtime_s
        planned = self.training_plan_arn or any(choice.training_plan_arn for choice in self.capacity_preferences)
        return running + (machines.MAX_PENDING_S if planned else self.max_pending_s or 0)

    @property
    def instance_types(self) -> tuple[str, ...]:
        """Every type that a host of the job may have."""
        return machines.instance_types(self.instance_type, self.instance_groups, self.capacity_preferences)

    @property
    def hosts(self) -> int:
        """How many hosts the job has; of several preferences, the most that it may have."""
        if self.instance_groups:
            return sum(group.instance_count for group in self.instance_groups)
        counts = [choice.instance_count or self.instance_count for choice in self.capacity_preferences]
        return max(counts, default=self.instance_count)

    @property
    def processes(self) -> Mapping[str, int]:
        """Worker processes on a host, by instance group where there are groups, else by instance type."""
        if self.instance_groups:
            groups = self.instance_groups
            return {group.name: group.processes or instances.processes_on(group.instance_type) for group in groups}
        own = self.processes_per_instance
        return {name: own or instances.processes_on(name) for name in self.instance_types}

    @property
    def processes_text(self) -> str:
        """The processes of a host as the entry program reads them: "8", or "GROUP=8,OTHER=1" where hosts differ."""
        counts = self.processes
        if len(set(counts.values())) == 1:
            return str(next(iter(counts.values())))
        return ",".join(f"{name}={count}" for name, count in counts.items())

    @property
    def job_environment(self) -> Mapping[str, str]:
        """The container's variables: those that suit the machines' network, and the user's, which win."""
        suited = {} if self.efa is False else fabric.preset_for(self.instance_types, self.hosts)
        return {**suited, **self.environment}

    @property
    def volume_key(self) -> str | None:
        """The key that encrypts the volumes; None where AWS takes none (NVMe has a key of its own)."""
        local = any(instances.has_local_storage(name) for name in self.instance_types)
        return self.volume_kms_key_id or (None if local else self.kms_key_id)

    def in_region(self, region: str) -> TrainingSpec:
        """Return the job with the URI of its image, which differs by region."""
        if self.image is not None:
            return self
        assert self.framework is not None
        assert self.framework_version is not None
        image = images.image_uri(self.framework, self.framework_version, self.instance_types, region)
        return replace(self, image=image, framework=None, framework_version=None)


def hyperparameter_text(value: Any) -> str:
    """Spell a hyperparameter; booleans as scripts expect them, not as Python prints them."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _optional(check: Callable[[str, Any], None]) -> Callable[[str, Any], None]:
    return lambda name, value: None if value is None else check(name, value)


def _between(low: int, high: int, unit: str = "") -> Callable[[str, Any], None]:
    return lambda name, value: limits.check_range(name, value, low, high, unit)


def _flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise SpecificationError(f"{name}={value!r} must be True or False")


def _members_of(kind: type) -> Callable[[str, Any], None]:
    def check(name: str, value: Any) -> None:
        if not isinstance(value, tuple) or not all(isinstance(item, kind) for item in value):
            raise SpecificationError(f"{name}={value!r} must be a list of {kind.__name__}")

    return check


def _a(kind: type) -> Callable[[str, Any], None]:
    def check(name: str, value: Any) -> None:
        if not isinstance(value, kind):
            raise SpecificationError(f"{name}={value!r} must be a {kind.__name__}, or its fields as a mapping")

    return check


def _compression(name: str, value: Any) -> None:
    member_of(OutputCompression, name, value)


def _source(name: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise SpecificationError(f"{name}={value!r} must be a folder with the code, or an s3://bucket/prefix")
    if value.startswith("s3:"):
        limits.check_s3_uri(name, value)


def _dependencies(name: str, value: Any) -> None:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise SpecificationError(f"{name}={value!r} must be a list of folders with code")
    for folder in value:
        _source(f"{name}: folder", folder)
    names = [folder_name(folder) for folder in value]
    if nameless := [folder for folder, each in zip(value, names, strict=True) if each in {"", ".", ".."}]:
        raise SpecificationError(f"{name}={nameless} must end with the name that the folder has beside the code")
    if twice := sorted({each for each in names if names.count(each) > 1}):
        raise SpecificationError(
            f"{name}={list(value)!r}: {twice} would be copied twice beside the code: each folder needs its own name"
        )


def folder_name(location: str) -> str:
    """Return the last part of a folder's path or of an s3://bucket/prefix: what it is called beside the code."""
    return location.rstrip("/").rpartition("/")[2]


#: One check a field, in the order of the request; the operator runs those whose value is known when a DAG is parsed.
FIELD_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "image": _optional(limits.check_image),
    "framework": _optional(limits.check_word),
    "framework_version": _optional(limits.check_word),
    "source": _source,
    "dependencies": _dependencies,
    "entry_point": limits.check_entry_point,
    "role_arn": limits.check_role_arn,
    "output_s3_uri": limits.check_s3_uri,
    "code_s3_uri": _optional(limits.check_s3_uri),
    "checkpoint_s3_uri": _optional(limits.check_s3_uri),
    "instance_type": _optional(instances.check_training_instance),
    "instance_count": _between(1, 1000),
    "instance_groups": _members_of(InstanceGroup),
    "capacity_preferences": _members_of(CapacityPreference),
    "processes_per_instance": _optional(_between(1, 128, "(one a GPU)")),
    "efa": _optional(_flag),
    "volume_size_gb": _between(1, 16384, "GB"),
    "max_runtime_s": _between(1, limits.MAX_RUNTIME_S, "seconds"),
    "max_wait_s": _optional(_between(1, limits.MAX_RUNTIME_S, "seconds")),
    "hyperparameters": limits.check_hyperparameters,
    "environment": limits.check_environment,
    "arguments": limits.check_arguments,
    "metrics": limits.check_metrics,
    "spot": _flag,
    "resume_on_clear": _flag,
    "kms_key_id": _optional(limits.check_key),
    "volume_kms_key_id": _optional(limits.check_key),
    "keep_alive_s": _optional(_between(0, machines.MAX_KEEP_ALIVE_S, "seconds")),
    "training_plan_arn": _optional(machines.check_plan_arn),
    "max_pending_s": _optional(_between(machines.MIN_PENDING_S, machines.MAX_PENDING_S, "seconds")),
    "max_retry_attempts": _optional(_between(1, 30)),
    "network_isolation": _flag,
    "encrypt_traffic": _flag,
    "output_compression": _compression,
    "mlflow": _optional(_a(MlflowTracking)),
    "model_package": _optional(_a(ModelPackageOutput)),
    "infra_check": _flag,
    "remote_debug": _flag,
    "subnets": lambda name, value: limits.check_network_ids(name, value, 16),
    "security_group_ids": lambda name, value: limits.check_network_ids(name, value, 5),
    "tags": limits.check_tags,
    "extra_request": limits.check_json,
    "job_queue": _optional(_a(BatchQueue)),
}
