"""A bucket that drift sensors watch: what is captured there, and how a sensor waits."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from airflow.sdk.exceptions import TaskDeferred
from captured_traffic import capture_file, healthy_rows, reference
from drift_check_bench import ASSET, Event
from running_task import RunningTask

from airflow_dlaws.hooks import drift as watching
from airflow_dlaws.sensors.drift import DriftSensor
from airflow_dlaws.storage import ObjectStore, S3Uri


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
