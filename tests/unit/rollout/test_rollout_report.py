"""What is kept and shown of a rollout."""

from __future__ import annotations

import json
from typing import Any

from airflow_dlaws.jobs.wire import from_json, to_json
from airflow_dlaws.rollout.analysis import Evidence, Verdict
from airflow_dlaws.rollout.order import RolloutNames, RolloutOrder
from airflow_dlaws.rollout.plan import RolloutPlan
from airflow_dlaws.rollout.report import RolloutRecord, RolloutReport, to_html
from airflow_dlaws.rollout.result import RolloutOutcome, RolloutResult, explain, result_of
from airflow_dlaws.rollout.state import AlarmView, Cause, Look, RolloutState, Step

STATE = RolloutState(
    step=Step.ROLLED_BACK,
    endpoint_name="flights",
    requested_config="new",
    previous_config="old",
    model_name="model",
    model_package_arn="arn:aws:sagemaker:us-east-1:123456789012:model-package/flights/2",
    variant_name="AllTraffic",
    started_at=1000.0,
    deadline=9000.0,
    cause=Cause.HARM,
    reason="green failed 30 of 100 requests, blue 0 of 900",
    evidence=Evidence(
        verdict=Verdict.HARM, reason="harm", green_requests=100, green_errors=30, blue_requests=900, log_evidence=40.0
    ),
    alarms=(AlarmView(name="new-verdict", state="ALARM", reason="tripped"),),
)
LOOKS = (
    Look(at=1010.0, step=Step.SHIFTING, status="Updating", config_name="old", pending_config_name="new"),
    Look(
        at=1070.0,
        step=Step.ROLLING_BACK,
        status="Updating",
        config_name="old",
        green_share=0.1,
        green_requests=100,
        green_errors=30,
        blue_requests=900,
        reason="<harm>",
    ),
)
RECORD = RolloutRecord(plan=RolloutPlan(), state=STATE, looks=LOOKS)


def through_json(value: Any) -> Any:
    return from_json(type(value), json.loads(json.dumps(to_json(value))))


def test_everything_that_crosses_a_process_survives_it() -> None:
    order = RolloutOrder(
        endpoint_name="flights",
        model_package_arn=STATE.model_package_arn,
        role_arn="arn:aws:iam::123456789012:role/r",
        instance_type="ml.m5.large",
        state_s3_uri="s3://bucket/state",
        timeout_seconds=7200.0,
    )
    names = RolloutNames(model_name="m", config_name="c", owner="dag/run/task", digest="d")
    result = result_of(STATE, report_uri="s3://bucket/report.html")
    for value in (RECORD, STATE, order, names, result, RolloutReport(result=result, record=RECORD)):
        assert through_json(value) == value


def test_the_result_says_what_is_asked_and_what_happened() -> None:
    assert result_of(STATE, report_uri="s3://b/r") == RolloutResult(
        outcome=RolloutOutcome.ROLLED_BACK,
        endpoint_name="flights",
        endpoint_config_name="new",
        previous_endpoint_config_name="old",
        model_name="model",
        model_package_arn=STATE.model_package_arn,
        green_requests=100,
        green_errors=30,
        blue_requests=900,
        blue_errors=0,
        reason=STATE.reason,
        report_uri="s3://b/r",
    )


def test_a_red_task_gives_the_numbers_the_alarm_and_the_report() -> None:
    message = explain(STATE, report_uri="s3://b/r.html")
    for part in ("flights serves old again", "30 of 100", "0 of 900", "new-verdict", "tripped", "s3://b/r.html"):
        assert part in message


def test_the_report_is_one_page_that_escapes_what_it_shows() -> None:
    html = to_html(RolloutReport(result=result_of(STATE, report_uri="s3://b/r"), record=RECORD))
    assert html.count("<svg") == 2
    assert "&lt;harm&gt;" in html
    assert "<harm>" not in html
    assert "http" not in html.replace("https://", "http://").split("</style>")[1]
