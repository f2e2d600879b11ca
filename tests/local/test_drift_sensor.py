"""How the drift sensor waits, and how it ends."""

from __future__ import annotations

import json
import time
from datetime import timedelta

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException, TaskDeferred
from drift_sensor_bench import ASSET, context_of, fire, traffic, waits
from running_task import RunningTask, resumed

from airflow_dlaws.drift.report import DriftReport
from airflow_dlaws.hooks.aws import AwsClients, AwsConnection
from airflow_dlaws.jobs.wire import from_json
from airflow_dlaws.storage import ObjectStore, S3Uri


def test_drift_is_waited_for_found_and_told(drift_scene):
    sensor, task = drift_scene.sensor(), RunningTask()
    context = context_of(task)
    drift_scene.capture("healthy", traffic(1200, 2))
    deferred = waits(sensor, context)
    assert drift_scene.state["evidence"]["looks"] == 1

    drift_scene.capture("shifted", traffic(1200, 3, delay=6))
    assert fire(deferred) == {"status": "unread"}
    summary = resumed(sensor, deferred, {"status": "unread"}, context)

    assert [feature["name"] for feature in summary["features"]] in (["delay", "prediction"], ["prediction", "delay"])
    assert {feature["direction"] for feature in summary["features"]} == {"up"}
    assert (summary["rows"], summary["look"]) == (1200, 2)
    extra = context["outlet_events"][ASSET].extra
    assert extra["endpoint_name"] == "flights"
    assert extra["report_uri"] == summary["report_uri"]
    assert set(extra["features"]) == {"delay", "prediction"}
    report = json.loads(ObjectStore(drift_scene.s3).read(S3Uri.parse(summary["report_uri"])))
    assert from_json(DriftReport, report).window.rows == 1200
    page = ObjectStore(drift_scene.s3).read(S3Uri.parse(summary["report_html_uri"]))
    assert page.count(b"<svg") >= 3
    assert "_link_ReportLink" in task.pushed


def test_healthy_traffic_ends_skipped_and_emits_nothing(drift_scene):
    for number in range(3):
        drift_scene.capture(f"part-{number}", traffic(1000, 10 + number))
    context = context_of(RunningTask())
    with pytest.raises(AirflowSkipException, match="flights, after 0 s: no drift: 3000 rows in 3 files, 1 looks"):
        drift_scene.sensor(timeout=0).execute(context)
    assert context["outlet_events"][ASSET].extra == {}
    with pytest.raises(AirflowFailException, match=r"the largest effect was 0\.0"):
        drift_scene.sensor(timeout=0, on_timeout="fail").execute(context_of(RunningTask()))


def test_a_sensor_that_is_resumed_by_dag_test_keeps_its_deadline(drift_scene):
    # dag.test() hands on the event alone.
    sensor, context = drift_scene.sensor(), context_of(RunningTask())
    deferred = waits(sensor, context)
    with pytest.raises(TaskDeferred) as again:
        sensor.resume(context, {"status": "unread"})
    assert again.value.kwargs == deferred.kwargs


def test_no_traffic_at_all_is_skipped_with_a_sentence(drift_scene):
    deferred = waits(drift_scene.sensor())
    deferred.trigger.deadline = time.time() + 0.2
    assert fire(deferred) == {"status": "deadline"}
    with pytest.raises(AirflowSkipException, match="no drift: 0 rows in 0 files, 0 looks"):
        drift_scene.sensor().resume(context_of(RunningTask()), {"status": "deadline"}, deadline=time.time())


def test_the_deadline_is_carried_and_a_worker_looks_around_before_it(drift_scene):
    deferred = waits(drift_scene.sensor(timeout=90_000))
    assert deferred.kwargs["deadline"] == pytest.approx(time.time() + 90_000, abs=60)
    assert deferred.trigger.deadline == pytest.approx(time.time() + 3600, abs=60)
    with pytest.raises(TaskDeferred) as again:
        resumed(drift_scene.sensor(timeout=5), deferred, {"status": "deadline"}, context_of(RunningTask()))
    assert again.value.kwargs == deferred.kwargs


def test_a_sensor_that_is_cleared_while_it_looks_has_a_deadline_of_its_own(drift_scene):
    deferred = waits(drift_scene.sensor(timeout=5))
    with pytest.raises(TaskDeferred) as again:
        resumed(drift_scene.sensor(timeout=900), deferred, {"status": "unread"}, context_of(RunningTask(max_tries=1)))
    assert again.value.kwargs["deadline"] > deferred.kwargs["deadline"] + 800


