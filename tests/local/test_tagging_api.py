"""The Resource Groups Tagging API of the local AWS, through boto3."""

from __future__ import annotations

import json
import urllib.request
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

from airflow_dlaws.local.clients import REGION
from airflow_dlaws.local.process import LocalAws


@pytest.fixture
def group(local_aws: LocalAws) -> str:
    """Return the ARN of a resource with two tags."""
    sagemaker = local_aws.client("sagemaker")
    tags = [{"Key": "team", "Value": "vision"}, {"Key": "dlaws:digest", "Value": "d"}]
    answer = sagemaker.create_model_package_group(ModelPackageGroupName=f"g-{uuid.uuid4().hex}", Tags=tags)
    return str(answer["ModelPackageGroupArn"])


def arns(answer: dict[str, Any]) -> list[str]:
    """Return the resources of an answer."""
    return [row["ResourceARN"] for row in answer["ResourceTagMappingList"]]


def test_resources_are_found_by_arn_with_their_tags(local_aws: LocalAws, group: str) -> None:
    tagging = local_aws.client("resourcegroupstaggingapi")
    (row,) = tagging.get_resources(ResourceARNList=[group, f"{group}-not-there"])["ResourceTagMappingList"]
    assert row["ResourceARN"] == group
    assert {tag["Key"]: tag["Value"] for tag in row["Tags"]} == {"team": "vision", "dlaws:digest": "d"}


def test_resources_are_found_by_type_and_tag(local_aws: LocalAws, group: str) -> None:
    tagging = local_aws.client("resourcegroupstaggingapi")
    wanted: Any = {"TagFilters": [{"Key": "team", "Values": ["vision"]}, {"Key": "dlaws:digest"}]}
    pages = tagging.get_paginator("get_resources").paginate(**wanted, ResourcesPerPage=1)
    assert group in [arn for page in pages for arn in arns(page)]
    assert group in arns(tagging.get_resources(**wanted, ResourceTypeFilters=["sagemaker:model-package-group"]))
    assert group not in arns(tagging.get_resources(**wanted, ResourceTypeFilters=["sagemaker:training-job"]))
    assert arns(tagging.get_resources(TagFilters=[{"Key": "team", "Values": ["no such"]}])) == []


def test_older_clients_ask_in_json(local_aws: LocalAws, group: str) -> None:
    headers = {
        "X-Amz-Target": "ResourceGroupsTaggingAPI_20170126.GetResources",
        "Content-Type": "application/x-amz-json-1.1",
        "Authorization": f"AWS4-HMAC-SHA256 Credential=local/20261124/{REGION}/tagging/aws4_request",
    }
    body = json.dumps({"ResourceARNList": [group]}).encode()
    with urllib.request.urlopen(urllib.request.Request(local_aws.endpoint_url, body, headers), timeout=10) as answer:
        assert arns(json.load(answer)) == [group]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"ResourceARNList": ["arn:aws:s3:::b"], "TagFilters": [{"Key": "a"}]}, "together"),
        ({"ResourcesPerPage": 101}, "from 1 to 100"),
    ],
)
def test_what_aws_refuses_is_refused(local_aws: LocalAws, request_: dict[str, Any], words: str) -> None:
    with pytest.raises(ClientError, match=words) as refused:
        local_aws.client("resourcegroupstaggingapi").get_resources(**request_)
    assert refused.value.response["Error"]["Code"] == "InvalidParameterException"


def test_other_operations_are_refused_and_faults_strike(local_aws: LocalAws, group: str) -> None:
    tagging = local_aws.client("resourcegroupstaggingapi")
    with pytest.raises(ClientError, match="does not support GetTagKeys"):
        tagging.get_tag_keys()
    local_aws.order_fault(kind="error", target="GetResources", code="AccessDeniedException", message="no", times=1)
    with pytest.raises(ClientError, match="AccessDenied"):
        tagging.get_resources(ResourceARNList=[group])
