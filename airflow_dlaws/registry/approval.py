"""A person's word on a model package: ModelApprovalStatus, and who gave it, when and why.

The registry is the truth: a word given elsewhere (in Airflow's UI) counts once it is written here, and one that was
given here first stays. Who, when and how stand in ApprovalDescription for people, and in the package's metadata for
programs, because LastModifiedBy then names the role that wrote them. Not here: waiting.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from airflow_dlaws.registry.package import fit_metadata, refusals

#: UpdateModelPackage: ApprovalDescription has at most 1024 characters, and no line breaks.
_DESCRIPTION = 1024
#: Keys of CustomerMetadataProperties that this module writes.
_STATUS, _BY, _AT, _THROUGH = "approval", "approval_by", "approval_at", "approval_through"


class ApprovalStatus(enum.StrEnum):
    """ModelApprovalStatus."""

    APPROVED = "Approved"
    REJECTED = "Rejected"
    PENDING = "PendingManualApproval"


@dataclass(frozen=True, kw_only=True)
class ApprovalResult:
    """What has been decided on a model package; the XCom of an approval."""

    package_arn: str
    status: ApprovalStatus
    #: User of Airflow, Studio profile or IAM identity; empty where the registry does not say.
    decided_by: str = ""
    decided_at: datetime
    why: str = ""
    #: Where the word was given: "airflow" or "registry".
    through: str

    @property
    def sentence(self) -> str:
        """Say it in one line."""
        who = f" by {self.decided_by}" if self.decided_by else ""
        why = f": {' '.join(self.why.split())}" if self.why.strip() else ""
        where = "in Airflow" if self.through == "airflow" else "in the registry"
        return f"{self.status.value}{who} {where} at {self.decided_at.isoformat(timespec='seconds')}{why}"


def describe(sagemaker_client: Any, package_arn: str) -> dict[str, Any]:
    """Return DescribeModelPackage's answer.

    :raises ServiceRefused: there is no such package, or it may not be read.
    """
    with refusals(f"read model package {package_arn}"):
        return dict(sagemaker_client.describe_model_package(ModelPackageName=package_arn))


def approval_of(package: Mapping[str, Any]) -> ApprovalResult | None:
    """Return what has been decided on a package (DescribeModelPackage's answer), None while it waits for a word."""
    status = ApprovalStatus(package["ModelApprovalStatus"])
    if status is ApprovalStatus.PENDING:
        return None
    noted, told = package.get("CustomerMetadataProperties") or {}, str(package.get("ApprovalDescription") or "")
    arn, ours = str(package["ModelPackageArn"]), str(noted.get(_STATUS, ""))
    if ours == status.value:
        result = ApprovalResult(
            package_arn=arn,
            status=status,
            decided_by=noted.get(_BY, ""),
            decided_at=datetime.fromisoformat(noted[_AT]),
            through=noted[_THROUGH],
        )
        return replace(result, why=told.removeprefix(result.sentence).removeprefix(": "))
    # The word was given by hand. If it follows one of ours, the sentence that went with that may have stayed.
    return ApprovalResult(
        package_arn=arn,
        status=status,
        decided_by=_identity(package.get("LastModifiedBy") or package.get("CreatedBy") or {}),
        decided_at=package.get("LastModifiedTime") or package["CreationTime"],
        why="" if ours and told.startswith(ours) else told,
        through="registry",
    )


def decide(sagemaker_client: Any, approval: ApprovalResult) -> ApprovalResult:
    """Write a word into the registry; return the one that counts: whatever stood there first.

    :raises ServiceRefused: the registry does not take it.
    """
    if (earlier := approval_of(describe(sagemaker_client, approval.package_arn))) is not None:
        return earlier
    noted = {
        _STATUS: approval.status.value,
        _BY: approval.decided_by,
        _AT: approval.decided_at.isoformat(),
        _THROUGH: approval.through,
    }
    with refusals(f"write {approval.status.value} to model package {approval.package_arn}"):
        sagemaker_client.update_model_package(
            ModelPackageArn=approval.package_arn,
            ModelApprovalStatus=approval.status.value,
            ApprovalDescription=approval.sentence[:_DESCRIPTION],
            CustomerMetadataProperties=fit_metadata(noted),
        )
    return approval


def _identity(user: Mapping[str, Any]) -> str:
    """Return who a UserContext is: a Studio profile, or else an IAM identity."""
    return str(user.get("UserProfileName") or (user.get("IamIdentity") or {}).get("Arn") or "")
