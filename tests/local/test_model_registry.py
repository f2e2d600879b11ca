"""The model registry: versions in groups, approval, and what may be made of them."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from serving import IMAGE, ROLE, Serving, unique

ARN = "arn:aws:sagemaker:us-east-1:123456789012"


@pytest.fixture
def group(serving: Serving) -> str:
    name = unique("group")
    serving.sagemaker.create_model_package_group(ModelPackageGroupName=name, ModelPackageGroupDescription="for tests")
    return name


def register(serving: Serving, group: str, **changes: Any) -> str:
    container = {"Image": IMAGE, "ModelDataUrl": serving.artifact(name="packaged"), "Environment": {"A": "1"}}
    request: dict[str, Any] = {
        "ModelPackageGroupName": group,
        "InferenceSpecification": {"Containers": [container], "SupportedContentTypes": ["text/csv"]},
        **changes,
    }
    return str(serving.sagemaker.create_model_package(**request)["ModelPackageArn"])


def test_versions_count_up_and_are_never_used_again(serving: Serving, group: str) -> None:
    first, second = register(serving, group), register(serving, group)
    assert [first, second] == [f"{ARN}:model-package/{group}/1", f"{ARN}:model-package/{group}/2"]
    serving.sagemaker.delete_model_package(ModelPackageName=second)
    assert register(serving, group).endswith(f"{group}/3")


def test_a_package_keeps_its_whole_story(serving: Serving, group: str) -> None:
    metrics = {"Statistics": {"ContentType": "application/json", "S3Uri": "s3://bucket/metrics.json"}}
    story = {
        "ModelMetrics": {"ModelQuality": metrics},
        "DriftCheckBaselines": {"ModelDataQuality": metrics},
        "CustomerMetadataProperties": {"git": "abc"},
        "MetadataProperties": {"CommitId": "abc"},
        "SourceUri": "s3://bucket/model.tar.gz",
        "ModelPackageDescription": "trained on March",
    }
    arn = register(serving, group, **story)
    described = serving.sagemaker.describe_model_package(ModelPackageName=arn)
    assert {member: described[member] for member in story} == story
    assert described["ModelApprovalStatus"] == "PendingManualApproval"
    assert (described["ModelPackageStatus"], described["ModelPackageVersion"]) == ("Completed", 1)
    assert described["InferenceSpecification"]["Containers"][0]["Image"] == IMAGE


def test_the_same_client_token_gives_the_same_package(serving: Serving, group: str) -> None:
    token = unique("token")
    assert register(serving, group, ClientToken=token) == register(serving, group, ClientToken=token)
    listed = serving.sagemaker.list_model_packages(ModelPackageGroupName=group)["ModelPackageSummaryList"]
    assert len(listed) == 1


def test_a_model_is_made_from_an_approved_package_only(serving: Serving, group: str) -> None:
    arn = register(serving, group)
    request = {
        "ModelName": unique("model"),
        "ExecutionRoleArn": ROLE,
        "PrimaryContainer": {"ModelPackageName": arn, "Environment": {"B": "2"}},
    }
    with pytest.raises(ClientError, match="PendingManualApproval, not Approved"):
        serving.sagemaker.create_model(**request)
    serving.sagemaker.update_model_package(
        ModelPackageArn=arn, ModelApprovalStatus="Approved", ApprovalDescription="better than before"
    )
    described = serving.sagemaker.describe_model_package(ModelPackageName=arn)
    assert (described["ModelApprovalStatus"], described["ApprovalDescription"]) == ("Approved", "better than before")
    serving.sagemaker.create_model(**request)
    assert serving.served_by(serving.endpoint(serving.config(request["ModelName"]))) == "packaged"
    shown = serving.sagemaker.describe_model(ModelName=request["ModelName"])
    assert shown["PrimaryContainer"] == request["PrimaryContainer"]


def test_customer_metadata_is_merged_and_removed_up_to_fifty(serving: Serving, group: str) -> None:
    arn = register(serving, group, CustomerMetadataProperties={"a": "1", "b": "2"})
    serving.sagemaker.update_model_package(
        ModelPackageArn=arn, CustomerMetadataProperties={"c": "3"}, CustomerMetadataPropertiesToRemove=["a"]
    )
    described = serving.sagemaker.describe_model_package(ModelPackageName=arn)
    assert described["CustomerMetadataProperties"] == {"b": "2", "c": "3"}
    many = {f"key-{number}": "x" for number in range(49)}
    with pytest.raises(ClientError, match="at most 50"):
        serving.sagemaker.update_model_package(ModelPackageArn=arn, CustomerMetadataProperties=many)


def test_packages_are_listed_by_group_and_approval_newest_first(serving: Serving, group: str) -> None:
    for status in ("Approved", "Rejected", "Approved"):
        register(serving, group, ModelApprovalStatus=status)
    asked = {"ModelPackageGroupName": group, "SortBy": "CreationTime", "SortOrder": "Descending"}
    listed = serving.sagemaker.list_model_packages(**asked, ModelApprovalStatus="Approved")["ModelPackageSummaryList"]
    assert [one["ModelPackageVersion"] for one in listed] == [3, 1]


def test_groups_are_unique_described_listed_and_deleted_when_empty(serving: Serving, group: str) -> None:
    sagemaker = serving.sagemaker
    with pytest.raises(ClientError, match=f"Model Package Group already exists: {ARN}:model-package-group/{group}"):
        sagemaker.create_model_package_group(ModelPackageGroupName=group)
    assert sagemaker.describe_model_package_group(ModelPackageGroupName=group)["ModelPackageGroupStatus"] == "Completed"
    listed = sagemaker.list_model_package_groups(NameContains=group)["ModelPackageGroupSummaryList"]
    assert [one["ModelPackageGroupName"] for one in listed] == [group]
    package = register(serving, group)
    with pytest.raises(ClientError, match="ConflictException"):
        sagemaker.delete_model_package_group(ModelPackageGroupName=group)
    sagemaker.delete_model_package(ModelPackageName=package)
    sagemaker.delete_model_package_group(ModelPackageGroupName=group)
    with pytest.raises(ClientError, match=r"ValidationException.*does not exist"):
        sagemaker.describe_model_package_group(ModelPackageGroupName=group)


def test_what_does_not_exist_or_is_not_supported_is_refused(serving: Serving, group: str) -> None:
    with pytest.raises(ClientError, match=f"ModelPackage {ARN}:model-package/{group}/9 does not exist"):
        serving.sagemaker.describe_model_package(ModelPackageName=f"{ARN}:model-package/{group}/9")
    with pytest.raises(ClientError, match="does not exist"):
        register(serving, unique("missing"))
    with pytest.raises(ClientError, match="does not support model packages outside a group"):
        serving.sagemaker.create_model_package(ModelPackageDescription="alone")


def test_tags_of_models_endpoints_and_packages_can_be_read(serving: Serving, group: str) -> None:
    tags = [{"Key": "team", "Value": "flights"}]
    serving.sagemaker.add_tags(ResourceArn=f"{ARN}:model-package-group/{group}", Tags=tags)
    assert serving.sagemaker.list_tags(ResourceArn=f"{ARN}:model-package-group/{group}")["Tags"] == tags
    config = serving.config(serving.model(), Tags=tags)
    assert serving.sagemaker.list_tags(ResourceArn=f"{ARN}:endpoint-config/{config}")["Tags"] == tags
