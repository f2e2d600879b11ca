"""The drift sensor against S3: what it reads, what it commits, and how it ends."""

import asyncio
import json
import re
import time
from datetime import UTC, datetime, timedelta

import pytest
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException, TaskDeferred
from captured_traffic import capture_file, captured, healthy_rows, lines, reference
from running_task import RunningTask, aws_environment

from airflow_dlaws.drift.lines import MAX_LINE_BYTES
from airflow_dlaws.drift.report import DriftReport
from airflow_dlaws.hooks import drift as watching
from airflow_dlaws.hooks.aws import AwsClients, AwsConnection
from airflow_dlaws.jobs.wire import from_json
from airflow_dlaws.sensors.drift import DriftSensor
from airflow_dlaws.storage import ObjectStore, S3Uri

ASSET = Asset("drift")


class Event:
    """An outlet's event, as Airflow hands it to a task."""

    extra: dict = {}


class Scene:
    """A bucket with a reference, captured files put where SageMaker puts them, and sensors that watch them."""

    def __init__(self, s3, bucket):
        self.s3, self.bucket = s3, bucket
        self.put("model/drift_reference.json", json.dumps(reference().document()).encode())
        self.hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)

    def put(self, key, body):
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)

    def capture(self, name, body, *, hours_ago=0):
        hour = self.hour - timedelta(hours=hours_ago)
        self.put(f"capture/flights/AllTraffic/{hour:%Y/%m/%d/%H}/{name}.jsonl", body)

    def sensor(self, **changes):
        arguments = {
            "task_id": "watch",
            "endpoint_name": "flights",
            "state_s3_uri": f"s3://{self.bucket}/drift",
            "capture_s3_uri": f"s3://{self.bucket}/capture",
            "reference_s3_uri": f"s3://{self.bucket}/model/drift_reference.json",
            "poll_interval": 0.05,
            "timeout": 600,
            "aws_conn_id": None,
            "outlets": [ASSET],
        }
        return DriftSensor(**{**arguments, **changes})

    @property
    def state(self):
        (key,) = [row["Key"] for row in self.listing("drift/state/")]
        return json.loads(self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read())

    def listing(self, prefix):
        return self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix).get("Contents", [])


@pytest.fixture
def scene(local_aws, bucket, monkeypatch):
    aws_environment(monkeypatch, local_aws)
    return Scene(local_aws.client("s3"), bucket)


def context_of(task):
    return {**task.context, "outlet_events": {ASSET: Event()}}


def waits(sensor, context=None):
    """Run a sensor that finds no drift yet; return what it waits for."""
    with pytest.raises(TaskDeferred) as deferred:
        sensor.execute(context or context_of(RunningTask()))
    return deferred.value


def fire(deferred, *, within=20):
    """Make the trigger again from what crosses to the triggerer, and return its event."""
    path, arguments = deferred.trigger.serialize()
    assert path == "airflow_dlaws.triggers.drift.UnreadCaptureTrigger"
    trigger = type(deferred.trigger)(**json.loads(json.dumps(arguments)))

    async def first():
        async for event in trigger.run():
            return event.payload
        raise AssertionError("the trigger ended without an event")

    return asyncio.run(asyncio.wait_for(first(), within))


def traffic(rows, seed, **shift):
    """Return a captured file of rows that are answered now."""
    return capture_file(*healthy_rows(rows, seed, **shift), times=(datetime.now(UTC).isoformat(timespec="seconds"),))


