"""The model registry: model package groups, and their versions with approval and lineage.

Packages are Completed at once: without a ValidationSpecification AWS has nothing to run either, it only takes seconds.
Not here: unversioned packages, marketplace, validation jobs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from airflow_dlaws.local import listing
from airflow_dlaws.local.context import ACCOUNT, Handler, LocalContext, PerRegion, RequestContext
from airflow_dlaws.local.errors import ServiceError, unsupported, validation_error

#: API reference, CreateModelPackage: CustomerMetadataProperties.
METADATA_LIMIT = 50

#: Who everybody is here: the identity that moto's STS answers GetCallerIdentity with.
CALLER = f"arn:aws:sts::{ACCOUNT}:user/moto"

_UNSUPPORTED = (
    "ModelPackageName", "ValidationSpecification", "SourceAlgorithmSpecification", "CertifyForMarketplace",
    "AdditionalInferenceSpecifications", "ManagedStorageType",
)  # fmt: skip

_UNSUPPORTED_UPDATES = ("AdditionalInferenceSpecificationsToAdd", "ModelPackageRegistrationType")

_UPDATABLE = (
    "ModelApprovalStatus", "ApprovalDescription", "InferenceSpecification", "SourceUri", "ModelCard", "ModelLifeCycle",
)  # fmt: skip

#: What DescribeModelPackage repeats from the request as it was.
_ECHOED = (
    "ModelPackageGroupName", "ModelPackageDescription", "ModelPackageRegistrationType", "InferenceSpecification",
    "ModelApprovalStatus", "MetadataProperties", "ModelMetrics", "Domain", "Task", "SamplePayloadUrl",
    "CustomerMetadataProperties", "DriftCheckBaselines", "SkipModelValidation", "SourceUri", "SecurityConfig",
    "ModelCard", "ModelLifeCycle", "ApprovalDescription",
)  # fmt: skip


@dataclass
class ModelPackage:
    """One version in a group: the request, and what has been updated since."""

    arn: str
    version: int
    created: datetime
    request: dict[str, Any]
    modified: datetime | None = None

    @property
    def approval(self) -> str:
        """ModelApprovalStatus."""
        return str(self.request["ModelApprovalStatus"])

    @property
    def container(self) -> dict[str, Any]:
        """The container a model made from this package runs."""
        return dict(self.request["InferenceSpecification"]["Containers"][0])


@dataclass
class Group:
    """A model package group. Versions count up and are never used again."""

    name: str
    arn: str
    created: datetime
    description: str | None
    packages: dict[int, ModelPackage] = field(default_factory=dict)
    last_version: int = 0


@dataclass
class _Region:
    groups: dict[str, Group] = field(default_factory=dict)
    #: ClientToken -> ARN. A token given again gives the same package again.
    tokens: dict[str, str] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)


class ModelPackages:
    """The operations on groups and packages."""

    def __init__(self, context: LocalContext) -> None:
        self._context = context
        self._regions: PerRegion[_Region] = PerRegion(_Region)

    def operations(self) -> dict[str, Handler]:
        """See `Resource`."""
        return {
            "CreateModelPackageGroup": self._create_group,
            "DescribeModelPackageGroup": self._describe_group,
            "DeleteModelPackageGroup": self._delete_group,
            "ListModelPackageGroups": self._list_groups,
            "CreateModelPackage": self._create,
            "DescribeModelPackage": self._describe,
            "UpdateModelPackage": self._update,
            "DeleteModelPackage": self._delete,
            "ListModelPackages": self._list,
        }

    def runtime_operations(self) -> dict[str, Handler]:
        """See `Resource`."""
        return {}

    def close(self) -> None:
        """See `Resource`."""

    def find(self, name_or_arn: str, request: RequestContext) -> ModelPackage:
        """Return a package by its ARN.

        :raises ServiceError: there is none.
        """
        region = self._regions[request.region]
        group, _, version = name_or_arn.removeprefix(request.arn("model-package", "")).partition("/")
        with region.lock:
            packages = region.groups[group].packages if group in region.groups else {}
            if not version.isdigit() or int(version) not in packages:
                arn = name_or_arn if name_or_arn.startswith("arn:") else request.arn("model-package", name_or_arn)
                raise validation_error(f"ModelPackage {arn} does not exist.")
            return packages[int(version)]

    def _create_group(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        if "ManagedConfiguration" in parameters:
            raise unsupported("ManagedConfiguration of a model package group")
        name, region = parameters["ModelPackageGroupName"], self._regions[request.region]
        arn = request.arn("model-package-group", name)
        with region.lock:
            if name in region.groups:
                raise validation_error(f"Model Package Group already exists: {arn}")
            description = parameters.get("ModelPackageGroupDescription")
            region.groups[name] = Group(name=name, arn=arn, created=self._context.now(), description=description)
            self._context.tags.create(arn, parameters.get("Tags"))
        return {"ModelPackageGroupArn": arn}

    def _describe_group(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        return {**_group_summary(self._group(parameters["ModelPackageGroupName"], request)), "CreatedBy": {}}

    def _delete_group(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        region = self._regions[request.region]
        with region.lock:
            group = self._group(parameters["ModelPackageGroupName"], request)
            if group.packages:
                # The code is in the service model; the sentence could not be verified against AWS.
                raise ServiceError(
                    "ConflictException",
                    f"Model Package Group cannot be deleted because it still contains {len(group.packages)} Model "
                    f"Packages: {group.arn}",
                )
            del region.groups[group.name]
            self._context.tags.forget(group.arn)
        return {}

    def _list_groups(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        summaries = map(_group_summary, list(self._regions[request.region].groups.values()))
        return listing.page(summaries, parameters, into="ModelPackageGroupSummaryList", name="ModelPackageGroupName")

    def _group(self, name_or_arn: str, request: RequestContext) -> Group:
        name = name_or_arn.removeprefix(request.arn("model-package-group", ""))
        group = self._regions[request.region].groups.get(name)
        if group is None:
            raise validation_error(f"Model Package Group {request.arn('model-package-group', name)} does not exist.")
        return group

    def _create(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        region = self._regions[request.region]
        for problem in _creation_problems(parameters):
            raise problem
        with region.lock:
            token = parameters.get("ClientToken")
            if token in region.tokens:
                return {"ModelPackageArn": region.tokens[token]}
            group = self._group(parameters["ModelPackageGroupName"], request)
            group.last_version += 1
            package = ModelPackage(
                arn=request.arn("model-package", f"{group.name}/{group.last_version}"),
                version=group.last_version,
                created=self._context.now(),
                request={
                    "ModelApprovalStatus": "PendingManualApproval",
                    **parameters,
                    "ModelPackageGroupName": group.name,
                },
            )
            group.packages[package.version] = package
            if token:
                region.tokens[token] = package.arn
            self._context.tags.create(package.arn, parameters.get("Tags"))
        return {"ModelPackageArn": package.arn}

    def _describe(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        package = self.find(parameters["ModelPackageName"], request)
        return {
            # AWS names a version by its group here, too (DescribeModelPackage, response of a versioned package).
            "ModelPackageName": f"{package.request['ModelPackageGroupName']}/{package.version}",
            "ModelPackageVersion": package.version,
            "ModelPackageArn": package.arn,
            "CreationTime": package.created,
            "LastModifiedTime": package.modified,
            **({"LastModifiedBy": {"IamIdentity": {"Arn": CALLER}}} if package.modified else {}),
            "ModelPackageStatus": "Completed",
            "ModelPackageStatusDetails": {"ValidationStatuses": [], "ImageScanStatuses": []},
            "CertifyForMarketplace": False,
            **{member: package.request[member] for member in _ECHOED if member in package.request},
        }

    def _update(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        for member in _UNSUPPORTED_UPDATES:
            if member in parameters:
                raise unsupported(f"{member} in UpdateModelPackage")
        with self._regions[request.region].lock:
            package = self.find(parameters["ModelPackageArn"], request)
            changes: dict[str, Any] = {member: parameters[member] for member in _UPDATABLE if member in parameters}
            if "InferenceSpecification" in changes and "InferenceSpecification" in package.request:
                raise validation_error(
                    f"Model package {package.arn} has an InferenceSpecification; it can only be set once."
                )
            changes["CustomerMetadataProperties"] = _merged_metadata(package, parameters)
            package.request = {**package.request, **changes}
            package.modified = self._context.now()
        return {"ModelPackageArn": package.arn}

    def _delete(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        region = self._regions[request.region]
        with region.lock:
            package = self.find(parameters["ModelPackageName"], request)
            del region.groups[package.request["ModelPackageGroupName"]].packages[package.version]
            region.tokens = {token: arn for token, arn in region.tokens.items() if arn != package.arn}
            self._context.tags.forget(package.arn)
        return {}

    def _list(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        region, wanted = self._regions[request.region], parameters.get("ModelPackageGroupName")
        with region.lock:
            groups = [self._group(wanted, request)] if wanted else list(region.groups.values())
            summaries = [_summary(package) for group in groups for package in group.packages.values()]
        if parameters.get("ModelPackageType") == "Unversioned":
            summaries = []
        return listing.page(
            summaries,
            parameters,
            into="ModelPackageSummaryList",
            name="ModelPackageGroupName",
            exact={"ModelApprovalStatus": "ModelApprovalStatus"},
        )


def _creation_problems(parameters: dict[str, Any]) -> Iterator[ServiceError]:
    for member in _UNSUPPORTED:
        if parameters.get(member):
            yield unsupported(f"{member} in CreateModelPackage")
    if "ModelPackageGroupName" not in parameters:
        yield unsupported("model packages outside a group; give ModelPackageGroupName")
    specification = parameters.get("InferenceSpecification")
    if specification is None:
        yield validation_error("InferenceSpecification is required to register a model package.")
    elif len(specification["Containers"]) != 1:
        yield unsupported(f"a model package of {len(specification['Containers'])} containers; give one")
    elif not specification["Containers"][0].get("Image"):
        yield validation_error("Image is required in InferenceSpecification.Containers of a model package.")


def _merged_metadata(package: ModelPackage, parameters: dict[str, Any]) -> dict[str, str]:
    merged = {
        **package.request.get("CustomerMetadataProperties", {}),
        **parameters.get("CustomerMetadataProperties", {}),
    }
    for key in parameters.get("CustomerMetadataPropertiesToRemove", []):
        merged.pop(key, None)
    if len(merged) > METADATA_LIMIT:
        raise validation_error(
            f"CustomerMetadataProperties of {package.arn} would have {len(merged)} entries; at most "
            f"{METADATA_LIMIT} are allowed."
        )
    return merged


def _group_summary(group: Group) -> dict[str, Any]:
    return {
        "ModelPackageGroupName": group.name,
        "ModelPackageGroupArn": group.arn,
        "ModelPackageGroupDescription": group.description,
        "CreationTime": group.created,
        "ModelPackageGroupStatus": "Completed",
    }


def _summary(package: ModelPackage) -> dict[str, Any]:
    return {
        "ModelPackageGroupName": package.request["ModelPackageGroupName"],
        "ModelPackageVersion": package.version,
        "ModelPackageArn": package.arn,
        "ModelPackageDescription": package.request.get("ModelPackageDescription"),
        "CreationTime": package.created,
        "ModelPackageStatus": "Completed",
        "ModelApprovalStatus": package.approval,
    }
