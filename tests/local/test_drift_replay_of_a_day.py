"""A day of capture with its mishaps: each record counts once, whoever reads it, and the verdict is that of a batch."""

import json
import threading
from datetime import UTC, datetime, timedelta

import pytest
from replayed_day import (
    HOURS,
    LATE,
    LATE_WITH,
    PROFILE,
    SETTINGS,
    Day,
    assert_counted_once,
    assert_judged_as_a_batch,
    state_of,
)

from airflow_dlaws.drift.state import new_state
from airflow_dlaws.hooks import drift as watching
from airflow_dlaws.hooks.drift import DriftWatch, watched_model
from airflow_dlaws.storage import ObjectStore, S3Uri


@pytest.fixture
def place(local_aws, bucket):
    s3 = local_aws.client("s3")
    s3.put_object(Bucket=bucket, Key="reference.json", Body=json.dumps(PROFILE.document()).encode())
    return s3, bucket


def watch(place, owner, store=None):
    s3, bucket = place
    watched = watched_model(
        lambda: None,
        endpoint_name="replayed",
        variant_name="AllTraffic",
        capture_s3_uri=f"s3://{bucket}/capture",
        reference_s3_uri=f"s3://{bucket}/reference.json",
    )
    root = S3Uri(bucket, "drift")
    return DriftWatch(store or ObjectStore(s3), watched, root, SETTINGS, owner=owner, cooldown=timedelta(hours=1))


def now():
    return datetime.now(UTC)


@pytest.mark.parametrize(("bunch", "late_with"), [(6, LATE_WITH), (HOURS, LATE)])
def test_a_day_counts_once_and_is_judged_as_a_batch(place, bunch, late_with, monkeypatch):
    monkeypatch.setattr(watching, "_BATCH", 3)  # commits in the middle of an hour
    day = Day(*place)
    for start in range(0, HOURS, bunch):
        for hour in range(start, start + bunch):
            day.deliver_hour(hour)
        watch(place, "me").advance(now)
    state = state_of(*place)
    assert_counted_once(day, state)
    assert_judged_as_a_batch(day, state, dict(state.alarm.summary), place[0], late_with)


@pytest.mark.slow
def test_four_sensors_at_once_count_a_day_once(place, local_aws, monkeypatch):
    monkeypatch.setattr(watching, "_BATCH", 2)
    monkeypatch.setattr(watching, "_MAX_CONFLICTS", 1000)
    day = Day(*place)
    for hour in range(HOURS):
        day.deliver_hour(hour)
    failures = []

    def read(number):
        try:
            watch(place, f"sensor-{number}", ObjectStore(local_aws.client("s3"))).advance(now)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    state = state_of(*place)
    assert_counted_once(day, state)
    assert_judged_as_a_batch(day, state, dict(state.alarm.summary), place[0], LATE)


def test_only_the_ledgers_of_open_hours_are_kept(place):
    day = Day(*place)
    for hour in range(HOURS):
        day.deliver_hour(hour)
    s3, bucket = place
    orphan = "drift/events/replayed/AllTraffic/{}/2020/01/01/00/0123456789abcdef"
    sensor = watch(place, "me")
    s3.put_object(Bucket=bucket, Key=orphan.format(sensor.state_uri.key.rpartition("/")[2][:-5]), Body=b"")
    sensor.advance(now)
    state = state_of(*place)
    assert state != new_state(PROFILE, None)
    rows = s3.list_objects_v2(Bucket=bucket, Prefix="drift/events/")["Contents"]
    assert sorted(row["Key"].rpartition("/")[2] for row in rows) == sorted(state.ledgers.values())
    assert min(state.ledgers) >= state.open_from
