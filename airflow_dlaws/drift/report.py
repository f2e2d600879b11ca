"""What is told about drift: a small summary for XCom and the asset event, and a report for people and programs.

Here are the documents; drift/report_page.py makes a page of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from airflow_dlaws.drift.accuracy import AccuracyEstimate
from airflow_dlaws.drift.cells import cell_labels, reference_cells
from airflow_dlaws.drift.comparison import Aspect, Comparison, Direction, Measure
from airflow_dlaws.drift.counts import TrafficCounts
from airflow_dlaws.drift.outside import OutsideFinding
from airflow_dlaws.drift.profile import ReferenceProfile
from airflow_dlaws.drift.readiness import lost_rows
from airflow_dlaws.drift.settings import DriftSettings
from airflow_dlaws.drift.state import Look
from airflow_dlaws.drift.verdict import DriftOutcome, DriftVerdict

FORMAT = "dlaws-drift-report/2"

#: A summary goes through XCom and asset events: of hundreds of drifted columns it names the strongest.
MAX_FEATURES = 50


@dataclass(frozen=True, kw_only=True)
class DriftedFeature:
    """One drifted column, by its strongest test."""

    name: str
    aspect: Aspect
    direction: Direction
    effect: float
    adjusted_p: float
    note: str
    #: What `effect` is counted in.
    measure: Measure = Measure.PSI


@dataclass(frozen=True, kw_only=True)
class DriftSummary:
    """What the sensor and the check return: small enough for XCom."""

    endpoint_name: str
    #: The endpoint configuration in service, or what else names the model.
    model: str
    outcome: DriftOutcome = DriftOutcome.DRIFT
    sentence: str
    #: The strongest first, at most MAX_FEATURES.
    features: tuple[DriftedFeature, ...]
    #: All drifted columns.
    drifted_count: int = 0
    rows: int
    lost_rows: int = 0
    look: int
    #: How many windows were judged together.
    windows: int = 1
    #: The inferences that were judged, earliest and latest.
    window_from: datetime | None
    window_to: datetime | None
    #: What the model's confidence says about its accuracy; None where the reference is not calibrated.
    estimated_accuracy: AccuracyEstimate | None = None
    #: On rows whose labels have arrived; None where none were looked for.
    measured_accuracy: AccuracyEstimate | None = None
    #: What Model Monitor and CloudWatch say, where they were asked.
    evidence: tuple[OutsideFinding, ...] = ()
    report_uri: str
    report_html_uri: str


@dataclass(frozen=True, kw_only=True)
class DriftReport:
    """The whole finding, stored as JSON beside its HTML."""

    format: str = FORMAT
    endpoint_name: str
    variant_name: str
    model: str
    reference_uri: str
    written: datetime
    settings: DriftSettings
    verdict: DriftVerdict
    #: The traffic that was judged: all of the windows that the verdict is about.
    window: TrafficCounts
    #: Reference counts in the order of the cells of `window`, and what each cell holds, by column.
    reference: Mapping[str, tuple[int, ...]]
    labels: Mapping[str, tuple[str, ...]]
    total_rows: int
    history: tuple[Look, ...] = ()
    #: The outcome and its sentence where more than the tests took part in them; else the verdict's own.
    outcome: DriftOutcome | None = None
    sentence: str = ""
    measured_accuracy: AccuracyEstimate | None = None
    evidence: tuple[OutsideFinding, ...] = ()
    #: What is odd about the data as a whole.
    notes: tuple[str, ...] = ()
    #: Where the data were read, and how many files.
    sources: tuple[str, ...] = field(default=())
    files: int = 0

    @property
    def conclusion(self) -> DriftOutcome:
        """The outcome that counts."""
        return self.outcome or self.verdict.outcome


def strongest_tests(verdict: DriftVerdict) -> dict[str, Comparison]:
    """Return each column's leading test: the order of the comparisons is the verdict's."""
    strongest: dict[str, Comparison] = {}
    for each in verdict.comparisons:
        strongest.setdefault(each.feature, each)
    return strongest


def summarise(report: DriftReport, *, report_uri: str, report_html_uri: str) -> DriftSummary:
    """Return the small form of a report."""
    verdict, window = report.verdict, report.window
    drifted = [each for each in strongest_tests(verdict).values() if each.drifted]
    return DriftSummary(
        endpoint_name=report.endpoint_name,
        model=report.model,
        outcome=report.conclusion,
        sentence=report.sentence or verdict.reason,
        features=tuple(_drifted(each) for each in drifted[:MAX_FEATURES]),
        drifted_count=len(drifted),
        rows=window.rows,
        lost_rows=lost_rows(window.faults),
        look=verdict.look,
        windows=verdict.windows,
        window_from=window.first,
        window_to=window.last,
        estimated_accuracy=verdict.accuracy,
        measured_accuracy=report.measured_accuracy,
        evidence=report.evidence,
        report_uri=report_uri,
        report_html_uri=report_html_uri,
    )


def _drifted(test: Comparison) -> DriftedFeature:
    return DriftedFeature(
        name=test.feature,
        aspect=test.aspect,
        direction=test.direction,
        effect=test.effect,
        adjusted_p=test.adjusted_p,
        note=test.note,
        measure=test.measure,
    )


def event_extra(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an asset event carries, of a summary as JSON: whoever starts on drift decides by it.

    `accuracy` is measured where labels were there, else estimated; None where neither is known.
    """
    accuracy = summary.get("measured_accuracy") or summary.get("estimated_accuracy")
    return {
        "endpoint_name": summary["endpoint_name"],
        "report_uri": summary["report_uri"],
        "report_html_uri": summary["report_html_uri"],
        "sentence": summary["sentence"],
        "features": [feature["name"] for feature in summary["features"]],
        "window_from": summary["window_from"],
        "window_to": summary["window_to"],
        "rows": summary["rows"],
        "accuracy": accuracy,
    }


def reference_tables(profile: ReferenceProfile) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[str, ...]]]:
    """Return `reference` and `labels` of a report."""
    counts = {column.name: tuple(reference_cells(column)) for column in profile.watched}
    return counts, {column.name: tuple(cell_labels(column)) for column in profile.watched}
