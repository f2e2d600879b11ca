"""What a rollout ended as: the value a task returns, and the sentence a red task shows."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from airflow_dlaws.rollout.state import Cause, RolloutState, Step, is_final


class RolloutOutcome(enum.StrEnum):
    """How a rollout ended. Only a promotion (or a first deployment) leaves the requested model in service."""

    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    INCONCLUSIVE = "inconclusive"
    #: The endpoint is in a state that needs a person.
    FAILED = "failed"
    #: Only in the report of a rollout that is not over.
    UNDER_WAY = "under_way"


@dataclass(frozen=True, kw_only=True)
class RolloutResult:
    """What the operator returns (XCom), and the head of the report."""

    outcome: RolloutOutcome
    endpoint_name: str
    #: The configuration asked for; in service if and only if the outcome is promoted.
    endpoint_config_name: str
    #: What was in service before; empty for a first deployment.
    previous_endpoint_config_name: str
    model_name: str
    model_package_arn: str
    green_requests: int = 0
    green_errors: int = 0
    blue_requests: int = 0
    blue_errors: int = 0
    reason: str = ""
    #: Who approved the model package, when and why; empty where nobody has.
    approval: str = ""
    report_uri: str = ""
    #: Which event could not be told to the SNS topic, and why; empty where all were.
    not_told: str = ""


def result_of(state: RolloutState, *, report_uri: str) -> RolloutResult:
    """Return the result of a rollout, finished or not."""
    evidence = state.evidence
    return RolloutResult(
        outcome=RolloutOutcome(state.step.value) if is_final(state.step) else RolloutOutcome.UNDER_WAY,
        endpoint_name=state.endpoint_name,
        endpoint_config_name=state.requested_config,
        previous_endpoint_config_name=state.previous_config,
        model_name=state.model_name,
        model_package_arn=state.model_package_arn,
        green_requests=evidence.green_requests,
        green_errors=evidence.green_errors,
        blue_requests=evidence.blue_requests,
        blue_errors=evidence.blue_errors,
        reason=state.reason,
        approval=state.approval,
        report_uri=report_uri,
        not_told=state.not_told,
    )


_CAUSES = {
    Cause.HARM: "the new model does harm",
    Cause.SHADOW: "as a shadow the new model is worse than the one in service, and no user has seen it",
    Cause.SHADOW_UNCLEAR: "the shadow gave no verdict, and no user has seen the new model",
    Cause.NO_TRAFFIC: "too few requests for a verdict on the new model",
    Cause.UNMEASURED: "the new model could not be measured",
    Cause.TIMEOUT: "the rollout took longer than the task's timeout",
    Cause.KILLED: "the task was killed",
    Cause.BY_AWS: "AWS rolled back by itself",
    Cause.ABORTED: "a person aborted the rollout",
    Cause.REHEARSAL: "the new model failed its rehearsal",
    Cause.ERROR: "the rollout itself could not go on",
    Cause.NONE: "it did not work",
}


def explain(state: RolloutState, *, report_uri: str) -> str:
    """Return the message of a rollout that ended without the requested model in service."""
    if state.step is Step.FAILED:
        return f"rollout of {state.model_package_arn} failed: {state.reason}. Report: {report_uri}"
    alarms = "".join(f"Alarm {alarm.name} was on: {_sentence(alarm.reason)} " for alarm in state.alarms)
    advice = _ADVICE.get(state.cause, "Clear this task to try again.")
    return (
        f"endpoint {state.endpoint_name} serves {state.previous_config} again, not the requested "
        f"{state.requested_config} ({state.model_package_arn}): {_CAUSES[state.cause]}. {_sentence(state.reason)} "
        f"{_counts(state)}{alarms}{advice} Report: {report_uri}"
    )


def _counts(state: RolloutState) -> str:
    seen = state.evidence
    if state.shadow and not seen.green_requests:
        return ""  # green had no users: what its shadow saw stands in the reason
    return (
        f"In the end green had failed {seen.green_errors} of {seen.green_requests} requests, "
        f"blue {seen.blue_errors} of {seen.blue_requests}. "
    )


_ADVICE = {
    Cause.SHADOW: (
        "If it is meant to answer otherwise, lower smallest_agreement; if it is meant to be slower, raise "
        "smallest_slowdown; then clear this task."
    ),
    Cause.SHADOW_UNCLEAR: (
        "Send traffic, raise shadow_seconds or shadow_percent, or lower smallest_agreement or min_requests; "
        "then clear this task."
    ),
    Cause.NO_TRAFFIC: (
        "Send traffic, bake longer (wait_seconds), lower min_requests, or set on_no_traffic='promote'; "
        "then clear this task."
    ),
    Cause.TIMEOUT: "Raise timeout, or shorten the waits; then clear this task.",
    Cause.UNMEASURED: "Check cloudwatch:GetMetricData permissions; then clear this task.",
}


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
