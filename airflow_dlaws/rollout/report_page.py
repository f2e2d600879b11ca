"""The report of a rollout as one page: traffic, harm and evidence over time, and who decided what.

What needs a person's attention stands first; every look is at the end, folded. No network, no scripts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from airflow_dlaws.page import (
    Mark,
    Series,
    bar_chart,
    entries,
    folded,
    line_chart,
    page,
    paragraph,
    section,
    table,
    tiles,
    wide,
)
from airflow_dlaws.rollout.report import RolloutRecord, RolloutReport
from airflow_dlaws.rollout.result import RolloutOutcome
from airflow_dlaws.rollout.shadow import ShadowEvidence
from airflow_dlaws.rollout.state import Look
from airflow_dlaws.rollout.timeline import TimelineRow

#: More rows say nothing more; the JSON has all of them.
_MOST_ROWS = 200
#: Evidence against harm grows without end; below one in a thousand it says nothing more.
_LEAST_POWER = -3.0
_X = "minutes since the start"
_TONES = {
    RolloutOutcome.PROMOTED: "good",
    RolloutOutcome.UNDER_WAY: "",
    RolloutOutcome.INCONCLUSIVE: "warn",
}


def to_html(report: RolloutReport) -> str:
    """Return the report as one self-contained page."""
    result, record = report.result, report.record
    return page(
        f"Rollout on {result.endpoint_name}: {result.outcome.replace('_', ' ')}",
        result.reason or record.state.evidence.reason,
        tiles(_tiles(report)),
        section("What happened", _steps(record), _read_back(record)),
        *([section("Shadow", *_shadow(shadow))] if (shadow := record.state.shadow) else []),
        section("Traffic", _share_chart(record), _traffic_chart(record)),
        section("Errors", _error_chart(record)),
        section("Latency", _latency_chart(record)),
        section("Predictions", *_predictions(record)),
        section("Evidence", _evidence_chart(record), paragraph(_BET, tone="muted")),
        section("Models", wide(_facts(report))),
        folded(f"All looks that are kept ({len(record.looks)})", wide(_looks_table(record))),
        tone=_TONES.get(result.outcome, "bad"),
    )


_BET = (
    "Each line is what a bet against green has made of a stake of 1: below 1 green behaves, and at 1/alpha, all bets "
    "together, it is rolled back. Looking more often does not make that likelier."
)


def _tiles(report: RolloutReport) -> Iterator[tuple[str, str, str]]:
    evidence, plan = report.record.state.evidence, report.record.plan
    yield "requests to green", f"{evidence.green_requests}", f"blue: {evidence.blue_requests}"
    green, blue = (
        _per_cent(errors, requests)
        for errors, requests in (
            (evidence.green_errors, evidence.green_requests),
            (evidence.blue_errors, evidence.blue_requests),
        )
    )
    yield "green answered 5xx", green, f"blue: {blue}"
    if evidence.green_timed:
        slow = _per_cent(evidence.green_slow, evidence.green_timed)
        yield "green, slow", slow, f"blue: {_per_cent(evidence.blue_slow, evidence.blue_timed)}; 5% were before"
    if evidence.predictions and evidence.predictions.distance is not None:
        most = f"allowed: {plan.largest_prediction_shift:.0%}"
        yield "predictions differ by", f"{evidence.predictions.distance:.1%}", most
    odds = math.exp(min(evidence.log_evidence, 30.0))
    yield "evidence for harm", f"{odds:.3g} to 1", f"{1 / plan.alpha:.3g} to 1 rolls back"


def _shadow(shadow: ShadowEvidence) -> Iterator[str]:
    """Tell what was seen before any user met green."""
    served, answers = shadow.served, shadow.answers
    yield paragraph(f"{shadow.verdict.value}: {shadow.reason}.")
    rows = [
        (
            "shadow (green)",
            served.green_requests,
            served.green_errors,
            _per_cent(served.green_slow, served.green_timed),
        ),
        ("production", served.blue_requests, served.blue_errors, _per_cent(served.blue_slow, served.blue_timed)),
    ]
    yield wide(table(("variant", "requests", "answered 5xx", "slower than blue's 95 % before"), rows))
    if answers.worst:
        worst = [(pair.event, pair.production, pair.shadow) for pair in answers.worst]
        yield wide(table(("request", "production answered", "the shadow answered"), worst))


def _per_cent(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if whole else "-"


def _steps(record: RolloutRecord) -> str:
    """List where the rollout took a step, and what people asked for."""
    looks, state = record.looks, record.state
    changes = [after for before, after in itertools.pairwise(looks) if _differs(before, after)]
    rows = [
        (look.at, look.step.value.replace("_", " "), "this rollout", look.reason) for look in (*looks[:1], *changes)
    ]
    if state.wish is not None:
        rows.append((state.wish.at, f"asked to {state.wish.kind.value}", state.wish.by, state.wish.why))
    began = state.started_at
    told = [
        (f"{_clock(at)} UTC, after {(at - began) / 60:.1f} min: {what}, by {who}", why)
        for at, what, who, why in sorted(rows)
    ]
    alarms = "".join(paragraph(f"Alarm {alarm.name} was on: {alarm.reason}") for alarm in state.alarms)
    beforehand = paragraph(f"Told beforehand: {state.forecast}.", tone="muted") if state.forecast else ""
    return entries(told) + alarms + beforehand


def _differs(before: Look, after: Look) -> bool:
    return (before.step, before.action) != (after.step, after.action)


def _read_back(record: RolloutRecord) -> str:
    if not record.looks:
        return ""
    last = record.looks[-1]
    pending = f"{last.pending_config_name} pending" if last.pending_config_name else "nothing pending"
    return paragraph(
        f"Last read back at {_clock(last.at)} UTC: the endpoint was {last.status} on {last.config_name or 'nothing'}, "
        f"{pending}; asked for was {record.state.requested_config}."
    )


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")


def _facts(report: RolloutReport) -> str:
    result, state = report.result, report.record.state
    rows = [
        ("model package", result.model_package_arn),
        ("approval", result.approval or "none"),
        ("requested configuration (green)", result.endpoint_config_name),
        ("previous configuration (blue)", result.previous_endpoint_config_name or "none: first deployment"),
    ]
    if state.rehearsal and state.rehearsal.reason:
        rows.append((f"rehearsal, {state.rehearsal.verdict.value}", state.rehearsal.reason))
    if state.scaling:
        rows.append(("autoscaling", state.scaling.sentence))
    return table(("what", "name"), rows)


def _over_time(record: RolloutRecord, value: Callable[[TimelineRow], float | None]) -> list[tuple[float, float | None]]:
    began = record.state.started_at
    return [((row.start - began) / 60 + row.minutes / 2, value(row)) for row in record.timeline]


def _by_look(record: RolloutRecord, value: Callable[[Look], float | None]) -> list[tuple[float, float | None]]:
    return [((look.at - record.state.started_at) / 60, value(look)) for look in record.looks]


def _marks(record: RolloutRecord) -> list[Mark]:
    """Mark where the rollout took another step, and where a person spoke."""
    began = record.state.started_at
    changed = [after for before, after in itertools.pairwise(record.looks) if before.step != after.step]
    marks = [Mark((look.at - began) / 60, look.step.replace("_", " ")) for look in changed]
    wish = record.state.wish
    return [*marks, Mark((wish.at - began) / 60, wish.kind.value)] if wish else marks


def _share_chart(record: RolloutRecord) -> str:
    share = Series("green's share of the traffic", _by_look(record, lambda look: look.green_share))
    return line_chart([share], x_label=_X, y_label="share", marks=_marks(record), steps=True)


def _traffic_chart(record: RolloutRecord) -> str:
    if not record.timeline:
        return paragraph("No requests were counted.", tone="muted")
    blue = Series("blue", _over_time(record, lambda row: row.blue_requests / row.minutes))
    green = Series("green", _over_time(record, lambda row: row.green_requests / row.minutes))
    return line_chart([blue, green], x_label=_X, y_label="requests a minute")


def _error_chart(record: RolloutRecord) -> str:
    if not record.timeline:
        return paragraph("No requests were counted.", tone="muted")
    blue = Series("blue", _over_time(record, lambda row: _rate(row.blue_errors, row.blue_requests)))
    green = Series("green", _over_time(record, lambda row: _rate(row.green_errors, row.green_requests)))
    return line_chart([blue, green], x_label=_X, y_label="share answered 5xx", marks=_marks(record))


def _latency_chart(record: RolloutRecord) -> str:
    names = {
        "blue_p50": "blue, median",
        "green_p50": "green, median",
        "blue_p95": "blue, 95 %",
        "green_p95": "green, 95 %",
    }
    series = [
        Series(title, _over_time(record, lambda row, name=name: _milliseconds(getattr(row, name))))  # type: ignore[misc]
        for name, title in names.items()
    ]
    if not any(value is not None for each in series for _, value in each.points):
        return paragraph("No latencies were measured.", tone="muted")
    chart = line_chart(series, x_label=_X, y_label="milliseconds (ModelLatency)")
    unjudged = "Latency was not judged: blue gave too few answers in the hour before, or the plan asks for none."
    return chart if record.state.latency else chart + paragraph(unjudged, tone="muted")


def _predictions(record: RolloutRecord) -> Iterator[str]:
    state = record.state
    evidence, reference = state.evidence.predictions, state.predictions
    if reference is None:
        yield paragraph(
            f"Not judged: {state.unjudged or 'the plan does not ask for it, or nothing was moved'}.", tone="muted"
        )
        return
    if evidence is None or not (evidence.green_answers and evidence.blue_answers):
        yield paragraph("No minute was captured in which both fleets answered.", tone="muted")
        return
    yield paragraph(evidence.sentence + ".")
    names = [reference.name(cell) for cell in range(len(reference.counts))]
    blue = [count / evidence.blue_answers for count in evidence.blue_cells]
    green = [count / evidence.green_answers for count in evidence.green_cells]
    yield bar_chart(names, [("blue", blue), ("green", green)], y_label="share of answers")
    allowed = record.plan.largest_prediction_shift
    distance = Series("distance so far", _by_look(record, lambda look: look.prediction_distance))
    yield line_chart(
        [distance, Series("allowed", _by_look(record, lambda _: allowed), is_limit=True)],
        x_label=_X,
        y_label="total variation",
    )


def _evidence_chart(record: RolloutRecord) -> str:
    kinds: Sequence[tuple[str, Callable[[Look], float | None]]] = (
        ("all together", lambda look: look.log_evidence if look.verdict else None),
        ("errors", lambda look: look.log_error_evidence),
        ("latency", lambda look: look.log_latency_evidence),
        ("predictions", lambda look: look.log_prediction_evidence),
        ("business", lambda look: look.log_business_evidence),
    )
    series = [Series(name, [(x, _power(y)) for x, y in _by_look(record, value)]) for name, value in kinds]
    judged = [each for each in series if any(y is not None for _, y in each.points)]
    bar = -math.log10(record.plan.alpha)
    enough = Series(f"enough ({1 / record.plan.alpha:.3g} to 1)", _by_look(record, lambda _: bar), is_limit=True)
    return line_chart([*judged, enough], x_label=_X, y_label="evidence, power of ten", marks=_marks(record))


def _power(log: float | None) -> float | None:
    return None if log is None else max(log / math.log(10), _LEAST_POWER)


def _rate(errors: int, requests: int) -> float | None:
    return errors / requests if requests else None


def _milliseconds(microseconds: float | None) -> float | None:
    return None if microseconds is None else microseconds / 1000


def _looks_table(record: RolloutRecord) -> str:
    header = ("time", "after", "status", "step", "action", "green failed", "blue failed", "what was seen")
    rows = [
        (
            _clock(look.at),
            f"{look.at - record.state.started_at:.0f} s",
            look.status,
            look.step.value,
            look.action,
            f"{look.green_errors}/{look.green_requests}",
            f"{look.blue_errors}/{look.blue_requests}",
            look.reason,
        )
        for look in record.looks[-_MOST_ROWS:]
    ]
    return table(header, rows)
