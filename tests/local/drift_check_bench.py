"""A drift check as a running task in one bucket: data, reports, and how it ends."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from airflow.sdk import Asset
from captured_traffic import captured, lines
from running_task import RunningTask

import drift_table as tables
from airflow_dlaws.drift.report import DriftReport, DriftSummary
from airflow_dlaws.jobs.wire import from_json
from airflow_dlaws.operators.drift import DriftCheckOperator
from airflow_dlaws.storage import ObjectStore, S3Uri

ASSET = Asset("drift")
NOON = datetime(2013, 7, 1, 12, tzinfo=UTC)


class Event:
    """An outlet's event, as Airflow hands it to a task."""

    extra: dict = {}


class Check:
    """One task in one bucket, tried as often as a test likes."""

    def __init__(self, aws, bucket):
        self.aws, self.bucket, self.s3 = aws, bucket, aws.client("s3")
        self.store = ObjectStore(self.s3)
        self.run_id = uuid.uuid4().hex
        self.put("model/drift_reference.json", json.dumps(tables.reference().document()))
        self.task = self.context = None

    def put(self, key, body):
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)

    def uri(self, key):
        return f"s3://{self.bucket}/{key}"

    def operator(self, **changes):
        arguments = {
            "task_id": "check",
            "aws_conn_id": None,
            "reference_s3_uri": self.uri("model/drift_reference.json"),
            "report_s3_uri": self.uri("reports"),
            "min_rows": 100,
            "outlets": [ASSET] if changes.get("on_drift", "event") == "event" else [],
        }
        ways = {"data", "data_manifest_s3_uri", "data_snapshot", "athena_query_id", "capture_s3_uri", "evidence"}
        if not ways & set(changes):
            arguments["data"] = self.uri("data/")
        return DriftCheckOperator(**{**arguments, **changes})

    def prepared(self, **moments):
        """Return the context of the next try."""
        self.task = RunningTask("check", run_id=self.run_id)
        self.context = {**self.task.context, "outlet_events": {ASSET: Event()}, **moments}
        return self.context

    def run(self, moments=None, **changes) -> DriftSummary:
        document = self.operator(**changes).execute(self.prepared(**(moments or {})))
        return from_json(DriftSummary, json.loads(json.dumps(document)))

    def ends(self, error, moments=None, **changes):
        """Run a task that does not succeed; return its message and the summary that it leaves, if any."""
        with pytest.raises(error) as ended:
            self.operator(**changes).execute(self.prepared(**(moments or {})))
        left = self.task.pushed.get("drift_result")
        return str(ended.value), left and from_json(DriftSummary, left)

    def report(self, summary) -> DriftReport:
        return from_json(DriftReport, self.store.read_json(S3Uri.parse(summary.report_uri)))


def request(number, row, answer, *, at):
    """Return a captured request of one row that says who it is."""
    document = captured(",".join(map(str, row)), str(answer), time=at.isoformat())
    known = {"eventId": f"event-{number}", "inferenceId": f"id-{number}", "inferenceTime": at.isoformat()}
    return {**document, "eventMetadata": known}


def capture(check, count, seed, *, start, shift=0.0, first=0, place="capture"):
    """Put an hour's captured requests where SageMaker puts them; return the labels of each request."""
    table = tables.rows(count, seed, shift=shift)
    documents = []
    for n in range(count):
        row, at = [table[name][n] for name in tables.FEATURES], start + timedelta(seconds=n * 3600 / count)
        documents.append(request(first + n, row, table["prediction"][n], at=at))
    check.put(f"{place}/flights/AllTraffic/{start:%Y/%m/%d/%H}/{seed}.jsonl", lines(*documents))
    return {"id": [f"id-{first + n}" for n in range(count)], "label": table["label"]}
