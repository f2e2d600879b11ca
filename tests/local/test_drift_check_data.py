"""Which data DriftCheckOperator reads, in which formats, and the labels that came later."""

from __future__ import annotations

from datetime import timedelta

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from drift_check_bench import NOON, capture

import drift_table as tables
from airflow_dlaws.data.snapshot import DataSnapshot, publish
from airflow_dlaws.storage import S3Uri


@pytest.mark.parametrize(
    ("name", "write", "options"),
    [
        ("a.csv.gz", tables.as_gzip, {}),
        ("a.jsonl", tables.as_json_lines, {"format": "jsonlines"}),
        ("a.parquet", tables.as_parquet, {"format": "parquet"}),
    ],
)
def test_every_format_gives_the_same_verdict(drift_check, name, write, options):
    table = tables.rows(1500, 2, shift=3)
    drift_check.put("data/a.csv", tables.as_csv(table))
    drift_check.put(f"other/{name}", write(table))
    verdicts = [
        drift_check.report(drift_check.run(data=drift_check.uri(folder), **more)).verdict
        for folder, more in (("data/", {}), ("other/", options))
    ]
    assert verdicts[0] == verdicts[1]


def test_csv_without_a_header_has_the_columns_of_the_reference_in_order(drift_check):
    table = {name: values for name, values in tables.rows(1500, 2, shift=6).items() if name in tables.FEATURES}
    drift_check.put("data/a.csv", tables.as_csv(table, header=False))
    assert drift_check.run(header=False).features[0].name == "delay"


def test_columns_with_other_names_are_found(drift_check):
    table = tables.rows(1500, 2, shift=6)
    table["departure delay"] = table.pop("delay")
    drift_check.put("data/a.csv", tables.as_csv(table))
    summary = drift_check.run(columns={"delay": "departure delay"})
    assert {"delay", "prediction"} <= {feature.name for feature in summary.features}


def test_a_column_that_has_gone_is_told_and_its_values_are_missing(drift_check):
    table = tables.rows(1500, 2)
    del table["temp"]
    drift_check.put("data/a.csv", tables.as_csv(table))
    summary = drift_check.run()
    assert any((each.name, each.aspect) == ("temp", "missing") for each in summary.features)
    assert "Column 'temp' is not in" in drift_check.report(summary).notes[0]


def test_data_of_another_kind_are_refused_and_never_judged(drift_check):
    drift_check.put("data/a.csv", b"colour,shape\nred,round\n" * 200)
    message, _ = drift_check.ends(AirflowFailException)
    assert "none of the reference's columns" in message


def test_hostile_rows_are_counted_and_part_of_the_verdict(drift_check):
    good = tables.as_csv(tables.rows(2000, 2))
    junk = b"a,b\n" * 9 + b"x,not a number,inf,A,nan,late\n" * 7 + b"\xff\xfe,1,2,A,0.5,late\n"
    drift_check.put("data/a.csv", good + junk)
    _, summary = drift_check.ends(AirflowSkipException)
    assert (summary.rows, summary.lost_rows) == (2008, 9)
    faults = drift_check.report(summary).window.faults
    assert faults["wrong_column_count"] == 9
    assert faults["not_a_number"] == 7

    drift_check.put("data/a.csv", good + b"a,b\n" * 1000)
    message, summary = drift_check.ends(AirflowFailException)
    assert "could not be read" in message
    assert summary.outcome == "inconclusive"


def test_the_versions_that_were_chosen_are_read_whatever_is_written_since(drift_check):
    drift_check.s3.put_bucket_versioning(Bucket=drift_check.bucket, VersioningConfiguration={"Status": "Enabled"})
    drift_check.put("data/a.csv", tables.as_csv(tables.rows(1500, 2, shift=6)))
    pinned = drift_check.store.stat(S3Uri.parse(drift_check.uri("data/a.csv")))
    snapshot = DataSnapshot(
        training_months=(), evaluation_month="2013-02", training=(pinned,), evaluation=(pinned,), versioned=True,
        taken_at=NOON,
    )  # fmt: skip
    chosen = publish(drift_check.store, S3Uri.parse(drift_check.uri("runs")), snapshot)
    drift_check.put("data/a.csv", tables.as_csv(tables.rows(1500, 2)))
    assert drift_check.run(data_snapshot=chosen.snapshot).outcome == "drift"
    drift_check.ends(AirflowSkipException, data_manifest_s3_uri=chosen.evaluate)


def test_captured_requests_of_the_data_interval_are_judged_and_no_others(drift_check):
    # A rollout's configurations capture in folders of their own.
    capture(drift_check, 1000, 2, start=NOON - timedelta(hours=1), place="capture/former-config")
    capture(drift_check, 1000, 3, start=NOON, shift=6, first=1000)
    capture(drift_check, 1000, 4, start=NOON + timedelta(hours=1), first=2000)
    there = {"capture_s3_uri": drift_check.uri("capture"), "endpoint_name": "flights"}
    hour = {"data_interval_start": NOON, "data_interval_end": NOON + timedelta(hours=1)}
    summary = drift_check.run(hour, **there)
    assert (summary.outcome, summary.rows, summary.endpoint_name) == ("drift", 1000, "flights")
    assert NOON <= summary.window_from <= summary.window_to < NOON + timedelta(hours=1)

    before = {"data_interval_start": NOON - timedelta(hours=1), "data_interval_end": NOON}
    _, summary = drift_check.ends(AirflowSkipException, before, **there, min_effect=0.5)
    assert summary.rows == 1000

    _, summary = drift_check.ends(AirflowFailException, {"logical_date": NOON - timedelta(days=9)}, **there)
    assert (summary.outcome, summary.rows) == ("inconclusive", 0)


def test_labels_that_came_later_measure_the_accuracy(drift_check):
    table = tables.rows(2000, 2, shift=6)
    labels = {"id": table["id"][:1500], "label": table.pop("label")[:1500]}
    drift_check.put("data/a.csv", tables.as_csv(table))
    drift_check.put("labels/a.jsonl", tables.as_json_lines(labels))
    summary = drift_check.run(labels={"data": drift_check.uri("labels/"), "format": "jsonlines"})
    right = sum(
        (late > 0.5) == (label == "late") for late, label in zip(table["prediction"], labels["label"], strict=False)
    )
    measured = summary.measured_accuracy
    assert (measured.rows, measured.measured) == (1500, True)
    assert measured.estimate == pytest.approx(right / 1500)
    assert measured.low < measured.estimate < measured.high
    # The model is calibrated here, so what its confidence says should be near what came true.
    assert summary.estimated_accuracy.estimate == pytest.approx(measured.estimate, abs=0.04)


def test_labels_of_captured_requests_are_joined_by_inference_id(drift_check):
    labels = capture(drift_check, 1000, 3, start=NOON, shift=6)
    drift_check.put("labels.csv", tables.as_csv(labels))
    summary = drift_check.run(
        {"data_interval_start": NOON, "data_interval_end": NOON + timedelta(hours=1)},
        capture_s3_uri=drift_check.uri("capture"),
        endpoint_name="flights",
        labels={"data": drift_check.uri("labels.csv")},
    )
    assert summary.measured_accuracy.rows == 1000
    assert summary.measured_accuracy.estimate > 0.7
