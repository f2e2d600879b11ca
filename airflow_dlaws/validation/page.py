"""The validation report as one HTML page. Great Expectations' own Data Docs page loads nine files from the internet."""

from __future__ import annotations

from airflow_dlaws.page import page, paragraph, section, table
from airflow_dlaws.validation.report import Finding, ValidationReport

#: A page of thousands of rows helps nobody; the JSON report has them all.
_OBJECTS_SHOWN = 500


def render(report: ValidationReport) -> str:
    """Return the page."""
    failed, warned = len(report.critical), len(report.warnings)
    state, tone = ("failed", "bad") if failed else ("passed with warnings", "warn") if warned else ("passed", "good")
    met = len(report.findings) - failed - warned
    lead = f"{met} of {len(report.findings)} expectations are met; {failed} critical and {warned} warnings are not."
    return page(f"Data validation {state}", lead, _scope(report), _findings(report), _objects(report), tone=tone)


def _scope(report: ValidationReport) -> str:
    part = " Only a part of the rows was read (max_rows)." if report.sampled else ""
    text = f"{report.rows} rows of {len(report.columns)} columns from {len(report.objects)} objects.{part}"
    origin = f"Suite: {report.suite_origin}. Great Expectations {report.great_expectations_version}."
    return section("What was checked", paragraph(text), paragraph(origin))


def _findings(report: ValidationReport) -> str:
    ordered = sorted(report.findings, key=lambda finding: (finding.met, not finding.critical))
    header = ["", "Expectation", "Column", "Arguments", "Found", "Why"]
    return section("Expectations", table(header, [_row(finding) for finding in ordered]))


def _row(finding: Finding) -> tuple[str, ...]:
    expectation = finding.expectation
    state = "met" if finding.met else str(expectation.severity)
    arguments = ", ".join(f"{key}={value!r}" for key, value in expectation.kwargs.items() if key != "column")
    found = finding.sentence.partition(": ")[2] if not finding.met or finding.observed is not None else ""
    return state, expectation.type, expectation.column, arguments, found, expectation.notes or ""


def _objects(report: ValidationReport) -> str:
    rows = [
        (each.version.uri, each.version.version_id or f"entity tag {each.version.etag}", each.version.size, each.rows)
        for each in report.objects[:_OBJECTS_SHOWN]
    ]
    more = len(report.objects) - len(rows)
    rest = paragraph(f"And {more} more, in the JSON report.") if more else ""
    return section("Objects read", table(["Object", "Version", "Bytes", "Rows"], rows), rest)
