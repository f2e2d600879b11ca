"""A person's word on a model, in each way that an Airflow of this version knows."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from airflow_dlaws.local.airflow_api import wait_until
from airflow_dlaws.local.airflow_stack import LocalAirflow
from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.local.scheduler_log import wait_until_heard
from scripts.matrix.airflow_home import CheckFailed

DAG, GROUP = "approve_once", "matrix-approvals"
#: The task is deferred, because it looks at the registry too; 3.3 also has a state of its own for questions.
_WAITING = ("deferred", "awaiting_input")
_LIMIT_S = 60.0


def approval_checks(stack: LocalAirflow, aws: LocalAws, *, asks_people: bool) -> dict[str, float]:
    """Approve in the registry, and where this Airflow asks people, by its REST API; return seconds to the green run.

    :raises CheckFailed: a run did not end, or is not green, or the registry does not say who approved.
    """
    stack.api.wait_for_dags({DAG}, limit_s=_LIMIT_S)
    stack.api.unpause(DAG)
    sagemaker = aws.client("sagemaker")
    sagemaker.create_model_package_group(ModelPackageGroupName=GROUP)

    def in_the_registry(package: str, _: str) -> None:
        sagemaker.update_model_package(ModelPackageArn=package, ModelApprovalStatus="Approved")

    def in_airflow(_: str, run_id: str) -> None:
        wait_until_heard(stack, DAG, run_id, "approve")
        stack.api.answer(DAG, run_id, "approve", "Approve", {"why": "the matrix"})

    seconds = {"in_the_registry": _approve(stack, sagemaker, in_the_registry)}
    if asks_people:
        seconds["in_airflow"] = _approve(stack, sagemaker, in_airflow)
        told = sagemaker.describe_model_package(ModelPackageName=f"{GROUP}/2").get("ApprovalDescription", "")
        if not (told.startswith("Approved by ") and told.endswith(": the matrix")):
            raise CheckFailed(f"approved in Airflow, but the registry says {told!r}")
    return seconds


def _approve(stack: LocalAirflow, sagemaker: Any, act: Callable[[str, str], None]) -> float:
    package = _package(sagemaker)
    run_id = stack.api.trigger(DAG, {"package": package})
    wait_until(
        lambda: stack.api.task_state(DAG, run_id, "approve") in _WAITING,
        limit_s=_LIMIT_S,
        what=f"{DAG} waits for a word",
    )
    started = time.monotonic()
    act(package, run_id)
    state = stack.api.wait_for_run(DAG, run_id, limit_s=_LIMIT_S)
    if state != "success":
        raise CheckFailed(f"{act.__name__}: {DAG} is {state}: {stack.api.log(DAG, run_id, 'approve', 1)[-3000:]}")
    return round(time.monotonic() - started, 1)


def _package(sagemaker: Any) -> str:
    answer = sagemaker.create_model_package(
        ModelPackageGroupName=GROUP,
        InferenceSpecification={
            "Containers": [{"Image": "image:1", "ModelDataUrl": "s3://bucket/model.tar.gz"}],
            "SupportedContentTypes": ["text/csv"],
            "SupportedResponseMIMETypes": ["text/csv"],
        },
    )
    return str(answer["ModelPackageArn"])
