"""The report of a rollout: what was asked, every look, and how it ended; as JSON and as one HTML page."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from airflow_dlaws.page import Mark, Series, line_chart, page, paragraph, section, table
from airflow_dlaws.rollout.plan import RolloutPlan
from airflow_dlaws.rollout.result import RolloutOutcome, RolloutResult
from airflow_dlaws.rollout.state import Look, RolloutState

#: More rows say nothing more; the JSON has all of them.
_MOST_ROWS = 200


@dataclass(frozen=True, kw_only=True)
class RolloutRecord:
    """The state file: all that another process needs to go on and to draw the report. Times are epoch seconds."""

    plan: RolloutPlan
    state: RolloutState
    looks: tuple[Look, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RolloutReport:
    """The report as data."""

    result: RolloutResult
    record: RolloutRecord


def to_html(report: RolloutReport) -> str:
    """Return the report as one self-contained page."""
    result, looks = report.result, report.record.looks
    began = report.record.state.started_at
    good = result.outcome is RolloutOutcome.PROMOTED
    return page(
        f"Rollout on {result.endpoint_name}: {result.outcome.replace('_', ' ')}",
        result.reason,
        section("Models", _facts(result)),
        section("Requests", _requests(report)),
        section("Traffic", _traffic_chart(looks, began)),
        section("Errors", _error_chart(looks, began)),
        section("Looks", _looks_table(looks, began)),
        tone="good" if good else "bad",
    )


def _facts(result: RolloutResult) -> str:
    return table(
        ("what", "name"),
        [
            ("model package", result.model_package_arn),
            ("requested configuration (green)", result.endpoint_config_name),
            ("previous configuration (blue)", result.previous_endpoint_config_name or "none: first deployment"),
        ],
    )


def _requests(report: RolloutReport) -> str:
    result, state = report.result, report.record.state
    evidence, forecast = state.evidence, state.forecast
    rows = [
        ("green", result.green_requests, result.green_errors, _rate(result.green_errors, result.green_requests),
         _rate(evidence.green_slow, evidence.green_timed)),
        ("blue", result.blue_requests, result.blue_errors, _rate(result.blue_errors, result.blue_requests),
         _rate(evidence.blue_slow, evidence.blue_timed)),
    ]  # fmt: skip
    slow = "slower than blue's 95 % before" if state.latency else "slow (not judged)"
    told = table(("fleet", "requests", "answered 5xx", "error rate", slow), rows)
    return told + (paragraph(f"Told beforehand: {forecast}.") if forecast else "")


def _rate(errors: int, requests: int) -> float | None:
    return errors / requests if requests else None


def _traffic_chart(looks: Sequence[Look], began: float) -> str:
    share = Series("green's share of the traffic", [(look.at - began, look.green_share) for look in looks])
    return line_chart(
        [share], x_label="seconds since the start", y_label="share", marks=_marks(looks, began), steps=True
    )


def _error_chart(looks: Sequence[Look], began: float) -> str:
    green = [(look.at - began, _rate(look.green_errors, look.green_requests)) for look in looks]
    blue = [(look.at - began, _rate(look.blue_errors, look.blue_requests)) for look in looks]
    return line_chart(
        [Series("blue, so far", blue), Series("green, so far", green)],
        x_label="seconds since the start",
        y_label="share of requests answered 5xx",
        marks=_marks(looks, began),
    )


def _marks(looks: Sequence[Look], began: float) -> list[Mark]:
    """Mark where the rollout took another step."""
    pairs = itertools.pairwise(looks)
    return [
        Mark(after.at - began, after.step.replace("_", " ")) for before, after in pairs if before.step != after.step
    ]


def _looks_table(looks: Sequence[Look], began: float) -> str:
    header = ("time", "after", "status", "step", "action", "green failed", "blue failed", "what was seen")
    rows = [
        (
            datetime.fromtimestamp(look.at, UTC).strftime("%H:%M:%S"),
            f"{look.at - began:.0f} s",
            look.status,
            look.step.value,
            look.action,
            f"{look.green_errors}/{look.green_requests}",
            f"{look.blue_errors}/{look.blue_requests}",
            look.reason,
        )
        for look in looks[-_MOST_ROWS:]
    ]
    return table(header, rows)
