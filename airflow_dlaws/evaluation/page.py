"""The evaluation report as one HTML page: the verdict, both models' metrics, the interval, calibration, provenance."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_dlaws.evaluation.metrics import Metric
from airflow_dlaws.evaluation.report import CalibrationBin, EvaluationReport
from airflow_dlaws.evaluation.verdict import Verdict
from airflow_dlaws.page import Series, line_chart, page, paragraph, section, table

_TONES = {
    Verdict.BETTER: "good",
    Verdict.NOT_WORSE: "good",
    Verdict.NO_CHAMPION: "good",
    Verdict.INCONCLUSIVE: "warn",
    Verdict.WORSE: "bad",
    Verdict.BELOW_REQUIREMENTS: "bad",
}


def render(report: EvaluationReport) -> str:
    """Return the page."""
    evaluation = report.evaluation
    title = f"Evaluation: {str(evaluation.verdict).replace('_', ' ')}"
    sections = [_metrics(report), _comparison(report), _calibration(report), _provenance(report)]
    return page(title, evaluation.reason, *sections, tone=_TONES[evaluation.verdict])


def _metrics(report: EvaluationReport) -> str:
    challenger, champion = report.evaluation.challenger, report.evaluation.champion
    rows = [
        (
            f"{metric} ({'lower' if metric.lower_is_better else 'higher'} is better)",
            _number(challenger.value(metric)),
            "" if champion is None else _number(champion.value(metric)),
        )
        for metric in Metric
    ]
    counts = f"{report.evaluation.rows} rows, of which {report.evaluation.positives} have label 1."
    return section("Metrics", paragraph(counts), table(["Metric", "Challenger", "Champion"], rows))


def _number(value: float | None) -> str:
    return "not measurable" if value is None else f"{value:.5f}"


def _comparison(report: EvaluationReport) -> str:
    difference, exact = report.evaluation.difference, report.evaluation.mcnemar
    rows: list[tuple[str, str]] = [
        ("Compared on", str(report.criteria.metric)),
        ("Margin of not worse", f"{report.criteria.margin:g}"),
        ("Absolute requirements", ", ".join(f"{k}={v:g}" for k, v in report.criteria.requirements.items()) or "none"),
    ]
    if difference is not None:
        interval = f"{difference.low:+.5f} to {difference.high:+.5f} ({1 - difference.alpha:.0%}, {difference.method})"
        rows += [
            ("Improvement (positive: the challenger is better)", f"{difference.improvement:+.5f}"),
            ("Its interval", interval),
            ("Improvement seen in four of five evaluations of this size", f"{difference.detectable:.5f}"),
            ("Chance of an equal challenger to pass", f"{difference.power_of_margin(report.criteria.margin):.0%}"),
        ]
    if exact is not None:
        right = (
            f"{exact.only_challenger_right} only by the challenger, {exact.only_champion_right} only by the champion"
        )
        rows += [("Rows classified rightly at 0.5", right), ("McNemar's exact test", f"p = {exact.p_value:.4g}")]
    return section("Comparison on the same rows", table(["", ""], rows))


def _calibration(report: EvaluationReport) -> str:
    series = [Series("calibrated", [(0.0, 0.0), (1.0, 1.0)])]
    for name, bins in (("challenger", report.challenger_calibration), ("champion", report.champion_calibration)):
        if bins:
            series.append(Series(name, _points(bins)))
    chart = line_chart(series, x_label="predicted probability", y_label="share of label 1")
    return section("Calibration", chart)


def _points(bins: Sequence[CalibrationBin]) -> list[tuple[float, float | None]]:
    return [(each.mean_predicted, each.share_positive) for each in bins]


def _provenance(report: EvaluationReport) -> str:
    rows = [
        ("Challenger", report.challenger_artifact),
        ("Champion", report.champion.artifact_uri or "none"),
        ("Champion's endpoint", report.champion.endpoint or ""),
        ("Champion's endpoint configuration", report.champion.endpoint_config or ""),
        ("Champion's model package", report.champion.model_package or ""),
        ("Evaluation data", ", ".join(report.data_uris)),
        ("Job", report.job_name),
        ("Scores", report.scores_uri),
    ]
    return section("Where it comes from", table(["", ""], [row for row in rows if row[1]]))
