"""A day of capture replayed in a real Airflow: each record counts once, and the verdict, a batch's, starts a DAG."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest
from replayed_day import HOURS, PROFILE, Day, assert_counted_once, assert_judged_as_a_batch, state_of

from airflow_dlaws.drift.state import DriftState
from airflow_dlaws.local.airflow_api import wait_until
from airflow_dlaws.local.airflow_stack import LocalAirflow
from airflow_dlaws.local.process import LocalAws

pytestmark = [pytest.mark.airflow, pytest.mark.slow]
BUCKET = "airflow-tests"


def test_a_replayed_day_is_counted_once_and_its_drift_starts_a_dag(airflow: LocalAirflow, local_aws: LocalAws) -> None:
    s3 = local_aws.client("s3")
    s3.put_object(Bucket=BUCKET, Key="drift/reference.json", Body=json.dumps(PROFILE.document()).encode())
    airflow.api.wait_for_dags({"watch_replayed", "act_on_drift"}, limit_s=60)
    for dag_id in ("watch_replayed", "act_on_drift"):
        airflow.api.unpause(dag_id)
    airflow.api.parse("act_on_drift")
    wait_until(
        lambda: "Contents" in s3.list_objects_v2(Bucket=BUCKET, Prefix="drift/watchers/"),
        limit_s=60,
        what="the asset watcher looks",
    )
    run_id, day = airflow.api.trigger("watch_replayed"), Day(s3, BUCKET)
    for start in range(0, HOURS, 6):
        if start == 12:
            wait_until(
                lambda: airflow.api.task_state("watch_replayed", run_id, "watch") == "deferred",
                limit_s=60,
                what="the sensor waits in the triggerer",
            )
            airflow.kill_component("triggerer")
        for hour in range(start, start + 6):
            day.deliver_hour(hour)
        if start == 12:
            airflow.start_component("triggerer")
        looks = sum(hour < start + 6 for hour in day.requests)
        wait_until(
            lambda looks=looks: getattr(state_of(s3, BUCKET), "looks", 0) == looks,  # type: ignore[misc]
            limit_s=90,
            what=f"{looks} looks were taken",
            every_s=0.2,
        )
    assert airflow.api.wait_for_run("watch_replayed", run_id, limit_s=60) == "success"
    state = state_of(s3, BUCKET)
    assert state is not None
    assert_counted_once(day, state)
    assert_judged_as_a_batch(day, state, airflow.api.xcom("watch_replayed", run_id, "watch"), s3)
    assert_started(airflow, state)


def assert_started(airflow: LocalAirflow, state: DriftState) -> None:
    """The watcher has started its DAG within seconds of the verdict, with what the verdict says."""
    wait_until(lambda: bool(airflow.api.runs("act_on_drift")), limit_s=30, what="the DAG is started")
    (run,) = airflow.api.runs("act_on_drift")
    assert airflow.api.wait_for_run("act_on_drift", run["dag_run_id"], limit_s=60) == "success"
    (payload,) = airflow.api.xcom("act_on_drift", run["dag_run_id"], "act")
    assert state.alarm is not None
    assert payload["report_uri"] == state.alarm.summary["report_uri"]
    assert "delay" in payload["features"]
    assert datetime.fromisoformat(run["run_after"]) - state.alarm.at < timedelta(seconds=15)
