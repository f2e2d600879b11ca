"""A drift sensor on replayed capture, and a DAG that an asset watcher starts on the sensor's verdict."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, AssetWatcher, dag, task

from airflow_dlaws.sensors.drift import DriftSensor
from airflow_dlaws.triggers.drift import DriftVerdictTrigger

BUCKET = os.environ.get("DLAWS_BUCKET", "tests")
STATE = f"s3://{BUCKET}/drift"
VERDICT = Asset(
    "replayed-drift",
    watchers=[
        AssetWatcher(
            name="verdict",
            trigger=DriftVerdictTrigger(endpoint_name="replayed", state_s3_uri=STATE, poll_interval=1),
        )
    ],
)


@dag(dag_id="watch_replayed", schedule=None)
def watch_replayed() -> None:
    """Waits in the triggerer until the traffic has drifted."""
    DriftSensor(
        task_id="watch",
        endpoint_name="replayed",
        capture_s3_uri=f"s3://{BUCKET}/capture",
        reference_s3_uri=f"s3://{BUCKET}/drift/reference.json",
        state_s3_uri=STATE,
        min_rows=400,
        poll_interval=0.5,
        timeout=600,
        retries=2,
        retry_delay=timedelta(seconds=1),
    )


@dag(dag_id="act_on_drift", schedule=[VERDICT])
def act_on_drift() -> None:
    """Is started by the watcher, and keeps what it was told."""

    @task
    def act(triggering_asset_events: Any = None) -> list[dict[str, Any]]:
        """Return the payloads of the events that started the run."""
        return [event.extra["payload"] for event in triggering_asset_events[VERDICT]]

    act()


watch_replayed()
act_on_drift()
