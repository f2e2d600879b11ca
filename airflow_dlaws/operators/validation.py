"""Validating data before they are trained on: `DataValidationOperator`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow_dlaws._compat import AirflowSkipException, Context
from airflow_dlaws.errors import OutcomeUnacceptable, SpecificationError
from airflow_dlaws.jobs import wire
from airflow_dlaws.jobs.limits import is_template
from airflow_dlaws.links.aws import ReportLink, report_url
from airflow_dlaws.operators.base import DlawsOperator, airflow_errors, identity_of
from airflow_dlaws.storage import ObjectStore, S3Uri
from airflow_dlaws.validation import page
from airflow_dlaws.validation.gx import ExpectationChecker
from airflow_dlaws.validation.report import ValidationReport, ValidationResult, failure_message, result_of
from airflow_dlaws.validation.source import Batch, DataSource, NoData, find_objects, read_batch
from airflow_dlaws.validation.suite import Expectation, parse_suite, parse_suite_text

_ON_EMPTY = ("fail", "skip")


class DataValidationOperator(DlawsOperator):
    """Check tabular data in S3 against a suite of Great Expectations.

    A critical expectation that is not met fails the task for good, with what was observed; a warning passes, with the
    report. Both leave `validation.json` and `validation.html` in a folder of this task's own under `report_s3_uri`.
    Data are read on the worker, one object at a time, and must fit into memory as one table; `max_rows` bounds them.

    Returns a :class:`~airflow_dlaws.validation.report.ValidationResult` as JSON. Where it fails, the same result is
    under the XCom key `validation_result`.

    :param data: objects or prefixes in S3 (s3://bucket/key), one or several.
    :param manifest_s3_uri: a SageMaker ManifestFile in S3 that names the objects, in place of `data`.
    :param format: "csv" or "parquet".
    :param suite: list of {"type": "expect_...", "kwargs": {...}, "severity": "critical" | "warning"}, or the path or
        S3 location of a JSON or YAML file that holds one.
    :param report_s3_uri: prefix that the reports of all runs are written under.
    :param read_options: more arguments of pandas' `read_csv` or `read_parquet`, such as {"header": None}.
    :param max_rows: read at most this many rows, spread over all objects; the report says so.
    :param min_rows: fewer rows than this fail the task, as a critical expectation.
    :param on_empty: "fail" or "skip" where there are no data.
    """

    template_fields: Sequence[str] = ("data", "manifest_s3_uri", "suite", "report_s3_uri", "read_options")
    operator_extra_links = (ReportLink(),)
    ui_color = "#e8f1e4"

    def __init__(
        self,
        *,
        data: str | Sequence[str] | None = None,
        manifest_s3_uri: str | None = None,
        format: str = "csv",
        suite: str | Sequence[Mapping[str, Any]] | Mapping[str, Any],
        report_s3_uri: str,
        read_options: Mapping[str, Any] | None = None,
        max_rows: int | None = None,
        min_rows: int = 1,
        on_empty: str = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.data = data
        self.manifest_s3_uri = manifest_s3_uri
        self.format = format
        self.suite = suite
        self.report_s3_uri = report_s3_uri
        self.read_options = read_options
        self.max_rows = max_rows
        self.min_rows = min_rows
        self.on_empty = on_empty
        self._refuse_early()

    def execute(self, context: Context) -> dict[str, Any]:
        """Read, check, report; fail where a critical expectation is not met."""
        with airflow_errors():
            s3 = self.aws.client("s3")
            store = ObjectStore(s3)
            source = self._source()
            checker = ExpectationChecker(self._expectations(store))
            try:
                batch = read_batch(store, source, find_objects(store, source))
            except NoData as error:
                if self.on_empty == "skip":
                    raise AirflowSkipException(str(error)) from error
                raise
            report = self._report(checker, batch)
            result = self._publish(context, store, report)
            address = report_url(s3, S3Uri.parse(result.data_docs_uri))
            ReportLink.store(context, address)
            for finding in report.warnings:
                self.log.warning("Not met, and only a warning: %s", finding.sentence)
            document: dict[str, Any] = wire.to_json(result)
            if not report.passed:
                context["ti"].xcom_push(key="validation_result", value=document)
                raise OutcomeUnacceptable(failure_message(report, address=address))
            self.log.info("%d rows meet %d expectations. Report: %s", result.rows, result.expectations, address)
            return document

    def _refuse_early(self) -> None:
        """Refuse at parse time what is known by then to be wrong."""
        if self.on_empty not in _ON_EMPTY:
            raise SpecificationError(f"on_empty={self.on_empty!r} is none of {list(_ON_EMPTY)}")
        if self.min_rows < 0 or (self.max_rows is not None and self.max_rows < self.min_rows):
            raise SpecificationError(f"min_rows={self.min_rows} must be from 0 to max_rows={self.max_rows}")
        if not is_template(self.report_s3_uri):
            S3Uri.parse(self.report_s3_uri)
        if not is_template([self.data, self.manifest_s3_uri, self.read_options]):
            self._source()
        if not isinstance(self.suite, str) and not is_template(self.suite):
            parse_suite(self.suite)

    def _source(self) -> DataSource:
        locations = (self.data,) if isinstance(self.data, str) else tuple(self.data or ())
        return DataSource(
            locations=locations,
            manifest=self.manifest_s3_uri or None,
            format=self.format,
            read_options=dict(self.read_options or {}),
            max_rows=self.max_rows,
        )

    def _expectations(self, store: ObjectStore) -> tuple[Expectation, ...]:
        suite = self._read_suite(store)
        if self.min_rows <= 1:
            # No rows at all is `on_empty`'s to decide.
            return suite
        enough = Expectation(type="expect_table_row_count_to_be_between", kwargs={"min_value": self.min_rows})
        return (*suite, enough)

    def _read_suite(self, store: ObjectStore) -> tuple[Expectation, ...]:
        if not isinstance(self.suite, str):
            return parse_suite(self.suite)
        if self.suite.startswith("s3://"):
            return parse_suite_text(store.read(S3Uri.parse(self.suite)).decode(), origin=self.suite)
        if self.suite.lstrip().startswith(("[", "{")):
            return parse_suite_text(self.suite, origin="given as text")
        path = Path(self.suite)
        if not path.is_file():
            raise SpecificationError(
                f"suite={self.suite!r} is no file on the worker: give a list, a path, or an s3:// location"
            )
        return parse_suite_text(path.read_text(), origin=self.suite)

    def _report(self, checker: ExpectationChecker, batch: Batch) -> ValidationReport:
        return ValidationReport(
            findings=checker.check(batch.frame),
            rows=len(batch.frame),
            columns=tuple(str(name) for name in batch.frame.columns),
            objects=batch.objects,
            sampled=batch.sampled,
            suite_origin=self.suite if isinstance(self.suite, str) and len(self.suite) < 200 else "in the DAG file",
            great_expectations_version=checker.version,
        )

    def _publish(self, context: Context, store: ObjectStore, report: ValidationReport) -> ValidationResult:
        # A folder for each task of each run: lineage points here, so no later run may write over it.
        prefix = S3Uri.parse(self.report_s3_uri) / identity_of(context).name("validation", role="report")
        document, html = prefix / "validation.json", prefix / "validation.html"
        store.write_json(document, wire.to_json(report))
        store.write(html, page.render(report).encode(), content_type="text/html; charset=utf-8")
        return result_of(report, report_uri=str(document), data_docs_uri=str(html))
