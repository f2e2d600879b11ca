"""What the drift sensor commits to S3: each file once, through kills and races, and each verdict."""

from __future__ import annotations

import json

import pytest
from captured_traffic import reference
from drift_sensor_bench import ASSET, context_of, now, store_of, traffic, waits, watch_of
from running_task import RunningTask

from airflow_dlaws.hooks import drift as watching
from airflow_dlaws.storage import ObjectStore, S3Uri


def test_every_file_counts_once_whether_late_listed_twice_or_after_an_empty_hour(drift_scene):
    sensor = drift_scene.sensor(min_rows=100_000)
    drift_scene.capture("a", traffic(30, 1), hours_ago=3)
    waits(sensor)
    drift_scene.capture("b", traffic(20, 2))  # two hours without a file lie between
    waits(sensor)
    drift_scene.capture("late", traffic(10, 3), hours_ago=2)
    drift_scene.capture("0-before-all-others", traffic(5, 4), hours_ago=3)
    drift_scene.capture("too-late", traffic(7, 5), hours_ago=9)
    waits(sensor)
    waits(sensor)
    assert drift_scene.state["total"]["rows"] == 30 + 20 + 10 + 5
    assert drift_scene.state["files"] == 4


def test_a_new_reference_starts_with_no_evidence(drift_scene):
    drift_scene.capture("a", traffic(500, 3))
    waits(drift_scene.sensor())
    drift_scene.put("model/drift_reference.json", json.dumps(reference(4000).document()).encode())
    waits(drift_scene.sensor())
    assert len(drift_scene.listing("drift/state/")) == 2


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
def test_a_reader_killed_before_any_commit_counts_nothing_twice(drift_scene, deadly, monkeypatch):
    monkeypatch.setattr(watching, "_BATCH", 1)
    drift_scene.capture("a", traffic(700, 1))
    drift_scene.capture("b", traffic(700, 2, delay=12))
    with pytest.raises(Interrupted):
        watch_of(drift_scene, "me", DyingStore(drift_scene.s3, deadly)).advance(now)
    state = watch_of(drift_scene, "me").advance(now)
    assert (state.total.rows, state.files, state.looks) == (1400, 2, 1)
    assert state.alarm is not None


def test_two_sensors_at_once_share_the_work_and_count_nothing_twice(drift_scene, monkeypatch):
    monkeypatch.setattr(watching, "_BATCH", 1)
    for number in range(4):
        drift_scene.capture(f"part-{number}", traffic(100, number))

    class Racing(ObjectStore):
        """Before the first commit of one sensor, another one does all the work."""

        raced = False

        def _conditional_put(self, uri, body, **condition):
            if not Racing.raced:
                Racing.raced = True
                watch_of(drift_scene, "other").advance(now)
            return super()._conditional_put(uri, body, **condition)

    state = watch_of(drift_scene, "me", Racing(drift_scene.s3)).advance(now)
    assert Racing.raced
    assert (state.total.rows, state.files) == (400, 4)
    assert state == watch_of(drift_scene, "third").advance(now)


def verdicts_of(drift_scene):
    rows = drift_scene.listing("drift/verdicts/flights/AllTraffic/")
    return [json.loads(store_of(drift_scene).read(S3Uri(drift_scene.bucket, row["Key"]))) for row in rows]


def test_the_verdict_is_published_once_also_by_whoever_finds_that_it_is_not(drift_scene):
    drift_scene.capture("a", traffic(1200, 3, delay=6))
    context = context_of(RunningTask())
    drift_scene.sensor().execute(context)
    (verdict,) = verdicts_of(drift_scene)
    assert verdict == context["outlet_events"][ASSET].extra
    drift_scene.s3.delete_object(Bucket=drift_scene.bucket, Key=drift_scene.listing("drift/verdicts/")[0]["Key"])
    waits(drift_scene.sensor(), context_of(RunningTask(run_id="another")))
    waits(drift_scene.sensor(), context_of(RunningTask(run_id="another")))
    assert verdicts_of(drift_scene) == [verdict]


def test_a_trigger_reads_the_state_only_when_it_has_changed(drift_scene):
    class Counting(ObjectStore):
        """Counts what is read."""

        reads = 0

        def read_versioned(self, uri):
            Counting.reads += 1
            return super().read_versioned(uri)

    drift_scene.capture("a", traffic(100, 1))
    uri = watch_of(drift_scene, "me").state_uri
    store = Counting(drift_scene.s3)
    assert watching.read_progress(store, uri) is None
    watch_of(drift_scene, "me").advance(now)
    known = None
    for _ in range(3):
        known = watching.read_progress(store, uri, known)
    assert (Counting.reads, known[1].waiting) == (1, 100)
    drift_scene.capture("b", traffic(50, 2))
    state = watch_of(drift_scene, "me").advance(now)
    assert watching.read_progress(store, uri, known)[1] == state.progress
    assert Counting.reads == 2
