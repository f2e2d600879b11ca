"""Model packages: creating one version for one task, whatever happens in between, and reading it back."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unicodedata import category

from botocore.exceptions import ClientError

from airflow_dlaws.errors import JobFailed, ServiceRefused, ServiceUnavailable, SpecificationError
from airflow_dlaws.storage import ObjectStore, S3Uri

#: CreateModelPackage: ClientToken has at most 36 characters.
TOKEN_LIMIT = 36
APPROVALS = ("Approved", "PendingManualApproval", "Rejected")
_GROUP = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
#: What keys and values of metadata may hold besides letters, numbers and separators (CustomerMetadataMap in the API).
_METADATA_SIGNS = "_.:/=+-@"
_METADATA_COUNT, _METADATA_KEY, _METADATA_VALUE = 50, 128, 256
_DESCRIPTION = 1024
#: A package without validation jobs is Completed within seconds.
_COMPLETION_S, _LOOK_EVERY_S = 120.0, 2.0
_TRANSIENT = frozenset({"ThrottlingException", "Throttling", "ServiceUnavailable", "InternalFailure"})


@dataclass(frozen=True, kw_only=True)
class PackageSpec:
    """One version of a model package group, as it should be.

    :param metrics_s3_uri: JSON with the model's quality, for ModelMetrics.
    :param monitor_statistics_s3_uri, monitor_constraints_s3_uri: the data that the model knows, as Model Monitor's
        statistics.json and constraints.json, for DriftCheckBaselines; both or none.
    :param metadata: small facts for the console; long ones are cut, the manifest has them whole.
    """

    group: str
    image: str
    artifact_uri: str
    content_types: tuple[str, ...] = ("text/csv",)
    response_types: tuple[str, ...] = ("text/csv",)
    instance_types: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    approval_status: str = "PendingManualApproval"
    description: str = ""
    metrics_s3_uri: str | None = None
    monitor_statistics_s3_uri: str | None = None
    monitor_constraints_s3_uri: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    generated_by: str = ""
    commit_id: str = ""

    def __post_init__(self) -> None:
        if not _GROUP.fullmatch(self.group):
            raise SpecificationError(
                f"model_package_group={self.group!r} is no valid name: up to 63 letters, digits and inner dashes"
            )
        if self.approval_status not in APPROVALS:
            raise SpecificationError(f"approval_status={self.approval_status!r} is none of {list(APPROVALS)}")
        if not self.content_types or not self.response_types:
            raise SpecificationError("content_types and response_types need at least one type each, such as text/csv")
        if not re.fullmatch(r"\S{1,255}", self.image):
            raise SpecificationError(f"image={self.image!r} must be the address of a container image")
        S3Uri.parse(self.artifact_uri)


@dataclass(frozen=True, kw_only=True)
class PackageResult:
    """The XCom of a registration, as read back from SageMaker."""

    package_arn: str
    group: str
    version: int
    approval_status: str
    artifact_uri: str
    image: str
    manifest_uri: str
    drift_reference_uri: str | None = None
    model_card_uri: str | None = None
    metrics_uri: str | None = None


def ensure_group(sagemaker_client: Any, name: str, *, description: str = "") -> None:
    """Create the model package group; one that is there already is no error."""
    options = {"ModelPackageGroupDescription": description[:_DESCRIPTION]} if description else {}
    with refusals(f"create model package group {name!r}"):
        try:
            sagemaker_client.create_model_package_group(ModelPackageGroupName=name, **options)
        except ClientError as error:
            if "already exists" not in str(error):
                raise


def create_once(sagemaker_client: Any, store: ObjectStore, spec: PackageSpec, *, token: str) -> str:
    """Create the package that belongs to `token`, or find the one an earlier try has made; return its ARN.

    SageMaker itself answers a repeated ClientToken with the same package, but does not say for how long; so the ARN is
    also noted in S3 beside the artifact, and the note is asked first.

    :raises ServiceRefused: SageMaker refuses the request.
    """
    note = S3Uri.parse(spec.artifact_uri).parent / f"registered/{token}.json"
    if store.exists(note):
        return str(store.read_json(note)["package_arn"])
    with refusals(f"register {spec.artifact_uri} in group {spec.group!r}"):
        arn = str(sagemaker_client.create_model_package(**creation_request(spec), ClientToken=token)["ModelPackageArn"])
    store.write_json(note, {"package_arn": arn})
    return arn


def read_back(sagemaker_client: Any, arn: str, *, sleep: Callable[[float], None] = time.sleep) -> dict[str, Any]:
    """Return DescribeModelPackage's answer once the package is Completed.

    :raises JobFailed: SageMaker failed it.
    :raises ServiceUnavailable: it is not complete after two minutes.
    """
    for _ in range(int(_COMPLETION_S / _LOOK_EVERY_S)):
        with refusals(f"read back {arn} (if it was deleted, clear the task to register a new version)"):
            package = dict(sagemaker_client.describe_model_package(ModelPackageName=arn))
        status = package["ModelPackageStatus"]
        if status == "Completed":
            return package
        if status not in ("Pending", "InProgress"):
            raise JobFailed(f"model package {arn} is {status}: {package.get('ModelPackageStatusDetails')}")
        sleep(_LOOK_EVERY_S)
    raise ServiceUnavailable(f"model package {arn} is still {status} after {_COMPLETION_S:.0f} s; retry the task")


def creation_request(spec: PackageSpec) -> dict[str, Any]:
    """Return CreateModelPackage's parameters, without the token."""
    container: dict[str, Any] = {"Image": spec.image, "ModelDataUrl": spec.artifact_uri}
    if spec.environment:
        container["Environment"] = dict(spec.environment)
    inference: dict[str, Any] = {
        "Containers": [container],
        "SupportedContentTypes": list(spec.content_types),
        "SupportedResponseMIMETypes": list(spec.response_types),
    }
    if spec.instance_types:
        inference["SupportedRealtimeInferenceInstanceTypes"] = list(spec.instance_types)
    about = {"GeneratedBy": spec.generated_by[:1024], "CommitId": spec.commit_id[:1024]}
    optional = {
        "ModelPackageDescription": spec.description[:_DESCRIPTION],
        "CustomerMetadataProperties": fit_metadata(spec.metadata),
        "MetadataProperties": {key: value for key, value in about.items() if value},
    }
    request: dict[str, Any] = {
        "ModelPackageGroupName": spec.group,
        "InferenceSpecification": inference,
        "ModelApprovalStatus": spec.approval_status,
        **{key: value for key, value in optional.items() if value},
    }
    if spec.metrics_s3_uri:
        request["ModelMetrics"] = {"ModelQuality": {"Statistics": _json_file(spec.metrics_s3_uri)}}
    if spec.monitor_statistics_s3_uri and spec.monitor_constraints_s3_uri:
        request["DriftCheckBaselines"] = {
            "ModelDataQuality": {
                "Statistics": _json_file(spec.monitor_statistics_s3_uri),
                "Constraints": _json_file(spec.monitor_constraints_s3_uri),
            }
        }
    return request


