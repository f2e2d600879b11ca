"""What is kept and shown of a rollout."""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import Any

from airflow_dlaws.jobs.wire import from_json, to_json
from airflow_dlaws.rollout.analysis import Evidence, Minute, Verdict, judge
from airflow_dlaws.rollout.order import RolloutNames, RolloutOrder
from airflow_dlaws.rollout.plan import RolloutPlan
from airflow_dlaws.rollout.predictions import PredictionJudge, PredictionReference, PredictionTally, counted
from airflow_dlaws.rollout.report import RolloutRecord, RolloutReport
from airflow_dlaws.rollout.report_page import to_html
from airflow_dlaws.rollout.result import RolloutOutcome, RolloutResult, explain, result_of
from airflow_dlaws.rollout.state import AlarmView, Cause, Look, RolloutState, Step, Wish, WishKind
from airflow_dlaws.rollout.timeline import MOST_LOOKS, thinned, timeline_of

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
    html = page_of(RECORD)
    assert "&lt;harm&gt;" in html
    assert "<harm>" not in html
    assert "http" not in html.replace("https://", "http://").split("</style>")[1]


def test_the_report_shows_traffic_harm_and_evidence_over_time_and_who_decided_what() -> None:
    reference = PredictionReference(classes=("yes", "no"), counts=(300, 700, 0))
    minutes = [
        Minute(
            start=1020 + 60 * n, green_requests=10, blue_requests=90, green_errors=n, green_p50=1e4, green_p95=5e4,
            blue_p50=1e4, blue_p95=2e4,
        )
        for n in range(5)
    ]  # fmt: skip
    tally = counted(PredictionTally(), 3, {1020: ([1] * 50, [0] * 120 + [1] * 280)})
    predictions = PredictionJudge(reference, 0.2).evidence(tally)
    seen = judge(RolloutPlan(), minutes, began=1000, predictions=predictions)
    wish = Wish(kind=WishKind.ABORT, by="anna", at=1100.0, why="the sale begins")
    state = STATE.but(evidence=seen, predictions=reference, wish=wish)
    html = page_of(dataclasses.replace(RECORD, state=state, timeline=timeline_of(minutes)))
    for heading in ("What happened", "Traffic", "Errors", "Latency", "Predictions", "Evidence"):
        assert f"<h2>{heading}</h2>" in html
    # Share, requests a minute, errors, latency, predictions twice, evidence.
    assert html.count("<svg") == 7
    for told in (
        "asked to abort, by anna",
        "the sale begins",
        "class &#x27;no&#x27;: 100.0% of 50",
        "enough (20 to 1)",
    ):
        assert told in html
    assert (
        "Last read back at 00:17:50 UTC: the endpoint was Updating on old, nothing pending; asked for was new" in html
    )


def test_what_is_kept_of_eight_hours_is_bounded_and_loses_no_decision() -> None:
    def look(n: int) -> Look:
        step = Step.SHIFTING if n < 700 else Step.ROLLING_BACK
        return dataclasses.replace(LOOKS[0], at=1000.0 + 30 * n, step=step, reason="why " * 100)

    kept: tuple[Look, ...] = ()
    for n in range(960):
        kept = thinned((*kept, look(n)))
    assert len(kept) <= MOST_LOOKS
    assert [after.at for before, after in itertools.pairwise(kept) if before.step != after.step] == [look(700).at]
    assert kept[-1] == look(959)
    rows = timeline_of([Minute(start=60 * n, green_requests=1) for n in range(480)])
    assert (len(rows), sum(row.green_requests for row in rows)) == (240, 480)


def page_of(record: RolloutRecord) -> str:
    return to_html(RolloutReport(result=result_of(record.state, report_uri="s3://b/r"), record=record))