def test_a_retry_finds_the_drift_of_its_first_try_again_and_another_run_does_not(drift_scene):
    drift_scene.capture("a", traffic(1200, 3, delay=6))
    first = drift_scene.sensor().execute(context_of(RunningTask(try_number=1)))
    assert drift_scene.sensor().execute(context_of(RunningTask(try_number=2))) == first
    waits(drift_scene.sensor(), context_of(RunningTask(run_id="run-2")))


def test_drift_is_told_once_in_the_cooldown(drift_scene):
    drift_scene.capture("a", traffic(1200, 3, delay=6))
    assert drift_scene.sensor().execute(context_of(RunningTask()))["look"] == 1
    drift_scene.capture("b", traffic(1200, 4, delay=6))
    waits(drift_scene.sensor(), context_of(RunningTask(run_id="run-2")))
    assert [look["outcome"] for look in drift_scene.state["history"]] == ["drift", "drift"]
    with pytest.raises(AirflowSkipException, match=r"drift was told at 20.*the latest look has drifted still"):
        drift_scene.sensor(timeout=0).execute(context_of(RunningTask(run_id="run-2")))
    drift_scene.capture("c", traffic(1200, 5, delay=6))
    summary = drift_scene.sensor(cooldown=timedelta(0)).execute(context_of(RunningTask(run_id="run-3")))
    assert summary["look"] == 3


def test_without_deferring_it_pokes(drift_scene):
    drift_scene.capture("a", traffic(1200, 3, delay=6))
    sensor = drift_scene.sensor(deferrable=False)
    assert sensor.execute(context_of(RunningTask()))["rows"] == 1200
    with pytest.raises(AirflowSkipException, match="no look was taken since"):
        drift_scene.sensor(deferrable=False, timeout=0.1).execute(context_of(RunningTask(run_id="run-2")))


def test_rendered_texts_are_numbers_and_wrong_ones_fail_at_parse_time(drift_scene):
    drift_scene.capture("a", traffic(1200, 3, delay=6))
    sensor = drift_scene.sensor(min_rows="1200", alpha="0.01", min_effect="0.1")
    assert sensor.execute(context_of(RunningTask()))["rows"] == 1200
    drift_scene.sensor(min_rows="{{ params.rows }}")
    for wrong in (
        {"sample": 0},
        {"sample": "some"},
        {"late_hours": 0},
        {"persistence": (2, 1)},
        {"persistence": (1,)},
        {"min_rows": "many"},
        {"alpha": 2},
        {"on_timeout": "pass"},
        {"state_s3_uri": "/tmp"},
    ):
        with pytest.raises((ValueError, AirflowException)):
            drift_scene.sensor(**wrong)


def test_a_reference_that_is_none_fails_at_once(drift_scene):
    drift_scene.put("model/drift_reference.json", b"{}")
    with pytest.raises(AirflowFailException, match="format"):
        drift_scene.sensor().execute(context_of(RunningTask()))
    with pytest.raises(AirflowFailException, match="cannot read s3://"):
        drift_scene.sensor(reference_s3_uri=f"s3://{drift_scene.bucket}/nothing").execute(context_of(RunningTask()))


def test_an_endpoint_that_is_not_there_is_named(drift_scene):
    with pytest.raises(AirflowFailException, match="no endpoint 'flights' to watch"):
        drift_scene.sensor(reference_s3_uri=None).execute(context_of(RunningTask()))


def test_a_trigger_that_cannot_list_hands_over_to_the_worker(drift_scene):
    deferred = waits(drift_scene.sensor())
    deferred.trigger.capture_s3_uri = "s3://no-such-bucket-anywhere/"
    event = fire(deferred)
    assert event["status"] == "trouble"
    assert "NoSuchBucket" in event["message"]


def test_connections_cross_to_the_triggerer_whole(drift_scene):
    connection = AwsConnection(aws_conn_id=None, region_name="us-east-1", botocore_config={"read_timeout": 7})
    deferred = waits(drift_scene.sensor(region_name="us-east-1", botocore_config={"read_timeout": 7}))
    assert from_json(AwsConnection, deferred.trigger.serialize()[1]["connection"]) == connection
    assert AwsClients(connection).client("s3").meta.config.read_timeout == 7


def test_drift_is_told_when_it_persists(drift_scene):
    sensor = drift_scene.sensor(persistence=(2, 3))
    drift_scene.capture("a", traffic(1200, 3, delay=6))
    waits(sensor)
    assert "1 of the last 1 looks, and 2 of 3 are asked for" in drift_scene.state["history"][0]["reason"]
    drift_scene.capture("b", traffic(1200, 4, delay=6))
    assert sensor.execute(context_of(RunningTask()))["look"] == 2
