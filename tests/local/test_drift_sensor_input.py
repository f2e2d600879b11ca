"""What the drift sensor makes of captured traffic that is hostile, or only sampled."""

from __future__ import annotations

import json
import re

import pytest
from airflow.sdk.exceptions import AirflowFailException
from captured_traffic import capture_file, captured, healthy_rows, lines
from drift_sensor_bench import context_of, now, store_of, traffic
from running_task import RunningTask

from airflow_dlaws.drift.lines import MAX_LINE_BYTES
from airflow_dlaws.storage import ObjectStore, S3Uri


def test_corrupt_lines_are_counted_and_the_rest_is_judged(drift_scene):
    good = traffic(1200, 3, delay=6)
    drift_scene.capture("a", b"{broken\n" + good + b"\x00\xff\n" + good[:50])
    summary = drift_scene.sensor().execute(context_of(RunningTask()))
    assert summary["rows"] == 1200
    report = json.loads(ObjectStore(drift_scene.s3).read(S3Uri.parse(summary["report_uri"])))
    assert report["window"]["faults"]["bad_json"] == 3


def test_traffic_that_cannot_be_read_fails_the_task_and_says_why(drift_scene):
    drift_scene.capture("a", capture_file([(1, 2)] * 1500, [0.5] * 1500, times=(now().isoformat(),)))
    with pytest.raises(AirflowFailException, match=r"Cannot tell whether flights has drifted.*wrong_column_count 1500"):
        drift_scene.sensor(timeout=0).execute(context_of(RunningTask()))
    assert drift_scene.state["evidence"]["looks"] == 0


def test_a_sample_is_counted_where_asked_for_and_the_verdict_says_so(drift_scene):
    rows, scores = healthy_rows(4000, 3, delay=6)
    drift_scene.capture("a", capture_file(rows, scores, times=(now().isoformat(),), batch=1))
    summary = drift_scene.sensor(sample="0.5").execute(context_of(RunningTask()))
    assert summary["rows"] == pytest.approx(2000, abs=150)
    assert re.search(r"Counted is a sample of (4[6-9]|5[0-4])% of the requests", summary["sentence"])
    assert drift_scene.state["total"]["faults"] == {"sampled_out": 4000 - summary["rows"]}


def test_hostile_traffic_is_told_by_kind_and_the_good_rows_are_judged(drift_scene):
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
    drift_scene.capture("a", b"\n".join(garbage) + b"\n" + lines(*hostile) + traffic(1200, 3, delay=6))
    summary = drift_scene.sensor().execute(context_of(RunningTask()))
    assert {feature["name"] for feature in summary["features"]} == {"delay", "prediction"}
    assert "could not be used (bad_base64 1, bad_csv 1, bad_json 3" in summary["sentence"]
    faults = drift_scene.state["total"]["faults"]
    wanted = {
        "bad_base64", "bad_csv", "bad_json", "line_too_long", "no_known_column", "not_a_capture", "unknown_encoding",
        "unknown_json_layout", "wrong_column_count", "no_event_id", "no_time",
    }  # fmt: skip
    assert wanted <= set(faults)
    assert b"?" in store_of(drift_scene).read(S3Uri.parse(summary["report_html_uri"]))