def test_drift_is_waited_for_found_and_told(scene):
    sensor, task = scene.sensor(), RunningTask()
    context = context_of(task)
    scene.capture("healthy", traffic(1200, 2))
    deferred = waits(sensor, context)
    assert scene.state["evidence"]["looks"] == 1

    scene.capture("shifted", traffic(1200, 3, delay=6))
    assert fire(deferred) == {"status": "unread"}
    summary = sensor.resume(context, {"status": "unread"}, **deferred.kwargs)

    assert [feature["name"] for feature in summary["features"]] in (["delay", "prediction"], ["prediction", "delay"])
    assert {feature["direction"] for feature in summary["features"]} == {"up"}
    assert (summary["rows"], summary["look"]) == (1200, 2)
    extra = context["outlet_events"][ASSET].extra
    assert extra["endpoint_name"] == "flights"
    assert extra["report_uri"] == summary["report_uri"]
    assert set(extra["features"]) == {"delay", "prediction"}
    report = json.loads(ObjectStore(scene.s3).read(S3Uri.parse(summary["report_uri"])))
    assert from_json(DriftReport, report).window.rows == 1200
    page = ObjectStore(scene.s3).read(S3Uri.parse(summary["report_html_uri"]))
    assert page.count(b"<svg") >= 3
    assert "_link_ReportLink" in task.pushed


def test_healthy_traffic_ends_skipped_and_emits_nothing(scene):
    for number in range(3):
        scene.capture(f"part-{number}", traffic(1000, 10 + number))
    context = context_of(RunningTask())
    with pytest.raises(AirflowSkipException, match="flights, after 0 s: no drift: 3000 rows in 3 files, 1 looks"):
        scene.sensor(timeout=0).execute(context)
    assert context["outlet_events"][ASSET].extra == {}
    with pytest.raises(AirflowFailException, match=r"the largest effect was 0\.0"):
        scene.sensor(timeout=0, on_timeout="fail").execute(context_of(RunningTask()))


def test_a_sensor_that_is_resumed_by_dag_test_keeps_its_deadline(scene):
    # dag.test() hands on the event alone.
    sensor, context = scene.sensor(), context_of(RunningTask())
    deferred = waits(sensor, context)
    with pytest.raises(TaskDeferred) as again:
        sensor.resume(context, {"status": "unread"})
    assert again.value.kwargs == deferred.kwargs


def test_no_traffic_at_all_is_skipped_with_a_sentence(scene):
    deferred = waits(scene.sensor())
    deferred.trigger.deadline = time.time() + 0.2
    assert fire(deferred) == {"status": "deadline"}
    with pytest.raises(AirflowSkipException, match="no drift: 0 rows in 0 files, 0 looks"):
        scene.sensor().resume(context_of(RunningTask()), {"status": "deadline"}, deadline=time.time())


def test_the_deadline_is_carried_and_a_worker_looks_around_before_it(scene):
    deferred = waits(scene.sensor(timeout=90_000))
    assert deferred.kwargs["deadline"] == pytest.approx(time.time() + 90_000, abs=60)
    assert deferred.trigger.deadline == pytest.approx(time.time() + 3600, abs=60)
    with pytest.raises(TaskDeferred) as again:
        scene.sensor(timeout=5).resume(context_of(RunningTask()), {"status": "deadline"}, **deferred.kwargs)
    assert again.value.kwargs == deferred.kwargs


def test_every_file_counts_once_whether_late_listed_twice_or_after_an_empty_hour(scene):
    sensor = scene.sensor(min_rows=100_000)
    scene.capture("a", traffic(30, 1), hours_ago=3)
    waits(sensor)
    scene.capture("b", traffic(20, 2))  # two hours without a file lie between
    waits(sensor)
    scene.capture("late", traffic(10, 3), hours_ago=2)
    scene.capture("0-before-all-others", traffic(5, 4), hours_ago=3)
    scene.capture("too-late", traffic(7, 5), hours_ago=9)
    waits(sensor)
    waits(sensor)
    assert scene.state["total"]["rows"] == 30 + 20 + 10 + 5
    assert scene.state["files"] == 4


def test_corrupt_lines_are_counted_and_the_rest_is_judged(scene):
    good = traffic(1200, 3, delay=6)
    scene.capture("a", b"{broken\n" + good + b"\x00\xff\n" + good[:50])
    summary = scene.sensor().execute(context_of(RunningTask()))
    assert summary["rows"] == 1200
    report = json.loads(ObjectStore(scene.s3).read(S3Uri.parse(summary["report_uri"])))
    assert report["window"]["faults"]["bad_json"] == 3


