"""The report: what fails, what warns, and what a failed task says."""

from __future__ import annotations

from airflow_dlaws.jobs import wire
from airflow_dlaws.storage import ObjectVersion
from airflow_dlaws.validation.page import render
from airflow_dlaws.validation.report import (
    Finding,
    ValidationReport,
    ValidationResult,
    failure_message,
    result_of,
)
from airflow_dlaws.validation.source import ReadObject
from airflow_dlaws.validation.suite import Expectation, Severity

IN_SET = Expectation(type="expect_column_values_to_be_in_set", kwargs={"column": "<o>", "value_set": ["JFK"]})
WARNED = Expectation(type="expect_column_to_exist", kwargs={"column": "b"}, severity=Severity.WARNING)


def report(*findings: Finding, objects: int = 1) -> ValidationReport:
    read = ReadObject(version=ObjectVersion(uri="s3://bucket/d/1.csv", etag="e", size=10, version_id="v1"), rows=4)
    return ValidationReport(findings=findings, rows=4 * objects, columns=("a",), objects=(read,) * objects)


FAILED = Finding(
    expectation=IN_SET, met=False, rows=4, unexpected=1, unexpected_percent=25.0, unexpected_sample=("XXX",)
)
MISSING = Finding(expectation=WARNED, met=False, error='The column "b" does not exist.')
MET = Finding(expectation=IN_SET, met=True, rows=4, unexpected=0, unexpected_percent=0.0)


def test_only_a_critical_finding_fails():
    assert report(MET).passed
    assert report(MET, MISSING).passed
    assert not report(MET, MISSING, FAILED).passed


def test_a_failure_names_expectation_column_share_sample_and_report():
    message = failure_message(report(MET, MISSING, FAILED), address="http://report")

    assert "1 of 3 expectations are critical and not met" in message
    assert "expect_column_values_to_be_in_set(<o>): 1 of 4 rows are unexpected (25 %); such as 'XXX'" in message
    assert "http://report" in message
    assert "does not exist" not in message


def test_a_long_list_of_failures_is_cut_and_counted():
    message = failure_message(report(*[FAILED] * 25), address="http://report")

    assert message.count("XXX") == 10
    assert "and 15 more" in message


def test_report_and_result_survive_json():
    full = report(MET, MISSING, FAILED)
    result = result_of(full, report_uri="s3://bucket/r.json", data_docs_uri="s3://bucket/r.html")

    assert wire.from_json(ValidationReport, wire.to_json(full)) == full
    assert wire.from_json(ValidationResult, wire.to_json(result)) == result
    assert result.warnings == ('expect_column_to_exist(b): could not be measured: The column "b" does not exist.',)


def test_the_result_does_not_grow_with_the_number_of_objects():
    result = result_of(report(MET, objects=5000), report_uri="s3://bucket/r.json", data_docs_uri="s3://bucket/r.html")

    assert (result.object_count, len(result.objects)) == (5000, 100)


def test_the_page_says_failed_first_and_escapes_names():
    page = render(report(MET, MISSING, FAILED))

    assert "Data validation failed" in page
    assert "&lt;o&gt;" in page
    assert page.index("critical</td>") < page.index("met</td>")
