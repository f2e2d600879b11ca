"""What is told about drift: a small summary for XCom and the asset event, and a report for people and programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from airflow_dlaws.drift.cells import FeatureProfile, NumericProfile, cell_labels, reference_cells
from airflow_dlaws.drift.comparison import Aspect, Comparison, Direction
from airflow_dlaws.drift.counts import FeatureCounts, TrafficCounts
from airflow_dlaws.drift.profile import ReferenceProfile
from airflow_dlaws.drift.settings import DriftSettings
from airflow_dlaws.drift.state import Look
from airflow_dlaws.drift.verdict import DriftVerdict
from airflow_dlaws.page import Series, bar_chart, line_chart, page, paragraph, section, table

FORMAT = "dlaws-drift-report/1"

#: A picture for each drifted feature, up to so many.
_MAX_PICTURES = 12


@dataclass(frozen=True, kw_only=True)
class DriftedFeature:
    """One drifted feature, by its strongest test."""

    name: str
    aspect: Aspect
    direction: Direction
    #: Population stability index.
    effect: float
    adjusted_p: float
    note: str


@dataclass(frozen=True, kw_only=True)
class DriftSummary:
    """What the sensor returns: small enough for XCom."""

    endpoint_name: str
    #: The endpoint configuration in service, or what else names the model.
    model: str
    sentence: str
    #: The largest effect first.
    features: tuple[DriftedFeature, ...]
    rows: int
    look: int
    #: The inferences that were judged, earliest and latest.
    window_from: datetime | None
    window_to: datetime | None
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
    #: The traffic that was judged.
    window: TrafficCounts
    #: Reference counts in the order of the cells of `window`, and what each cell holds, by feature.
    reference: Mapping[str, tuple[int, ...]]
    labels: Mapping[str, tuple[str, ...]]
    total_rows: int
    history: tuple[Look, ...]


def summarise(report: DriftReport, *, report_uri: str, report_html_uri: str) -> DriftSummary:
    """Return the small form of a report."""
    strongest: dict[str, Comparison] = {}
    for each in report.verdict.comparisons:
        if each.drifted:
            strongest.setdefault(each.feature, each)
    return DriftSummary(
        endpoint_name=report.endpoint_name,
        model=report.model,
        sentence=report.verdict.reason,
        features=tuple(
            DriftedFeature(
                name=each.feature,
                aspect=each.aspect,
                direction=each.direction,
                effect=each.effect,
                adjusted_p=each.adjusted_p,
                note=each.note,
            )
            for each in strongest.values()
        ),
        rows=report.window.rows,
        look=report.verdict.look,
        window_from=report.window.first,
        window_to=report.window.last,
        report_uri=report_uri,
        report_html_uri=report_html_uri,
    )


def reference_tables(profile: ReferenceProfile) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[str, ...]]]:
    """Return `reference` and `labels` of a report."""
    counts = {feature.name: tuple(reference_cells(feature)) for feature in profile.watched}
    return counts, {feature.name: tuple(cell_labels(feature)) for feature in profile.watched}


def as_html(report: DriftReport, profile: ReferenceProfile) -> str:
    """Return the report as a self-contained page."""
    verdict = report.verdict
    return page(
        f"Drift report: {report.endpoint_name}",
        verdict.reason,
        section("What to do", paragraph(_advice(report))),
        section("Tests, strongest first", _ranking(verdict)),
        *(section(name, _pictures(report, profile, name)) for name in _shown(verdict)),
        section("Effect by look", _over_time(report)),
        section("How this was judged", *map(paragraph, _method(report))),
        section("Captured traffic", _traffic(report)),
        tone="bad" if verdict.is_drift else "good",
    )


def _advice(report: DriftReport) -> str:
    if not report.verdict.is_drift:
        return "Nothing: the traffic is as the reference."
    if any(each.drifted and each.aspect is not Aspect.DISTRIBUTION for each in report.verdict.comparisons):
        first = (
            "Values are missing, new or out of range. Look first whether something upstream broke or changed its "
            "schema: retraining on broken data makes it the norm. "
        )
    else:
        first = "The mix of known values has changed. "
    return first + (
        "If the change is real, retrain on data of this period and let the evaluation decide whether the new model is "
        "better on it; the drift asset event starts the retrain DAG. If it is expected and harmless (a season, a "
        "campaign), widen the reference, raise min_effect, or leave the feature out with features=."
    )


def _ranking(verdict: DriftVerdict) -> str:
    header = ("feature", "looked at", "effect (PSI)", "adjusted p", "direction", "what changed", "drifted")
    rows = [
        (each.feature, each.aspect.value, each.effect, each.adjusted_p, each.direction.value, each.note, each.drifted)
        for each in verdict.comparisons
    ]
    return table(header, rows)


def _shown(verdict: DriftVerdict) -> list[str]:
    """Return the features to draw: the drifted ones, or where none is, the most changed."""
    names = list(verdict.drifted) or list(dict.fromkeys(each.feature for each in verdict.comparisons))[:3]
    return names[:_MAX_PICTURES]


def _pictures(report: DriftReport, profile: ReferenceProfile, name: str) -> str:
    feature = next(each for each in profile.watched if each.name == name)
    current = report.window.by_name[name]
    labels, before, now = _with_outer_cells(feature, current)
    return bar_chart(labels, [("reference", _shares(before)), ("current", _shares(now))], y_label="share of rows")


def _with_outer_cells(profile: FeatureProfile, current: FeatureCounts) -> tuple[list[str], list[int], list[int]]:
    labels, reference, cells = cell_labels(profile), reference_cells(profile), list(current.cells)
    if isinstance(profile, NumericProfile):
        labels = ["below all", *labels, "above all"]
        reference, cells = [0, *reference, 0], [current.below, *cells, current.above]
    elif current.unseen:
        labels, reference, cells = [*labels, "unseen"], [*reference, 0], [*cells, current.unseen]
    if profile.missing or current.missing:
        labels, reference, cells = [*labels, "missing"], [*reference, profile.missing], [*cells, current.missing]
    return labels, reference, cells


def _shares(counts: list[int]) -> list[float]:
    return [count / max(1, sum(counts)) for count in counts]


def _over_time(report: DriftReport) -> str:
    looks = [look for look in report.history if look.effects]
    names = _shown(report.verdict)[:6]
    series = [Series(name, [(float(look.number), look.effects.get(name)) for look in looks]) for name in names]
    return line_chart(series, x_label="look", y_label="effect (PSI)")


def _method(report: DriftReport) -> tuple[str, ...]:
    settings, verdict = report.settings, report.verdict
    return (
        f"A column is called drifted where a test is significant and its effect is large: a population stability index "
        f"of at least {settings.min_effect}, or {settings.min_tail:.0%} more rows in the tail. The chance that traffic "
        f"that never changes ever raises an alarm is held at {settings.alpha}, for rows that are independent: over all "
        f"columns (Holm's correction), families of tests, looks and lengths of windows. This was look {verdict.look}; "
        f"an adjusted p had to reach {verdict.level:.2g}.",
        "Tests: Kolmogorov-Smirnov for numbers, chi-square for categories, Fisher's exact test for missing values, "
        "values that the reference does not have, and rows that hardly any of the reference is like.",
    )


def _traffic(report: DriftReport) -> str:
    window = report.window
    rows: list[tuple[object, ...]] = [
        ("inferences from", window.first),
        ("to", window.last),
        ("rows judged", window.rows),
        ("requests", window.requests),
        ("rows since this model is in service", report.total_rows),
        ("model", report.model),
        ("variant", report.variant_name),
        ("reference", report.reference_uri),
    ]
    faults = [(f"could not be used: {kind}", count) for kind, count in window.faults.items() if count]
    return table(("what", "value"), [*rows, *faults])
