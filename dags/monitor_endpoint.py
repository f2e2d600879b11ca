"""Watch an endpoint's captured traffic, and emit the drift asset when it has left the model's reference.

The run waits slot-free for up to a day; drift ends it green with the report and an asset event that starts
`retrain_on_drift`, and `tell` says what the drift costs; a day without drift ends it skipped, and the next run goes on
with the same evidence. Copy this file, and set the knobs below or the environment variables they read.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import Asset, Param, dag, task

from airflow_dlaws.sensors.drift import DriftSensor

BUCKET = os.environ.get("DLAWS_BUCKET", "my-bucket")
ENDPOINT = os.environ.get("DLAWS_ENDPOINT", "flight-delays")
POLL_SECONDS = float(os.environ.get("DLAWS_POLL_SECONDS", "60"))

#: The same name stands in retrain_on_drift.py: this is how one DAG starts the other.
DRIFT = Asset("flight-delays-drift")


@task
def tell(summary: dict[str, Any]) -> str:
    """Say how urgent it is. This is the place for a message to whoever is on call."""
    accuracy = summary["estimated_accuracy"]
    if accuracy is None:
        cost = "what it costs in accuracy is not known (the reference has no calibration)"
    else:
        now, before = (
            f"{accuracy['estimate']:.1%} ({accuracy['low']:.1%} to {accuracy['high']:.1%})",
            accuracy["reference"],
        )
        urgent = "URGENT" if accuracy["high"] < before else "no clear loss"
        cost = f"{urgent}: accuracy is estimated at {now}, after {before:.1%} on the reference"
    message = f"{summary['endpoint_name']} has drifted; {cost}. {summary['report_html_uri']}"
    print(message)  # noqa: T201  # a task's log
    return message


@dag(
    dag_id="monitor_endpoint",
    schedule="@continuous",
    start_date=datetime(2013, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=POLL_SECONDS)},
    tags=["dlaws", "drift"],
    params={
        "bucket": Param(BUCKET, type="string", title="Bucket", description="Holds the sensor's state and its reports."),
        "endpoint_name": Param(ENDPOINT, type="string", title="Endpoint"),
        "min_rows": Param(
            4000,
            type="integer",
            minimum=100,
            title="Rows per look",
            description="Should span the longest rhythm of the traffic: a week's weather is not a quarter's.",
        ),
        "alpha": Param(
            0.05,
            type="number",
            exclusiveMinimum=0,
            maximum=0.5,
            title="False-alarm rate",
            description="Of the decision, over all features and all looks at one model.",
        ),
        "min_effect": Param(
            0.2,
            type="number",
            minimum=0,
            title="Smallest shift that matters",
            description="Population stability index of a feature; smaller shifts are reported and do not fire.",
        ),
    },
    doc_md=__doc__,
)
def monitor_endpoint() -> None:
    """One sensor, one asset, one message."""
    watch = DriftSensor(
        task_id="watch_for_drift",
        endpoint_name="{{ params.endpoint_name }}",
        state_s3_uri="s3://{{ params.bucket }}/drift",
        min_rows="{{ params.min_rows }}",
        alpha="{{ params.alpha }}",
        min_effect="{{ params.min_effect }}",
        poll_interval=POLL_SECONDS,
        timeout=timedelta(days=1).total_seconds(),
        outlets=[DRIFT],
    )
    tell(watch.output)


monitor_endpoint()
