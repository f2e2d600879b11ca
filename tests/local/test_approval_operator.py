"""ModelApprovalOperator against the local AWS: a word given in the registry, and one that Airflow hands over.

How Airflow asks and is answered is in tests/airflow/test_train_and_deploy.py; here it cannot ask, as before 3.1.
"""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowRuntimeError,
    AirflowSkipException,
    ErrorType,
    TaskDeferred,
)
from airflow.sdk.execution_time.comms import ErrorResponse
from rollout_bench import first_event, remade
from running_task import RunningTask, aws_environment, resumed

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.wire import from_json
from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.operators import approval
from airflow_dlaws.operators.approval import ModelApprovalOperator
from airflow_dlaws.registry.approval import ApprovalResult

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/serve-test:1"
ANSWERED_AT = datetime(2026, 11, 29, 20, 0, tzinfo=UTC)


class Gate:
    """One package that waits for a word, and the task that asks for it."""

    def __init__(self, aws: LocalAws) -> None:
        self.sagemaker, group = aws.client("sagemaker"), f"gate-{uuid.uuid4().hex[:8]}"
        self.sagemaker.create_model_package_group(ModelPackageGroupName=group)
        container = {"Image": IMAGE, "ModelDataUrl": "s3://bucket/model.tar.gz"}
        self.arn = self.sagemaker.create_model_package(
            ModelPackageGroupName=group,
            InferenceSpecification={
                "Containers": [container],
                "SupportedContentTypes": ["text/csv"],
                "SupportedResponseMIMETypes": ["text/csv"],
            },
        )["ModelPackageArn"]
        self.task = RunningTask("approve")
        self.task.id = uuid.uuid4()

    def operator(self, **options: Any) -> ModelApprovalOperator:
        defaults = {"poll_interval": 0.1, "timeout": 10, "model_package_arn": self.arn}
        return ModelApprovalOperator(task_id="approve", aws_conn_id=None, **(defaults | options))

    def ask(self, **options: Any) -> TaskDeferred:
        with pytest.raises(TaskDeferred) as deferred:
            self.operator(**options).execute(self.task.context)
        return deferred.value

    def resume(self, event: dict[str, Any], **options: Any) -> ApprovalResult:
        return from_json(ApprovalResult, self.operator(**options).resume(self.task.context, event))

    def go_on(self, **options: Any) -> ApprovalResult:
        """Ask, let the trigger run to its event, and resume."""
        event = asyncio.run(first_event(remade(self.ask(**options).trigger)))
        return self.resume(event, **options)

    def say(self, status: str, why: str = "") -> None:
        """Decide in the registry, as Studio or the AWS command line do."""
        self.sagemaker.update_model_package(
            ModelPackageArn=self.arn, ModelApprovalStatus=status, ApprovalDescription=why
        )

    def package(self) -> dict[str, Any]:
        return dict(self.sagemaker.describe_model_package(ModelPackageName=self.arn))


