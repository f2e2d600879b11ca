"""The IAM policies of `mwaa/` allow every call that the package makes, and no other.

The calls are read from the code: every name in it that is an operation of an AWS service the package has clients for.
Which IAM action an operation needs is told by the Service Authorization Reference of AWS; where it is not the
operation's own name, it stands in `NEEDS`.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore import xform_name

import airflow_dlaws

PACKAGE = Path(airflow_dlaws.__file__).parent
MWAA = PACKAGE.parent / "mwaa"

#: Actions of operations that are authorised under another name, or need more than their own.
NEEDS = {
    "s3:ListObjectsV2": {"s3:ListBucket"},
    "s3:ListObjectVersions": {"s3:ListBucketVersions"},
    "s3:HeadBucket": {"s3:ListBucket"},
    "s3:HeadObject": {"s3:GetObject"},
    "s3:CreateMultipartUpload": {"s3:PutObject"},
    "s3:CompleteMultipartUpload": {"s3:PutObject"},
    "s3:CopyObject": {"s3:GetObject", "s3:PutObject"},
    # Creating with tags needs AddTags; handing a role to SageMaker needs PassRole.
    "sagemaker:CreateTrainingJob": {"sagemaker:CreateTrainingJob", "sagemaker:AddTags", "iam:PassRole"},
    "sagemaker:CreateProcessingJob": {"sagemaker:CreateProcessingJob", "sagemaker:AddTags", "iam:PassRole"},
    "sagemaker:CreateHyperParameterTuningJob": {
        "sagemaker:CreateHyperParameterTuningJob",
        "sagemaker:AddTags",
        "iam:PassRole",
    },
    # The role in the payload is handed on by whoever submits.
    "batch:SubmitServiceJob": {"batch:SubmitServiceJob", "batch:TagResource", "iam:PassRole"},
    "sagemaker:CreateTransformJob": {"sagemaker:CreateTransformJob", "sagemaker:AddTags"},
    "sagemaker:CreateModel": {"sagemaker:CreateModel", "sagemaker:AddTags", "iam:PassRole"},
    "sagemaker:CreateEndpointConfig": {"sagemaker:CreateEndpointConfig", "sagemaker:AddTags"},
    "sagemaker:CreateEndpoint": {"sagemaker:CreateEndpoint", "sagemaker:AddTags"},
    # Who registers a variant must be able to scale it ("Auto scaling prerequisites" of SageMaker's developer guide).
    "application-autoscaling:RegisterScalableTarget": {
        "application-autoscaling:RegisterScalableTarget",
        # Tags are given with a new target.
        "application-autoscaling:TagResource",
        "sagemaker:UpdateEndpointWeightsAndCapacities",
    },
}
#: Names of SageMaker operations that mean something else wherever this package uses them (re, Optuna, boto3).
NOT_AWS = {"search", "create_trial", "get_session"}
#: Methods that many services have, and the package calls of one.
OF_ONE_SERVICE = {
    "list_tags_for_resource": {"application-autoscaling:ListTagsForResource"},
    "tag_resource": {"application-autoscaling:TagResource"},
    "delete_endpoint": {"sagemaker:DeleteEndpoint"},
}
#: boto3's managed transfers are no operations of the service model.
TRANSFERS = {
    "upload_file": {"s3:PutObject"},
    "upload_fileobj": {"s3:PutObject"},
    "download_file": {"s3:GetObject"},
    "download_fileobj": {"s3:GetObject"},
}
#: What SageMaker does in the name of the job's role: data and models, images, logs, metrics, alarms that roll back.
#: Source: "SageMaker execution roles" in the SageMaker developer guide.
JOB_NEEDS = {
    "s3:GetObject", "s3:PutObject", "s3:ListBucket", "s3:GetBucketLocation",
    "ecr:GetAuthorizationToken", "ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage",
    "logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams",
    "cloudwatch:PutMetricData", "cloudwatch:DescribeAlarms",
}  # fmt: skip


def trees() -> Iterator[ast.AST]:
    """Return the code of the package, without the local AWS; the template DAGs make calls of their own."""
    for path in [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "dags").glob("*.py")]:
        if "local" not in path.relative_to(PACKAGE.parent).parts:
            yield from ast.walk(ast.parse(path.read_text()))


def services_used() -> set[str]:
    """Return the services that the code asks a client for: `client("s3")`."""
    return {
        node.args[0].value
        for node in trees()
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute | ast.Name)
        and getattr(node.func, "attr", getattr(node.func, "id", "")).strip("_") == "client"
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }


def operations() -> dict[str, set[str]]:
    """Return {name of the boto3 method: the IAM actions it needs} for all services used."""
    session, found = botocore.session.get_session(), dict(TRANSFERS)
    for service in services_used():
        model = session.get_service_model(service)
        # sagemaker-runtime is authorised as sagemaker, some others under names of their own.
        prefix = {"monitoring": "cloudwatch", "tagging": "tag"}.get(model.signing_name, model.signing_name)
        for operation in model.operation_names:
            action = f"{prefix}:{operation}"
            found.setdefault(xform_name(operation), set()).update(NEEDS.get(action, {action}))
    return found | OF_ONE_SERVICE


def job_methods() -> set[str]:
    """Return the methods that `launchers/sagemaker_jobs.py` puts together from a verb and a kind of job."""
    calls = [node for node in trees() if isinstance(node, ast.Call)]
    verbs = {
        call.args[0].value
        for call in calls
        if getattr(call.func, "attr", "") == "_call" and isinstance(call.args[0], ast.Constant)
    }
    kinds = {
        keyword.value.value
        for call in calls
        if getattr(call.func, "id", "") == "JobKind"
        for keyword in call.keywords
        if keyword.arg == "method" and isinstance(keyword.value, ast.Constant)
    }
    return {f"{verb}_{kind}" for verb in verbs for kind in kinds}


def list_methods() -> set[str]:
    """Return the methods by which kinds of jobs are listed."""
    return {
        keyword.value.value
        for call in trees()
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "JobKind"
        for keyword in call.keywords
        if keyword.arg == "list_method" and isinstance(keyword.value, ast.Constant)
    }


def actions_needed() -> set[str]:
    """Return the actions behind every operation that the code names: as a method, or as a paginator or waiter."""
    known, needed = operations(), set[str]()
    for method in job_methods() | list_methods():
        needed |= known[method]
    for node in trees():
        if isinstance(node, ast.Attribute) and node.attr not in NOT_AWS:
            needed |= known.get(node.attr, set())
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("get_paginator", "get_waiter"):
            (name,) = (argument.value for argument in node.args if isinstance(argument, ast.Constant))
            needed |= known[name]
        if isinstance(node, ast.keyword) and node.arg == "VersionId":
            needed.add("s3:GetObjectVersion")
    return needed


def statements(name: str) -> list[dict[str, Any]]:
    """Return the statements of a policy."""
    document = json.loads((MWAA / name).read_text())
    assert document["Version"] == "2012-10-17"
    return list(document["Statement"])


def allowed(name: str) -> set[str]:
    """Return the actions that a policy allows."""
    assert {each["Effect"] for each in statements(name)} == {"Allow"}
    return {action for each in statements(name) for action in each["Action"]}


def test_the_code_is_read_at_all() -> None:
    assert {"sagemaker", "s3", "logs", "cloudwatch"} <= services_used()
    assert {"create_training_job", "describe_training_job", "stop_training_job"} <= job_methods()
    assert {"sagemaker:CreateTrainingJob", "s3:ListBucket", "cloudwatch:GetMetricData"} <= actions_needed()


def test_workers_and_triggerer_may_do_all_that_the_package_does_and_nothing_else() -> None:
    assert allowed("policy-airflow.json") == actions_needed()


def test_jobs_and_endpoints_may_do_what_sagemaker_does_for_them() -> None:
    assert allowed("policy-job.json") == JOB_NEEDS


@pytest.mark.parametrize("name", ["policy-airflow.json", "policy-job.json"])
def test_no_action_and_no_resource_is_a_wildcard_where_aws_can_be_more_exact(name: str) -> None:
    assert [action for action in allowed(name) if "*" in action] == []
    # These actions know no resources: Service Authorization Reference.
    without_resources = {
        "cloudwatch:PutMetricData", "cloudwatch:GetMetricData", "ecr:GetAuthorizationToken", "pricing:GetProducts",
        "sagemaker:ListTrainingJobs", "sagemaker:ListTransformJobs", "sagemaker:ListProcessingJobs",
        "batch:DescribeJobQueues", "batch:DescribeServiceJob", "batch:ListServiceJobs",
        "tag:GetResources", "sagemaker:ListHyperParameterTuningJobs", "sagemaker:ListEndpoints",
        "ssm:GetCommandInvocation",
        "application-autoscaling:DescribeScalableTargets", "application-autoscaling:DescribeScalingPolicies",
        "application-autoscaling:DescribeScheduledActions",
    }  # fmt: skip
    open_to_all = {action for each in statements(name) if each["Resource"] == "*" for action in each["Action"]}
    assert open_to_all <= without_resources


def test_the_role_is_handed_to_sagemaker_only() -> None:
    (statement,) = (each for each in statements("policy-airflow.json") if "iam:PassRole" in each["Action"])
    assert statement["Action"] == ["iam:PassRole"]
    assert statement["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