def test_traffic_that_cannot_be_read_fails_the_task_and_says_why(scene):
    scene.capture("a", capture_file([(1, 2)] * 1500, [0.5] * 1500, times=(now().isoformat(),)))
    with pytest.raises(AirflowFailException, match=r"Cannot tell whether flights has drifted.*wrong_column_count 1500"):
        scene.sensor(timeout=0).execute(context_of(RunningTask()))
    assert scene.state["evidence"]["looks"] == 0


def store_of(scene):
    return ObjectStore(scene.s3)


def watch_of(scene, owner, store=None):
    sensor = scene.sensor()
    watched = watching.watched_model(
        lambda: None,
        endpoint_name="flights",
        variant_name="AllTraffic",
        capture_s3_uri=sensor.capture_s3_uri,
        reference_s3_uri=sensor.reference_s3_uri,
    )
    root = S3Uri.parse(sensor.state_s3_uri)
    return watching.DriftWatch(
        store or store_of(scene), watched, root, sensor._settings, owner=owner, cooldown=timedelta(hours=1)
    )


def now():
    return datetime.now(UTC)


class Interrupted(Exception):
    pass


class DyingStore(ObjectStore):
    """A store whose process dies at the `deadly`-th write."""

    def __init__(self, client, deadly):
        super().__init__(client)
        self.left = deadly

    def _conditional_put(self, uri, body, **condition):
        self.left -= 1
        if self.left == 0:
            raise Interrupted
        return super()._conditional_put(uri, body, **condition)


@pytest.mark.parametrize("deadly", [1, 2, 3])
def test_a_reader_killed_before_any_commit_counts_nothing_twice(scene, deadly, monkeypatch):
    monkeypatch.setattr(watching, "_BATCH", 1)
    scene.capture("a", traffic(700, 1))
    scene.capture("b", traffic(700, 2, delay=12))
    with pytest.raises(Interrupted):
        watch_of(scene, "me", DyingStore(scene.s3, deadly)).advance(now)
    state = watch_of(scene, "me").advance(now)
    assert (state.total.rows, state.files, state.looks) == (1400, 2, 1)
    assert state.alarm is not None


def test_two_sensors_at_once_share_the_work_and_count_nothing_twice(scene, monkeypatch):
    monkeypatch.setattr(watching, "_BATCH", 1)
    for number in range(4):
        scene.capture(f"part-{number}", traffic(100, number))

    class Racing(ObjectStore):
        """Before the first commit of one sensor, another one does all the work."""

        raced = False

        def _conditional_put(self, uri, body, **condition):
            if not Racing.raced:
                Racing.raced = True
                watch_of(scene, "other").advance(now)
            return super()._conditional_put(uri, body, **condition)

    state = watch_of(scene, "me", Racing(scene.s3)).advance(now)
    assert Racing.raced
    assert (state.total.rows, state.files) == (400, 4)
    assert state == watch_of(scene, "third").advance(now)


def test_a_retry_finds_the_drift_of_its_first_try_again_and_another_run_does_not(scene):
    scene.capture("a", traffic(1200, 3, delay=6))
    first = scene.sensor().execute(context_of(RunningTask(try_number=1)))
    assert scene.sensor().execute(context_of(RunningTask(try_number=2))) == first
    waits(scene.sensor(), context_of(RunningTask(run_id="run-2")))


