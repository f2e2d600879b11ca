"""A check of files: the same whatever way the rows are cut into files, and the same out of the zip of a job."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from captured_traffic import captured, lines

import drift_table as tables
from airflow_dlaws.drift.batch import BatchFindings, BatchPlan, check
from airflow_dlaws.drift.container import ORDER, REFERENCE, VERDICT, order_document
from airflow_dlaws.drift.labels import Labelled, LabelPlan, Labels
from airflow_dlaws.drift.settings import DriftSettings
from airflow_dlaws.errors import OutcomeUnacceptable, SpecificationError
from airflow_dlaws.jobs.wire import from_json, to_json
from airflow_dlaws.launchers.drift_package import package_zip

SETTINGS = DriftSettings(min_rows=100)
PLAN = BatchPlan(format="csv", settings=SETTINGS)
NOON = datetime(2013, 7, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def reference():
    return tables.reference()


def files(*bodies):
    return [(f"s3://bucket/{number}.csv", io.BytesIO(body)) for number, body in enumerate(bodies)]


def part(table, start, end):
    return {name: values[start:end] for name, values in table.items()}


def test_rows_count_the_same_in_one_file_and_in_many(reference):
    table = tables.rows(1200, 2, shift=2)
    whole = check(reference, PLAN, files(tables.as_csv(table)))
    parts = [tables.as_csv(part(table, start, start + 97)) for start in range(0, 1200, 97)]
    cut = check(reference, PLAN, files(*parts))
    assert (cut.counts, cut.verdict) == (whole.counts, whole.verdict)
    assert (cut.files, whole.files) == (13, 1)


def test_label_and_confidence_follow_from_the_score(reference):
    table = tables.rows(1500, 2, shift=6)
    del table["label"]
    counts = check(reference, PLAN, files(tables.as_csv(table))).counts.by_name
    late = sum(score > 0.5 for score in table["prediction"])
    assert counts["predicted_label"].cells == (late, 1500 - late)  # the categories in order: "late", "on time"
    assert counts["confidence"].rows == counts["pca"].rows == 1500


def test_answers_that_are_not_there_are_not_watched(reference):
    table = {name: values for name, values in tables.rows(1500, 2).items() if name in tables.FEATURES}
    findings = check(reference, PLAN, files(tables.as_csv(table)))
    assert {each.feature for each in findings.verdict.comparisons} == {*tables.FEATURES, "pca"}
    assert findings.verdict.accuracy is None


def test_findings_survive_json(reference):
    plan = BatchPlan(format="csv", settings=SETTINGS, labels=LabelPlan())
    table = tables.rows(1200, 2, shift=2)
    labels = files(tables.as_csv({"id": table["id"], "label": table["label"]}))
    findings = check(reference, plan, files(tables.as_csv(table)), labels)
    assert findings.labelled is not None
    assert from_json(BatchFindings, json.loads(json.dumps(to_json(findings)))) == findings
    assert from_json(BatchPlan, json.loads(json.dumps(to_json(plan)))) == plan


def test_the_zip_of_a_job_finds_the_same_with_nothing_else_of_this_package_installed(reference, tmp_path):
    table = tables.rows(1200, 2, shift=2)
    body = tables.as_csv(table)
    for folder in ("check", "data", "labels"):
        (tmp_path / folder).mkdir()
    (tmp_path / "airflow_dlaws.zip").write_bytes(package_zip())
    (tmp_path / "check" / REFERENCE).write_text(json.dumps(reference.document()))
    (tmp_path / "check" / ORDER).write_text(json.dumps(order_document(PLAN, ["a.csv"], [])))
    (tmp_path / "data" / "a.csv").write_bytes(body)
    absent = ("boto3", "botocore", "airflow", "pandas", "scipy", "torch")
    program = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({absent!r})); sys.path.insert(0, sys.argv[1]); "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    names = ("airflow_dlaws.zip", "check", "data", "labels", "verdict", "output/message")
    command = [sys.executable, "-I", "-c", program, *(str(tmp_path / name) for name in names)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    left = from_json(BatchFindings, json.loads((tmp_path / "verdict" / VERDICT).read_text()))
    assert left == check(reference, PLAN, [("a.csv", io.BytesIO(body))])

    (tmp_path / "data" / "a.csv").write_bytes(b"colour\nred\n")
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == 1
    assert "none of the reference's columns" in (tmp_path / "output" / "message").read_text()


def test_the_same_code_gives_the_same_zip():
    assert package_zip() == package_zip()


def test_columns_that_the_reference_does_not_know_are_refused(reference):
    plan = BatchPlan(format="csv", settings=SETTINGS, columns={"dely": "delay"})
    with pytest.raises(SpecificationError, match=r"knows no \['dely'\]"):
        check(reference, plan, files(b"delay\n1\n"))


def test_labels_that_cannot_be_joined_are_refused_and_not_ignored(reference):
    plan = BatchPlan(format="csv", settings=SETTINGS, labels=LabelPlan(row_id_column="flight"))
    labels = files(b"id,label\nrow-2-0,late\n")
    with pytest.raises(OutcomeUnacceptable, match="no column 'flight'"):
        check(reference, plan, files(tables.as_csv(tables.rows(200, 2))), labels)
    with pytest.raises(OutcomeUnacceptable, match=r"no column \['label'\]"):
        Labels(LabelPlan(), files(b"id,late\n1,1\n"))


def test_each_label_is_used_once_and_what_is_without_its_other_half_is_counted():
    labels = Labels(LabelPlan(), files(b"id,label\na,late\nb,on time\nc,\nd,late\n"))
    labels.compare(["a", "b", "c", "a", None], ["late", "late", "late", "late", "late"])
    assert labels.result == Labelled(rows=2, right=1, without_label=3, without_answer=1)


def request(number, time, score="0.9"):
    document = captured("12.0,60.0,A", score, time=time.isoformat())
    return {**document, "eventMetadata": {"eventId": f"e{number}", "inferenceId": f"i{number}",
                                          "inferenceTime": time.isoformat()}}  # fmt: skip


def test_of_captured_requests_those_of_the_interval_count_each_once(reference):
    moments = [NOON + timedelta(minutes=minutes) for minutes in (-1, 0, 30, 59, 60)]
    body = lines(*(request(number, moment) for number, moment in enumerate(moments))) + b"junk\n"
    plan = BatchPlan(format="capture", settings=SETTINGS, start=NOON, end=NOON + timedelta(hours=1))
    delivered_twice = [("2013/07/01/12/a.jsonl", io.BytesIO(body)), ("2013/07/01/12/b.jsonl", io.BytesIO(body))]
    counts = check(reference, plan, delivered_twice).counts
    assert (counts.rows, counts.first, counts.last) == (3, moments[1], moments[3])
    assert counts.faults == {"bad_json": 1, "duplicate": 6}
