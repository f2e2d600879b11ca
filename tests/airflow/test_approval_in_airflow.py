"""What Airflow itself does with a question that a task asks twice."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_dlaws.local.airflow_api import wait_until
from airflow_dlaws.local.airflow_stack import LocalAirflow
from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.local.scheduler_log import wait_until_heard

DAG, GROUP = "approve_newest", "asked-twice"

pytestmark = [pytest.mark.airflow, pytest.mark.slow]


def register(sagemaker: Any) -> str:
    """Register a version that waits for a word; return its ARN."""
    container = {
        "Image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/x:1",
        "ModelDataUrl": "s3://bucket/model.tar.gz",
    }
    specification = {
        "Containers": [container],
        "SupportedContentTypes": ["text/csv"],
        "SupportedResponseMIMETypes": ["text/csv"],
    }
    answer = sagemaker.create_model_package(ModelPackageGroupName=GROUP, InferenceSpecification=specification)
    return str(answer["ModelPackageArn"])


def test_a_cleared_task_whose_old_question_airflow_keeps_showing_does_not_take_its_answer_for_the_new_version(
    airflow: LocalAirflow, local_aws: LocalAws
) -> None:
    sagemaker, api = local_aws.client("sagemaker"), airflow.api
    sagemaker.create_model_package_group(ModelPackageGroupName=GROUP)

    def status(package: str) -> str:
        return str(sagemaker.describe_model_package(ModelPackageName=package)["ModelApprovalStatus"])

    def wait_for_question(try_number: int) -> None:
        def asked() -> bool:
            row = api.tasks(DAG, run_id)["approve"]
            return (row["state"], row["try_number"]) == ("deferred", try_number)

        wait_until(asked, limit_s=60, what=f"try {try_number} waits for a word")
        wait_until_heard(airflow, DAG, run_id, "approve", try_number)

    api.unpause(DAG)
    first = register(sagemaker)
    api.call("POST", "/variables", {"key": "newest_package", "value": first})
    run_id = api.trigger(DAG)
    wait_for_question(1)
    second = register(sagemaker)
    api.call("PATCH", "/variables/newest_package", {"key": "newest_package", "value": second})
    api.clear(DAG, run_id, "approve")
    wait_for_question(2)
    assert api.question(DAG, run_id, "approve")["subject"] == f"Deploy {GROUP}, version 1?"
    api.answer(DAG, run_id, "approve", "Approve", {"why": "version 1 is fine"})
    wait_until(
        lambda: "it does not count" in api.log(DAG, run_id, "approve", 2), limit_s=60, what="the answer is heard"
    )
    assert status(second) == "PendingManualApproval"
    sagemaker.update_model_package(ModelPackageArn=second, ModelApprovalStatus="Approved")
    assert api.wait_for_run(DAG, run_id, limit_s=60) == "success"
    assert status(first) == "PendingManualApproval"
