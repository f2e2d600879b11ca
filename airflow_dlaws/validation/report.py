"""What a validation leaves behind: the small result in XCom, the full report in S3, and the sentence of a failure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from airflow_dlaws.validation.source import ReadObject
from airflow_dlaws.validation.suite import Expectation, Severity

#: The failure message goes to a log line and an alert; the report has the rest.
_FAILURES_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What came of one expectation."""

    expectation: Expectation
    met: bool
    #: Why it could not be measured at all (a column that is not there); empty where it could.
    error: str = ""
    observed: Any = None
    rows: int | None = None
    unexpected: int | None = None
    #: Of the rows that are not null, in per cent.
    unexpected_percent: float | None = None
    unexpected_sample: tuple[Any, ...] = ()

    @property
    def critical(self) -> bool:
        """Tell whether this finding fails the task."""
        return not self.met and self.expectation.severity is Severity.CRITICAL

    @property
    def sentence(self) -> str:
        """Say what was found."""
        if self.error:
            return f"{self.expectation}: could not be measured: {self.error}"
        parts = []
        if self.observed is not None:
            parts.append(f"observed {self.observed}")
        if self.unexpected is not None:
            share = "" if self.unexpected_percent is None else f" ({self.unexpected_percent:.3g} %)"
            parts.append(f"{self.unexpected} of {self.rows} rows are unexpected{share}")
        if self.unexpected_sample:
            parts.append(f"such as {', '.join(repr(value) for value in self.unexpected_sample[:5])}")
        return f"{self.expectation}: {'; '.join(parts) or 'not met'}"


@dataclass(frozen=True, kw_only=True)
class ValidationReport:
    """The whole validation, as stored in S3."""

    findings: tuple[Finding, ...]
    rows: int
    columns: tuple[str, ...]
    objects: tuple[ReadObject, ...]
    #: Whether only a part of the rows was looked at (`max_rows`).
    sampled: bool = False
    suite_origin: str = ""
    great_expectations_version: str = ""

    @property
    def critical(self) -> tuple[Finding, ...]:
        """The findings that fail the task."""
        return tuple(finding for finding in self.findings if finding.critical)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that are reported and pass."""
        return tuple(finding for finding in self.findings if not finding.met and not finding.critical)

    @property
    def passed(self) -> bool:
        """Tell whether every critical expectation is met."""
        return not self.critical


@dataclass(frozen=True, kw_only=True)
class ValidationResult:
    """The XCom of a validation."""

    passed: bool
    critical_failures: tuple[str, ...]
    warnings: tuple[str, ...]
    expectations: int
    rows: int
    sampled: bool
    object_count: int
    #: The first hundred objects; the report has all.
    objects: tuple[ReadObject, ...]
    report_uri: str
    data_docs_uri: str


#: XCom is no place for lists that grow with the data.
_OBJECTS_IN_XCOM = 100


def result_of(report: ValidationReport, *, report_uri: str, data_docs_uri: str) -> ValidationResult:
    """Return what goes into XCom."""
    return ValidationResult(
        passed=report.passed,
        critical_failures=_sentences(report.critical),
        warnings=_sentences(report.warnings),
        expectations=len(report.findings),
        rows=report.rows,
        sampled=report.sampled,
        object_count=len(report.objects),
        objects=report.objects[:_OBJECTS_IN_XCOM],
        report_uri=report_uri,
        data_docs_uri=data_docs_uri,
    )


def failure_message(report: ValidationReport, *, address: str) -> str:
    """Say which critical expectations are not met, what was observed, and where the report is."""
    failed = report.critical
    lines = [f"  - {finding.sentence}" for finding in failed[:_FAILURES_SHOWN]]
    if len(failed) > _FAILURES_SHOWN:
        lines.append(f"  - and {len(failed) - _FAILURES_SHOWN} more")
    head = (
        f"{len(failed)} of {len(report.findings)} expectations are critical and not met by the {report.rows} rows of "
        f"{len(report.objects)} objects:"
    )
    return "\n".join([head, *lines, f"Correct the data or the suite, then clear this task. Report: {address}"])


def _sentences(findings: Iterable[Finding]) -> tuple[str, ...]:
    return tuple(finding.sentence for finding in findings)