def fit_metadata(facts: Mapping[str, str]) -> dict[str, str]:
    """Fit facts into CustomerMetadataProperties: 50 of them, keys to 128 and values to 256 characters, few signs."""
    fitted = {
        _fit(str(key), _METADATA_KEY): _fit(str(value), _METADATA_VALUE)
        for key, value in facts.items()
        if str(key) and str(value)
    }
    return dict(list(fitted.items())[:_METADATA_COUNT])


def _fit(text: str, limit: int) -> str:
    allowed = (each if category(each)[0] in "LZN" or each in _METADATA_SIGNS else "_" for each in text[:limit])
    return "".join(allowed)


def quality_document(metrics: Mapping[str, float | None]) -> dict[str, Any]:
    """Return binary classification metrics in the shape SageMaker's console shows as model quality."""
    values = {
        name: {"value": value, "standard_deviation": "NaN"} for name, value in metrics.items() if value is not None
    }
    return {"binary_classification_metrics": values}


def _json_file(uri: str) -> dict[str, str]:
    return {"ContentType": "application/json", "S3Uri": uri}


@contextmanager
def refusals(action: str) -> Iterator[None]:
    """Tell SageMaker's refusals as this package's errors, with what was tried ("register x in group y")."""
    try:
        yield
    except ClientError as error:
        detail = error.response.get("Error", {})
        text = f"cannot {action}: {detail.get('Code')}: {detail.get('Message')}"
        kind = ServiceUnavailable if detail.get("Code") in _TRANSIENT else ServiceRefused
        raise kind(text) from error