def test_drift_is_told_once_in_the_cooldown(scene):
    scene.capture("a", traffic(1200, 3, delay=6))
    assert scene.sensor().execute(context_of(RunningTask()))["look"] == 1
    scene.capture("b", traffic(1200, 4, delay=6))
    waits(scene.sensor(), context_of(RunningTask(run_id="run-2")))
    assert [look["outcome"] for look in scene.state["history"]] == ["drift", "drift"]
    with pytest.raises(AirflowSkipException, match=r"drift was told at 20.*the latest look has drifted still"):
        scene.sensor(timeout=0).execute(context_of(RunningTask(run_id="run-2")))
    scene.capture("c", traffic(1200, 5, delay=6))
    summary = scene.sensor(cooldown=timedelta(0)).execute(context_of(RunningTask(run_id="run-3")))
    assert summary["look"] == 3


def test_a_new_reference_starts_with_no_evidence(scene):
    scene.capture("a", traffic(500, 3))
    waits(scene.sensor())
    scene.put("model/drift_reference.json", json.dumps(reference(4000).document()).encode())
    waits(scene.sensor())
    assert len(scene.listing("drift/state/")) == 2


def test_without_deferring_it_pokes(scene):
    scene.capture("a", traffic(1200, 3, delay=6))
    sensor = scene.sensor(deferrable=False)
    assert sensor.execute(context_of(RunningTask()))["rows"] == 1200
    with pytest.raises(AirflowSkipException, match="no look was taken since"):
        scene.sensor(deferrable=False, timeout=0.1).execute(context_of(RunningTask(run_id="run-2")))


def test_rendered_texts_are_numbers_and_wrong_ones_fail_at_parse_time(scene):
    scene.capture("a", traffic(1200, 3, delay=6))
    sensor = scene.sensor(min_rows="1200", alpha="0.01", min_effect="0.1")
    assert sensor.execute(context_of(RunningTask()))["rows"] == 1200
    scene.sensor(min_rows="{{ params.rows }}")
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
            scene.sensor(**wrong)


def test_a_reference_that_is_none_fails_at_once(scene):
    scene.put("model/drift_reference.json", b"{}")
    with pytest.raises(AirflowFailException, match="format"):
        scene.sensor().execute(context_of(RunningTask()))
    with pytest.raises(AirflowFailException, match="cannot read s3://"):
        scene.sensor(reference_s3_uri=f"s3://{scene.bucket}/nothing").execute(context_of(RunningTask()))


def test_an_endpoint_that_is_not_there_is_named(scene):
    with pytest.raises(AirflowFailException, match="no endpoint 'flights' to watch"):
        scene.sensor(reference_s3_uri=None).execute(context_of(RunningTask()))


def test_a_trigger_that_cannot_list_hands_over_to_the_worker(scene):
    deferred = waits(scene.sensor())
    deferred.trigger.capture_s3_uri = "s3://no-such-bucket-anywhere/"
    event = fire(deferred)
    assert event["status"] == "trouble"
    assert "NoSuchBucket" in event["message"]


def test_connections_cross_to_the_triggerer_whole(scene):
    connection = AwsConnection(aws_conn_id=None, region_name="us-east-1", botocore_config={"read_timeout": 7})
    deferred = waits(scene.sensor(region_name="us-east-1", botocore_config={"read_timeout": 7}))
    assert from_json(AwsConnection, deferred.trigger.serialize()[1]["connection"]) == connection
    assert AwsClients(connection).client("s3").meta.config.read_timeout == 7


def test_a_sample_is_counted_where_asked_for_and_the_verdict_says_so(scene):
    rows, scores = healthy_rows(4000, 3, delay=6)
    scene.capture("a", capture_file(rows, scores, times=(now().isoformat(),), batch=1))
    summary = scene.sensor(sample="0.5").execute(context_of(RunningTask()))
    assert summary["rows"] == pytest.approx(2000, abs=150)
    assert re.search(r"Counted is a sample of (4[6-9]|5[0-4])% of the requests", summary["sentence"])
    assert scene.state["total"]["faults"] == {"sampled_out": 4000 - summary["rows"]}


