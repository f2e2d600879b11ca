"""DataValidationOperator on real objects in S3, with the real Great Expectations."""

from __future__ import annotations

import gzip
import io
import json

import pandas as pd
import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from running_task import RunningTask, aws_environment

from airflow_dlaws.jobs import wire
from airflow_dlaws.operators.validation import DataValidationOperator
from airflow_dlaws.validation.report import ValidationReport, ValidationResult

FLIGHTS = "late,dep_delay,origin\n0,1.5,JFK\n1,40,LGA\n0,-3,EWR\n1,,JFK\n"
ORIGINS = {
    "type": "expect_column_values_to_be_in_set",
    "kwargs": {"column": "origin", "value_set": ["JFK", "LGA", "EWR"]},
}
DELAYS = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "dep_delay"}}
QUANTILES = {
    "type": "expect_column_quantile_values_to_be_between",
    "kwargs": {"column": "dep_delay", "quantile_ranges": {"quantiles": [0.5], "value_ranges": [[-60, 60]]}},
}


class Validation:
    """Runs the operator on objects of one bucket."""

    def __init__(self, s3, bucket):
        self.s3, self.bucket = s3, bucket
        self.task = RunningTask()

    def put(self, key, body):
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)

    def run(self, suite, **options) -> ValidationResult:
        operator = DataValidationOperator(
            task_id="validate",
            aws_conn_id=None,
            suite=suite,
            report_s3_uri=f"s3://{self.bucket}/reports",
            **({"data": f"s3://{self.bucket}/flights/"} | options),
        )
        return wire.from_json(ValidationResult, operator.execute(self.task.context))

    def reports(self) -> list[str]:
        listed = self.s3.list_objects_v2(Bucket=self.bucket, Prefix="reports/")
        return [row["Key"] for row in listed["Contents"]]

    def report(self) -> ValidationReport:
        (key,) = [each for each in self.reports() if each.endswith("/validation.json")]
        body = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return wire.from_json(ValidationReport, json.loads(body))


@pytest.fixture
def validation(local_aws, bucket, monkeypatch):
    aws_environment(monkeypatch, local_aws)
    made = Validation(local_aws.client("s3"), bucket)
    made.put("flights/month=2013-01/flights.csv", FLIGHTS)
    return made


def test_good_data_pass_with_report_page_and_the_version_read(validation):
    validation.s3.put_bucket_versioning(Bucket=validation.bucket, VersioningConfiguration={"Status": "Enabled"})
    validation.put("flights/month=2013-02/flights.csv", FLIGHTS)
    version = validation.s3.head_object(Bucket=validation.bucket, Key="flights/month=2013-02/flights.csv")["VersionId"]
    validation.put("flights/month=2013-02/_SUCCESS", "")

    result = validation.run([ORIGINS, QUANTILES])

    assert (result.passed, result.rows, result.object_count, result.warnings) == (True, 8, 2, ())
    assert [each.version.version_id for each in result.objects] == [None, version]
    assert [each.rows for each in result.objects] == [4, 4]
    assert validation.report().great_expectations_version.startswith("1.")
    page = validation.s3.get_object(Bucket=validation.bucket, Key=result.data_docs_uri.split("/", 3)[3])
    assert page["ContentType"].startswith("text/html")
    assert b"Data validation passed" in page["Body"].read()
    assert "/validation.html?" in validation.task.pushed["_link_ReportLink"]


def test_a_critical_expectation_fails_for_good_with_what_was_seen(validation):
    with pytest.raises(AirflowFailException) as failure:
        validation.run([ORIGINS, DELAYS])

    assert "expect_column_values_to_not_be_null(dep_delay): 1 of 4 rows are unexpected (25 %)" in str(failure.value)
    assert "/validation.html" in str(failure.value)
    assert validation.task.pushed["validation_result"]["passed"] is False
    assert [finding.met for finding in validation.report().findings] == [True, False]


def test_a_retry_writes_over_its_report_and_another_run_does_not(validation):
    for task in (RunningTask(), RunningTask(try_number=2), RunningTask(run_id="run-2")):
        validation.task = task
        validation.run([ORIGINS])

    assert len(validation.reports()) == 4


def test_a_warning_passes_and_is_reported(validation):
    result = validation.run([ORIGINS, {**DELAYS, "severity": "warning"}])

    assert result.passed
    assert [sentence.partition(":")[0] for sentence in result.warnings] == [
        "expect_column_values_to_not_be_null(dep_delay)"
    ]


def test_a_column_that_is_not_there_is_named(validation):
    missing = {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "arr_delay", "max_value": 5}}

    with pytest.raises(AirflowFailException, match=r"could not be measured: .*arr_delay.* does not exist"):
        validation.run([ORIGINS, missing])


def test_too_few_rows_fail(validation):
    with pytest.raises(AirflowFailException, match=r"expect_table_row_count_to_be_between\(\): observed 4"):
        validation.run([ORIGINS], min_rows=1000)


