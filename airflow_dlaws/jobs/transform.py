"""Batch inference, said once: which model scores which data, and what came of it. Checks itself when it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs import limits
from airflow_dlaws.jobs.rows import check_columns
from airflow_dlaws.jobs.spec import Channel

#: "We support up to 16 key and values entries in the map" (CreateTransformJob, Environment).
ENVIRONMENT_COUNT = 16
#: "The value of MaxPayloadInMB cannot be greater than 100 MB", nor that of all concurrent requests together.
LARGEST_PAYLOAD_MB = 100
#: A night: SageMaker itself sets transform jobs no limit, so there must be one.
DEFAULT_MAX_RUNTIME_S = 8 * 3600
SPLITS = ("Line", "None")
STRATEGIES = ("MultiRecord", "SingleRecord")


@dataclass(frozen=True, kw_only=True)
class ScoringModel:
    """What scores: a SageMaker model that is there, a version of the registry, or an artifact and its image.

    :param model_name: a SageMaker model.
    :param model_package_arn: an approved version; a model is made of it, as it is of `artifact_uri` and `image`.
    :param role_arn: what a model made here runs as.
    """

    model_name: str | None = None
    model_package_arn: str | None = None
    artifact_uri: str | None = None
    image: str | None = None
    role_arn: str | None = None

    def __post_init__(self) -> None:
        if bool(self.artifact_uri) != bool(self.image):
            raise SpecificationError(
                f"artifact_uri={self.artifact_uri!r} and image={self.image!r} belong together: give both, or neither"
            )
        ways = {"model_name": self.model_name, "model_package_arn": self.model_package_arn, "image": self.image}
        given = sorted(name for name, value in ways.items() if value)
        if len(given) != 1:
            raise SpecificationError(
                f"{given or 'nothing'} given: say what scores by exactly one of model_name, model_package_arn, or "
                "artifact_uri and image"
            )
        if self.model_name is None:
            limits.check_role_arn("role_arn", self.role_arn)
        if self.artifact_uri:
            limits.check_s3_uri("artifact_uri", self.artifact_uri)
            limits.check_image("image", self.image)


@dataclass(frozen=True, kw_only=True)
class TransformSpec:
    """One transform job.

    :param data: the objects to score; a prefix must end with "/", or be one object's key.
    :param split: "Line": each line is a record; "None": each object is one.
    :param strategy: "MultiRecord": as many records in a request as fit; "SingleRecord": one.
    :param max_concurrent: requests at once to each instance; None asks the container.
    :param columns: name -> "number" or "text" of each CSV column, in order; for the check of rows.
    :param check_rows: read all rows before the job is created (CSV that is split by line).
    :param input_filter: JSONPath of what of a row goes to the model; `output_filter` of what is stored.
    :param join_input: store each row with its prediction behind it.
    :param max_runtime_s: seconds after which the task stops the job: SageMaker has no limit of its own for these.
    :param state_s3_uri: where a task notes its job; the parent of `output_s3_uri` if left out.
    """

    model: ScoringModel
    data: Channel
    output_s3_uri: str
    instance_type: str
    instance_count: int = 1
    content_type: str = "text/csv"
    accept: str | None = None
    split: str = "Line"
    strategy: str = "MultiRecord"
    max_payload_mb: int = 6
    max_concurrent: int | None = None
    invocation_timeout_s: int = 600
    invocation_retries: int = 3
    columns: Mapping[str, str] = field(default_factory=dict)
    check_rows: bool = True
    input_filter: str = "$"
    output_filter: str = "$"
    join_input: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    max_runtime_s: int = DEFAULT_MAX_RUNTIME_S
    state_s3_uri: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    kms_key_id: str | None = None

    def __post_init__(self) -> None:
        for name, check in FIELD_CHECKS.items():
            check(name, getattr(self, name))
        check_payload(self.max_payload_mb, self.max_concurrent)
        check_places(self.data.uri, self.output_s3_uri)

    @property
    def longest_s(self) -> int:
        """Seconds the job may take; the task, not the service, ends it then."""
        return self.max_runtime_s

    @property
    def reads_rows(self) -> bool:
        """Whether the rows of the data can be checked one by one."""
        return self.check_rows and self.split == "Line" and self.content_type.partition(";")[0].strip() == "text/csv"


@dataclass(frozen=True, kw_only=True)
class TransformResult:
    """What a batch inference task hands on through XCom.

    :param records: lines scored, in all objects; None where objects are not split into records.
    :param counts: records by output object, of the first hundred objects.
    :param billable_seconds: seconds billed for each instance.
    """

    job_name: str
    job_arn: str
    model_name: str
    output_s3_uri: str
    objects: int
    records: int | None
    counts: Mapping[str, int]
    billable_seconds: int
    instance_count: int
    instance_type: str
    adopted: bool = False
    attempts: int = 1


def check_payload(max_payload_mb: int, max_concurrent: int | None) -> None:
    """Refuse requests that together are larger than SageMaker lets them be."""
    if max_payload_mb * (max_concurrent or 1) > LARGEST_PAYLOAD_MB:
        raise SpecificationError(
            f"max_payload_mb={max_payload_mb} times max_concurrent={max_concurrent} is over {LARGEST_PAYLOAD_MB} MB: "
            "make one of them smaller"
        )


def check_places(data_uri: str, output_s3_uri: str) -> None:
    """Refuse an output that the next run would read as input."""
    if f"{output_s3_uri.rstrip('/')}/".startswith(f"{data_uri.rstrip('/')}/"):
        raise SpecificationError(
            f"output_s3_uri={output_s3_uri!r} lies in the data ({data_uri!r}), where the next run would score it: "
            "write beside the data"
        )


def _one_of(*allowed: str) -> Callable[[str, Any], None]:
    def check(name: str, value: Any) -> None:
        if value not in allowed:
            raise SpecificationError(f"{name}={value!r} must be one of {list(allowed)}")

    return check


def _between(low: int, high: int, unit: str = "") -> Callable[[str, Any], None]:
    return lambda name, value: limits.check_range(name, value, low, high, unit)


def _optional(check: Callable[[str, Any], None]) -> Callable[[str, Any], None]:
    return lambda name, value: None if value is None else check(name, value)


def _environment(name: str, value: Any) -> None:
    limits.check_environment(name, value)
    if len(value) > ENVIRONMENT_COUNT:
        raise SpecificationError(f"{name} has {len(value)} entries; a transform job takes {ENVIRONMENT_COUNT}")


#: One check a field; the operator runs those whose value is known when a DAG is parsed.
FIELD_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "output_s3_uri": limits.check_s3_uri,
    "state_s3_uri": _optional(limits.check_s3_uri),
    "instance_type": limits.check_instance_type,
    "instance_count": _between(1, 1000),
    "split": _one_of(*SPLITS),
    "strategy": _one_of(*STRATEGIES),
    "max_payload_mb": _between(1, LARGEST_PAYLOAD_MB, "MB"),
    "max_concurrent": _optional(_between(1, LARGEST_PAYLOAD_MB)),
    "invocation_timeout_s": _between(1, 3600, "seconds"),
    "invocation_retries": _between(0, 3),
    "max_runtime_s": _between(1, limits.MAX_RUNTIME_S, "seconds"),
    "environment": _environment,
    "columns": check_columns,
}