def test_drift_is_told_when_it_persists(scene):
    sensor = scene.sensor(persistence=(2, 3))
    scene.capture("a", traffic(1200, 3, delay=6))
    waits(sensor)
    assert "1 of the last 1 looks, and 2 of 3 are asked for" in scene.state["history"][0]["reason"]
    scene.capture("b", traffic(1200, 4, delay=6))
    assert sensor.execute(context_of(RunningTask()))["look"] == 2


def verdicts_of(scene):
    rows = scene.listing("drift/verdicts/flights/AllTraffic/")
    return [json.loads(store_of(scene).read(S3Uri(scene.bucket, row["Key"]))) for row in rows]


def test_the_verdict_is_published_once_also_by_whoever_finds_that_it_is_not(scene):
    scene.capture("a", traffic(1200, 3, delay=6))
    context = context_of(RunningTask())
    scene.sensor().execute(context)
    (verdict,) = verdicts_of(scene)
    assert verdict == context["outlet_events"][ASSET].extra
    scene.s3.delete_object(Bucket=scene.bucket, Key=scene.listing("drift/verdicts/")[0]["Key"])
    waits(scene.sensor(), context_of(RunningTask(run_id="another")))
    waits(scene.sensor(), context_of(RunningTask(run_id="another")))
    assert verdicts_of(scene) == [verdict]


def test_hostile_traffic_is_told_by_kind_and_the_good_rows_are_judged(scene):
    hostile = [
        captured("1,2", "0.5"), captured("not base64!", "0.5", encoding="BASE64"), captured("nan,inf,\ud800", "nan"),
        captured("9" * 200_000 + ",1,A", "1e999"), captured('{"other": 1}', "[]", encoding="JSON"),
        captured('[[1, 2, "never seen"]]', '{"surprise": 1}', encoding="JSON"), captured("1,2,A", "0.5", encoding="?"),
        {"captureData": {"endpointInput": 5, "endpointOutput": []}}, {"captureData": None}, {"eventMetadata": []},
    ]  # fmt: skip
    garbage = [b"\xff\x00", b"[" * 200_000, b'{"captureData": ' + b"7" * 9000 + b"}", b"x" * (MAX_LINE_BYTES + 1)]
    present = now().isoformat()
    for document in hostile:
        if document.get("eventMetadata"):
            document["eventMetadata"]["inferenceTime"] = present
    scene.capture("a", b"\n".join(garbage) + b"\n" + lines(*hostile) + traffic(1200, 3, delay=6))
    summary = scene.sensor().execute(context_of(RunningTask()))
    assert {feature["name"] for feature in summary["features"]} == {"delay", "prediction"}
    assert "could not be used (bad_base64 1, bad_csv 1, bad_json 3" in summary["sentence"]
    faults = scene.state["total"]["faults"]
    wanted = {
        "bad_base64", "bad_csv", "bad_json", "line_too_long", "no_known_column", "not_a_capture", "unknown_encoding",
        "unknown_json_layout", "wrong_column_count", "no_event_id", "no_time",
    }  # fmt: skip
    assert wanted <= set(faults)
    assert b"?" in store_of(scene).read(S3Uri.parse(summary["report_html_uri"]))


def test_a_trigger_reads_the_state_only_when_it_has_changed(scene):
    class Counting(ObjectStore):
        """Counts what is read."""

        reads = 0

        def read_versioned(self, uri):
            Counting.reads += 1
            return super().read_versioned(uri)

    scene.capture("a", traffic(100, 1))
    uri = watch_of(scene, "me").state_uri
    store = Counting(scene.s3)
    assert watching.read_progress(store, uri) is None
    watch_of(scene, "me").advance(now)
    known = None
    for _ in range(3):
        known = watching.read_progress(store, uri, known)
    assert (Counting.reads, known[1].waiting) == (1, 100)
    scene.capture("b", traffic(50, 2))
    state = watch_of(scene, "me").advance(now)
    assert watching.read_progress(store, uri, known)[1] == state.progress
    assert Counting.reads == 2