@pytest.mark.parametrize(
    ("expectation", "message"),
    [
        ({"type": "expect_column_values_to_not_be_nul", "kwargs": {"column": "a"}}, "did you mean .*_to_not_be_null"),
        (
            {"type": "expect_column_values_to_not_be_null", "kwargs": {"colum": "a"}},
            "colum: extra fields not permitted",
        ),
        ({"type": "expect_column_values_to_be_between", "kwargs": {"column": "a"}}, "min_value and max_value"),
    ],
)
def test_what_great_expectations_does_not_know_is_refused_before_data_are_read(validation, expectation, message):
    with pytest.raises(AirflowFailException, match=message):
        validation.run([ORIGINS, expectation], data=f"s3://{validation.bucket}/nothing-here/")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "is empty"),
        ("late,dep_delay,origin\n0,1,JFK\n0,1,JFK,9\n", "Expected 3 fields in line 3, saw 4"),
        ('late,dep_delay,origin\n0,1,"JFK\n', "cannot be read as csv"),
        (b"late,dep_delay,origin\n0,1,\xff\xfe\n", "cannot be read as csv"),
        ("late,arr_delay,origin\n0,1,JFK\n", r"lacks \['dep_delay'\] and adds \['arr_delay'\]"),
    ],
)
def test_an_object_that_cannot_be_read_is_named_with_the_reason(validation, body, message):
    validation.put("flights/month=2013-02/flights.csv", body)

    with pytest.raises(AirflowFailException, match=message) as failure:
        validation.run([ORIGINS])
    assert "flights/month=2013-02/flights.csv" in str(failure.value)


def test_no_data_fail_or_skip_as_asked(validation):
    nothing = f"s3://{validation.bucket}/flights/month=2014-01/"
    validation.put("flights-empty/flights.csv", "late,dep_delay,origin\n")

    with pytest.raises(AirflowFailException, match=f"no data at {nothing}"):
        validation.run([ORIGINS], data=nothing)
    with pytest.raises(AirflowSkipException, match="no data at"):
        validation.run([ORIGINS], data=nothing, on_empty="skip")
    with pytest.raises(AirflowFailException, match="headers and no rows"):
        validation.run([ORIGINS], data=f"s3://{validation.bucket}/flights-empty/")


def test_a_missing_bucket_is_named(validation):
    with pytest.raises(AirflowFailException, match="cannot list s3://no-such-bucket-here/flights/: NoSuchBucket"):
        validation.run([ORIGINS], data="s3://no-such-bucket-here/flights/")


def test_a_sagemaker_manifest_names_the_objects(validation):
    validation.put("flights/month=2013-02/flights.csv", FLIGHTS.replace("JFK", "XXX"))
    manifest = [{"prefix": f"s3://{validation.bucket}/flights/"}, "month=2013-01/flights.csv"]
    validation.put("train.manifest", json.dumps(manifest))

    result = validation.run([ORIGINS], data=None, manifest_s3_uri=f"s3://{validation.bucket}/train.manifest")

    assert (result.rows, result.object_count) == (4, 1)


def test_max_rows_looks_at_every_object_and_says_that_it_left_rows_out(validation):
    validation.put("flights/month=2013-02/flights.csv", FLIGHTS)

    result = validation.run([ORIGINS], max_rows=4)

    assert [each.rows for each in result.objects] == [2, 2]
    assert result.sampled


def test_parquet_and_compressed_csv_are_read(validation):
    frame = pd.read_csv(io.StringIO(FLIGHTS))
    body = io.BytesIO()
    frame.to_parquet(body)
    validation.put("parquet/flights.parquet", body.getvalue())
    validation.put("gzip/flights.csv.gz", gzip.compress(FLIGHTS.encode()))

    parquet = validation.run([ORIGINS], data=f"s3://{validation.bucket}/parquet/", format="parquet")
    compressed = validation.run([ORIGINS], data=f"s3://{validation.bucket}/gzip/")

    assert (parquet.rows, compressed.rows) == (4, 4)


def test_a_suite_is_read_from_s3_and_its_errors_name_it(validation):
    location = f"s3://{validation.bucket}/suites/flights.yaml"
    validation.put("suites/flights.yaml", "- type: expect_column_to_exist\n  kwargs: {column: late}\n")
    assert validation.run(location).passed

    validation.put("suites/flights.yaml", "- expect_column_to_exist: [late\n")
    with pytest.raises(AirflowFailException, match=rf"cannot read the suite {location}: no valid YAML"):
        validation.run(location)


def test_great_expectations_prints_nothing_into_the_task_log(validation, caplog, capfd):
    caplog.set_level("INFO")

    validation.run([ORIGINS])

    assert [record.name for record in caplog.records if record.name.startswith("great_expectations")] == []
    assert "Calculating Metrics" not in capfd.readouterr().err
