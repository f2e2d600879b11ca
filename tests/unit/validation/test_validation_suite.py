"""Suites: what is refused before Great Expectations is asked, and where they may come from."""

from __future__ import annotations

import json

import pytest

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.operators.validation import DataValidationOperator
from airflow_dlaws.validation.suite import Expectation, Severity, parse_suite, parse_suite_text

NOT_NULL = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "a"}}


def test_an_expectation_is_critical_unless_it_says_otherwise():
    (first, second) = parse_suite([NOT_NULL, {**NOT_NULL, "severity": "warning"}])

    assert first.severity is Severity.CRITICAL
    assert second.severity is Severity.WARNING
    assert str(first) == "expect_column_values_to_not_be_null(a)"


def test_json_yaml_and_a_suite_document_mean_the_same():
    expected = (Expectation(type="expect_column_to_exist", kwargs={"column": "a"}, severity=Severity.WARNING),)
    entry = {"type": "expect_column_to_exist", "kwargs": {"column": "a"}, "severity": "warning"}
    as_json = json.dumps({"name": "s", "expectations": [entry]})
    as_yaml = "- type: expect_column_to_exist\n  kwargs: {column: a}\n  severity: warning\n"

    assert parse_suite_text(as_json, origin="s3://bucket/suite.json") == expected
    assert parse_suite_text(as_yaml, origin="suite.yaml") == expected


@pytest.mark.parametrize(
    ("suite", "message"),
    [
        ("expect", "this one is a str"),
        ([], "no expectations"),
        (["expect_column_to_exist"], "expectation 1 is 'expect_column_to_exist'"),
        ([NOT_NULL, {"kwargs": {}}], "expectation 2 has type=None"),
        ([{**NOT_NULL, "kwargs": ["a"]}], "kwargs=.* must be a mapping"),
        ([{**NOT_NULL, "severity": "fatal"}], r"severity='fatal': it must be one of \['critical', 'warning'\]"),
        ([{**NOT_NULL, "column": "a"}], r"unknown keys \['column'\]"),
    ],
)
def test_a_malformed_suite_is_refused_when_the_dag_is_parsed(suite, message):
    with pytest.raises(SpecificationError, match=message):
        parse_suite(suite)
    if not isinstance(suite, str):
        with pytest.raises(SpecificationError, match=message):
            DataValidationOperator(task_id="v", data="s3://bucket/d/", suite=suite, report_s3_uri="s3://bucket/r")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": None}, "one of the two"),
        ({"manifest_s3_uri": "s3://bucket/m"}, "one of the two"),
        ({"data": "bucket/d"}, "'bucket/d' is no S3 location"),
        ({"format": "xml"}, "format='xml' is none of"),
        ({"max_rows": 0, "min_rows": 0}, "max_rows=0"),
        ({"max_rows": 10, "min_rows": 20}, "min_rows=20 must be from 0 to max_rows=10"),
        ({"on_empty": "ignore"}, "on_empty='ignore'"),
        ({"report_s3_uri": "reports"}, "'reports' is no S3 location"),
    ],
)
def test_arguments_that_cannot_work_are_refused_when_the_dag_is_parsed(changes, message):
    options = {"data": "s3://bucket/d/", "suite": [NOT_NULL], "report_s3_uri": "s3://bucket/r", **changes}

    with pytest.raises(SpecificationError, match=message):
        DataValidationOperator(task_id="v", **options)


def test_templates_are_left_for_the_task():
    operator = DataValidationOperator(
        task_id="v",
        data=["s3://{{ params.bucket }}/{{ ds }}/"],
        suite="{{ params.suite }}",
        report_s3_uri="s3://{{ params.bucket }}/reports/{{ ds }}",
    )

    assert operator.data == ["s3://{{ params.bucket }}/{{ ds }}/"]