@pytest.fixture
def gate(local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> Gate:
    aws_environment(monkeypatch, local_aws)
    monkeypatch.setattr(approval, "ASKS_PEOPLE", False)
    return Gate(local_aws)


def answer(option: str, why: str = "", by: str = "alice") -> dict[str, Any]:
    """Return the event with which Airflow resumes a task that a person has answered."""
    return {
        "chosen_options": [option],
        "params_input": {"why": why},
        "responded_at": ANSWERED_AT,
        "responded_by_user": {"id": "7", "name": by},
    }


def test_a_word_given_in_the_registry_while_it_waits_lets_the_run_go_on_and_tells_who_gave_it(gate: Gate) -> None:
    deferred = gate.ask()
    gate.say("Approved", "figures are fine")
    result = gate.resume(asyncio.run(first_event(remade(deferred.trigger))))
    assert (result.status, result.why, result.through) == ("Approved", "figures are fine", "registry")
    assert result.decided_by == "arn:aws:sts::123456789012:user/moto"
    assert result.decided_at == gate.package()["LastModifiedTime"]


def test_a_word_given_in_airflow_is_written_to_the_registry_with_who_when_and_why(gate: Gate) -> None:
    gate.ask()
    result = gate.resume(answer("Approve", "better on every\nmetric"))
    package = gate.package()
    assert package["ModelApprovalStatus"] == "Approved"
    assert package["ApprovalDescription"] == (
        "Approved by alice in Airflow at 2026-11-29T20:00:00+00:00: better on every metric"
    )
    # A retry of the task asks nobody, and tells the same.
    again = from_json(ApprovalResult, gate.operator().execute(gate.task.context))
    assert (again.decided_by, again.decided_at, again.through) == ("alice", ANSWERED_AT, "airflow")
    assert again.sentence == result.sentence


def test_a_task_that_is_cleared_while_it_hears_the_answer_asks_again(gate: Gate) -> None:
    deferred, cleared = gate.ask(), RunningTask("approve", max_tries=1)
    with pytest.raises(TaskDeferred):
        resumed(gate.operator(), deferred, answer("Approve"), cleared.context)
    assert gate.package()["ModelApprovalStatus"] == "PendingManualApproval"


def test_an_answer_is_about_the_package_that_was_shown(gate: Gate, local_aws: LocalAws) -> None:
    deferred, other = gate.ask(), Gate(local_aws)  # registered meanwhile: the template is rendered to it from now on
    with pytest.raises(TaskDeferred) as again:
        resumed(other.operator(), deferred, answer("Approve"), gate.task.context)
    assert remade(again.value.trigger).package_arn == other.arn
    assert other.package()["ModelApprovalStatus"] == "PendingManualApproval"


def test_an_answer_on_a_page_that_airflow_keeps_showing_of_another_package_does_not_count(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approval, "ASKS_PEOPLE", True)
    shown = SimpleNamespace(subject="Deploy flights, version 1?")  # what the task asked before it was cleared
    supervisor = SimpleNamespace(send=lambda *_, **__: shown)
    monkeypatch.setattr("airflow.sdk.execution_time.task_runner.SUPERVISOR_COMMS", supervisor, raising=False)
    deferred = gate.ask()
    assert remade(deferred.trigger).asked is None
    with pytest.raises(TaskDeferred) as again:
        resumed(gate.operator(), deferred, answer("Approve"), gate.task.context)
    assert gate.package()["ModelApprovalStatus"] == "PendingManualApproval"
    gate.say("Approved")
    event = asyncio.run(first_event(remade(again.value.trigger)))
    assert resumed(gate.operator(), again.value, event, gate.task.context)["status"] == "Approved"


def test_a_trigger_whose_question_is_gone_still_hears_the_registry_and_fails_nothing(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its task was cleared. On SQLite, what it says is heard by a later task: Airflow gives its id to a new trigger."""

    def send(*_: Any, **__: Any) -> Any:
        gate.say("Approved")
        raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 404}))

    monkeypatch.setattr(
        "airflow.sdk.execution_time.task_runner.SUPERVISOR_COMMS", SimpleNamespace(send=send), raising=False
    )
    trigger = remade(gate.ask().trigger)
    trigger.asked = str(uuid.uuid4())
    assert asyncio.run(first_event(trigger)) == {"status": "decided"}


def test_a_word_that_is_taken_back_before_the_task_hears_it_is_waited_for_again(gate: Gate) -> None:
    deferred = gate.ask()
    gate.say("Approved")
    event = asyncio.run(first_event(remade(deferred.trigger)))
    gate.say("PendingManualApproval")
    with pytest.raises(TaskDeferred) as again:
        resumed(gate.operator(), deferred, event, gate.task.context)
    assert remade(again.value.trigger).package_arn == gate.arn


def test_the_first_word_counts(gate: Gate) -> None:
    gate.ask()
    gate.say("Rejected", "not this week")
    with pytest.raises(AirflowFailException, match=r"Rejected by \S+/moto in the registry .*: not this week"):
        gate.resume(answer("Approve"))
    assert gate.package()["ModelApprovalStatus"] == "Rejected"


def test_a_word_changed_by_hand_is_not_told_as_that_of_the_person_before(gate: Gate) -> None:
    gate.ask()
    gate.resume(answer("Approve", "fine"))
    gate.sagemaker.update_model_package(ModelPackageArn=gate.arn, ModelApprovalStatus="Rejected")
    with pytest.raises(AirflowFailException) as refusal:
        gate.operator().execute(gate.task.context)
    assert "Rejected by arn:aws:sts::123456789012:user/moto" in str(refusal.value)
    assert "alice" not in str(refusal.value)


def test_a_rejection_fails_at_once_or_skips_as_asked_and_can_be_decided_anew(gate: Gate) -> None:
    gate.ask()
    with pytest.raises(AirflowFailException, match=r"is not to be deployed.*by alice in Airflow.*: too slow"):
        gate.resume(answer("Reject", "too slow"))
    with pytest.raises(AirflowSkipException):
        gate.operator(on_rejected="skip").execute(gate.task.context)
    assert gate.task.pushed["approval_result"]["status"] == "Rejected"
    gate.say("PendingManualApproval")
    gate.ask()


def test_no_word_in_time_is_inconclusive_and_red(gate: Gate) -> None:
    with pytest.raises(
        AirflowFailException, match=r"nobody has approved or rejected .* within 0 s.*update-model-package"
    ):
        gate.go_on(timeout=0.3)
    assert gate.package()["ModelApprovalStatus"] == "PendingManualApproval"


def test_a_package_that_is_gone_fails_instead_of_waiting(gate: Gate) -> None:
    deferred = gate.ask()
    gate.sagemaker.delete_model_package(ModelPackageName=gate.arn)
    event = asyncio.run(first_event(remade(deferred.trigger)))
    with pytest.raises(AirflowFailException, match=r"cannot read model package .* does not exist"):
        gate.resume(event)


def test_a_backfill_asks_nobody(gate: Gate) -> None:
    task = RunningTask("approve", run_type="backfill")
    with pytest.raises(AirflowSkipException, match="nobody is asked"):
        gate.operator().execute(task.context)


def test_what_cannot_work_is_refused_when_the_dag_is_parsed(gate: Gate) -> None:
    with pytest.raises(SpecificationError, match="on_rejected='stop'"):
        gate.operator(on_rejected="stop")
    with pytest.raises(SpecificationError, match="IAM tells who may"):
        gate.operator(approvers=["alice"])
