"""The evaluation report as one HTML page that needs nothing else: text, two tables, two inline SVG plots."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from airflow_dlaws.evaluation.metrics import Metric, ModelMetrics
from airflow_dlaws.evaluation.paired import PairedDifference
from airflow_dlaws.evaluation.report import CalibrationBin, EvaluationReport
from airflow_dlaws.evaluation.verdict import PROMOTING

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#1b1f24}
table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #d0d7de;padding:.3em .8em;text-align:left}
td.n{text-align:right;font-variant-numeric:tabular-nums}.pass{color:#1a7f37}.stop{color:#cf222e}
figure{display:inline-block;margin:0 2em 1em 0}figcaption{font-size:13px;color:#57606a}
"""
_CHALLENGER, _CHAMPION = "#0969da", "#bc4c00"


def render(report: EvaluationReport) -> str:
    """Return the page."""
    evaluation = report.evaluation
    kind = "pass" if evaluation.verdict in PROMOTING else "stop"
    title = f"Evaluation: {str(evaluation.verdict).replace('_', ' ')}"
    parts = [
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{escape(title)}</title>",
        f"<style>{_STYLE}</style></head><body><h1 class='{kind}'>{escape(title)}</h1>",
        f"<p>{escape(evaluation.reason)}</p>",
        _metrics_table(evaluation.challenger, evaluation.champion),
    ]
    if evaluation.difference is not None:
        parts.append(_interval_plot(evaluation.difference, report.criteria.margin, str(report.criteria.metric)))
    parts.append(_calibration_plot(report.challenger_calibration, report.champion_calibration))
    parts.append(_facts(report))
    return "".join(parts) + "</body></html>\n"


def _metrics_table(challenger: ModelMetrics, champion: ModelMetrics | None) -> str:
    rows = []
    for metric in Metric:
        old = "" if champion is None else _number(champion.value(metric))
        direction = "lower is better" if metric.lower_is_better else "higher is better"
        rows.append(
            f"<tr><td>{metric} ({direction})</td><td class='n'>{_number(challenger.value(metric))}</td>"
            f"<td class='n'>{old}</td></tr>"
        )
    return f"<table><tr><th>Metric</th><th>Challenger</th><th>Champion</th></tr>{''.join(rows)}</table>"


def _number(value: float | None) -> str:
    return "not measurable" if value is None else f"{value:.5f}"


def _interval_plot(difference: PairedDifference, margin: float, metric: str) -> str:
    """Draw the improvement with its interval, the zero line, and the margin."""
    left, right = min(difference.low, -margin, 0.0), max(difference.high, 0.0)
    span = (right - left) or 1.0

    def x(value: float) -> float:
        return 20 + 380 * (value - left) / span

    interval = f"<line x1='{x(difference.low):.1f}' x2='{x(difference.high):.1f}' y1='45' y2='45'"
    lines = [
        f"<line x1='{x(0):.1f}' x2='{x(0):.1f}' y1='15' y2='70' stroke='#57606a'/>",
        f"<text x='{x(0):.1f}' y='84' font-size='11' text-anchor='middle'>0</text>",
        f"{interval} stroke='{_CHALLENGER}' stroke-width='3'/>",
        f"<circle cx='{x(difference.improvement):.1f}' cy='45' r='5' fill='{_CHALLENGER}'/>",
    ]
    if margin > 0:
        lines.append(
            f"<line x1='{x(-margin):.1f}' x2='{x(-margin):.1f}' y1='15' y2='70' stroke='#cf222e' "
            f"stroke-dasharray='4'/><text x='{x(-margin):.1f}' y='12' font-size='11'>-margin</text>"
        )
    caption = f"Improvement of {escape(metric)} ({difference.method} interval); right of 0 the challenger is better"
    svg = f"<svg width='420' height='90' role='img'>{''.join(lines)}</svg>"
    return f"<figure>{svg}<figcaption>{caption}</figcaption></figure>"


def _calibration_plot(challenger: Sequence[CalibrationBin], champion: Sequence[CalibrationBin]) -> str:
    lines = [
        "<rect x='30' y='10' width='240' height='240' fill='none' stroke='#d0d7de'/>",
        "<line x1='30' y1='250' x2='270' y2='10' stroke='#d0d7de' stroke-dasharray='4'/>",
        _curve(champion, _CHAMPION),
        _curve(challenger, _CHALLENGER),
        f"<text x='40' y='30' font-size='12' fill='{_CHALLENGER}'>challenger</text>",
    ]
    if champion:
        lines.append(f"<text x='40' y='46' font-size='12' fill='{_CHAMPION}'>champion</text>")
    caption = "Calibration: share of label 1 (up) by predicted probability (right), in tenths"
    svg = f"<svg width='290' height='265' role='img'>{''.join(lines)}</svg>"
    return f"<figure>{svg}<figcaption>{caption}</figcaption></figure>"


def _curve(bins: Sequence[CalibrationBin], colour: str) -> str:
    points = [(30 + 240 * each.mean_predicted, 250 - 240 * each.share_positive) for each in bins]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{colour}'/>" for x, y in points)
    return f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'/>{dots}"


def _facts(report: EvaluationReport) -> str:
    evaluation, difference, exact = report.evaluation, report.evaluation.difference, report.evaluation.mcnemar
    facts = {
        "Rows": f"{evaluation.rows}, of which {evaluation.positives} with label 1",
        "Challenger": report.challenger_artifact,
        "Champion": report.champion_artifact or "none",
        "Champion's endpoint configuration": report.champion_endpoint_config or "none",
        "Evaluation data": ", ".join(report.data_uris),
        "Job": report.job_name,
        "Scores": report.scores_uri,
    }
    if difference is not None:
        facts["Detectable improvement"] = f"{difference.detectable:.5f} (in four of five evaluations of this size)"
    if exact is not None:
        facts["McNemar's exact test at 0.5"] = (
            f"right only by the challenger {exact.only_challenger_right}, only by the champion "
            f"{exact.only_champion_right}, p = {exact.p_value:.4g}"
        )
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts.items())
    return f"<table>{rows}</table>"
