"""What a training job on a Slurm cluster should be: its cluster, and what it shares with jobs of other engines."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs import limits
from airflow_dlaws.jobs.spec import DEFAULT_MAX_RUNTIME_S, FIELD_CHECKS, hyperparameter_text

#: SageMaker's own time between SIGTERM and SIGKILL, so that a script's last checkpoint takes as long as it may there.
DEFAULT_GRACE_S = 120
#: ssh://CONNECTION, or ssm://[USER@]INSTANCE (an EC2 instance, or a machine that is registered with Systems Manager).
_ADDRESS = re.compile(r"ssh://[\w.-]+|ssm://(?:[a-z_][\w-]*@)?m?i-[0-9a-f]{8,17}")
#: No spaces, quotes or colons: Slurm expands % in file names, and containers split mounts at colons and commas.
_SHARED_PATH = re.compile(r"(?:/[\w.+=@-]+)+")
_OPTION = re.compile(r"[a-z][a-z0-9-]*")
_VALUE = re.compile(r"[^\x00-\x1f\x7f]*")
#: Options that this package sets itself: each says which field to use.
_TAKEN = {
    "account": "account",
    "array": "one task is one job: map the Airflow task instead",
    "chdir": "work_dir",
    "comment": "it carries the job's digest",
    "error": "the job's log is read by the task",
    "export": "environment",
    "gpus-per-node": "gpus_per_node",
    "job-name": "it carries the job's identity",
    "no-requeue": "a job that lost its nodes is begun again by Slurm, from its checkpoints",
    "nodes": "instance_count",
    "ntasks": "processes_per_instance",
    "ntasks-per-node": "processes_per_instance",
    "open-mode": "the job's log is read by the task",
    "output": "the job's log is read by the task",
    "parsable": "the launcher reads sbatch's answer",
    "partition": "partition",
    "qos": "qos",
    "requeue": "it is set",
    "time": "max_runtime_s",
    "wait": "the task waits",
    "wrap": "entry_point",
}


@dataclass(frozen=True, kw_only=True)
class SlurmCluster:
    """Which cluster, and which part of it.

    :param address: how its head node is reached: `ssh://CONNECTION`, an Airflow connection of type SSH, or
        `ssm://INSTANCE` or `ssm://USER@INSTANCE`, through AWS Systems Manager with the task's AWS connection.
    :param work_dir: folder that all nodes share (FSx for Lustre, EFS, NFS); each job gets a folder in it.
    :param partition: the cluster's default if left out.
    :param gpus_per_node: GPUs to allocate on each node.
    :param python: interpreter on the nodes; without an image it runs the script, so it must have what that imports.
    :param checkpoint_dir: shared folder behind SM_CHECKPOINT_DIR; one of the task's own under `work_dir` if left out.
    :param grace_s: seconds between SIGTERM and SIGKILL for a job that is stopped or over its limit.
    :param sbatch: further long options of sbatch, without dashes: `{"constraint": "efa", "exclusive": ""}`.
    """

    address: str
    work_dir: str
    partition: str | None = None
    gpus_per_node: int = 0
    account: str | None = None
    qos: str | None = None
    python: str = "python3"
    checkpoint_dir: str | None = None
    grace_s: int = DEFAULT_GRACE_S
    sbatch: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, check in CLUSTER_CHECKS.items():
            check(f"slurm {name}", getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class SlurmSpec:
    """One training job on a cluster; fields mean what they mean in TrainingSpec, unless said here.

    :param channels: name -> absolute path of shared files, which the job reads where they are, or s3://bucket/prefix,
        which the job copies first, with the AWS CLI and the node's own credentials.
    :param instance_count: nodes.
    :param processes_per_instance: worker processes on each node.
    :param image: container image, run by the pyxis plugin and enroot; plain Python on the nodes if left out.
    :param output_s3_uri: where the task puts the job's archives once it has ended.
    :param resume_on_clear: whether a cleared task finds the checkpoints of its former life. Without a `checkpoint_dir`
        of the cluster only, which all of its jobs share.
    """

    cluster: SlurmCluster
    source: str
    dependencies: tuple[str, ...] = ()
    entry_point: str
    output_s3_uri: str
    instance_count: int = 1
    processes_per_instance: int = 1
    image: str | None = None
    arguments: tuple[str, ...] = ()
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    channels: Mapping[str, str] = field(default_factory=dict)
    code_s3_uri: str | None = None
    max_runtime_s: int = DEFAULT_MAX_RUNTIME_S
    environment: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    resume_on_clear: bool = False

    def __post_init__(self) -> None:
        for name, check in SLURM_FIELD_CHECKS.items():
            check(name, getattr(self, name))
        as_text = {key: hyperparameter_text(value) for key, value in self.hyperparameters.items()}
        object.__setattr__(self, "hyperparameters", as_text)

    @property
    def longest_s(self) -> int:
        """Seconds of running after which the job ends by itself; the time in the queue has no limit of its own."""
        return self.max_runtime_s


def _address(name: str, value: Any) -> None:
    if not isinstance(value, str) or not _ADDRESS.fullmatch(value):
        raise SpecificationError(
            f"{name}={value!r} must be ssh://CONNECTION (the id of an Airflow SSH connection to the head node) "
            "or ssm://INSTANCE or ssm://USER@INSTANCE (the head node's instance id, as ssm://ec2-user@i-0123456789abcdef0)"
        )


def _shared_path(name: str, value: Any) -> None:
    if not isinstance(value, str) or not _SHARED_PATH.fullmatch(value) or ".." in value.split("/"):
        raise SpecificationError(
            f"{name}={value!r} must be the absolute path of a folder that all nodes share, as '/fsx/dlaws', "
            "of letters, digits and . _ + = @ -"
        )


def _word(name: str, value: Any) -> None:
    if not isinstance(value, str) or not re.fullmatch(r"[\w.,+-]+", value):
        raise SpecificationError(f"{name}={value!r} must be a name as Slurm has them, or be left out")


def _python(name: str, value: Any) -> None:
    if not isinstance(value, str) or not re.fullmatch(r"[\w./+-]+", value):
        raise SpecificationError(
            f"{name}={value!r} must be a program on the nodes, as 'python3' or '/fsx/venv/bin/python'"
        )


def _sbatch(name: str, values: Any) -> None:
    if not isinstance(values, Mapping):
        raise SpecificationError(f"{name}={values!r} must map long options of sbatch to values, as {{'exclusive': ''}}")
    for option, value in values.items():
        if not isinstance(option, str) or not _OPTION.fullmatch(option):
            raise SpecificationError(f"{name} option {option!r} must be a long option without dashes, as 'constraint'")
        if option in _TAKEN:
            raise SpecificationError(
                f"{name} option {option!r} is set by this package ({_TAKEN[option]}): leave it out"
            )
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise SpecificationError(f"{name}[{option!r}]={value!r} must be one line of text, empty for a switch")


def _slurm_channels(name: str, values: Any) -> None:
    if not isinstance(values, Mapping):
        raise SpecificationError(f"{name}={values!r} must map names to shared paths or s3://bucket/prefix")
    for channel, uri in values.items():
        limits.check_channel_name("channel name", channel)
        if isinstance(uri, str) and uri.startswith("s3://"):
            limits.check_s3_uri(f"channel {channel!r}", uri)
        else:
            _shared_path(f"channel {channel!r}", uri)


def _optional(check: Callable[[str, Any], None]) -> Callable[[str, Any], None]:
    return lambda name, value: None if value is None else check(name, value)


CLUSTER_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "address": _address,
    "work_dir": _shared_path,
    "partition": _optional(_word),
    "gpus_per_node": lambda name, value: limits.check_range(name, value, 0, 128),
    "account": _optional(_word),
    "qos": _optional(_word),
    "python": _python,
    "checkpoint_dir": _optional(_shared_path),
    "grace_s": lambda name, value: limits.check_range(name, value, 1, 3600, "seconds"),
    "sbatch": _sbatch,
}
#: What a job on a cluster shares with SageMaker's, checked alike, and its own channels.
SLURM_FIELD_CHECKS: dict[str, Callable[[str, Any], None]] = {
    **{
        name: FIELD_CHECKS[name]
        for name in (
            "source", "dependencies", "entry_point", "output_s3_uri", "code_s3_uri", "instance_count",
            "processes_per_instance", "max_runtime_s", "hyperparameters", "environment", "arguments", "metrics",
        )
    },
    "image": _optional(limits.check_image),
    "channels": _slurm_channels,
}  # fmt: skip
