"""The part of the drift report that is about the looks before: effects, windows, and the alpha that was spent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from airflow_dlaws.drift.report import DriftReport, strongest_tests
from airflow_dlaws.drift.state import Look
from airflow_dlaws.drift.verdict import DriftOutcome
from airflow_dlaws.page import Mark, Series, folded, line_chart, paragraph, section, table

#: More lines than colours cannot be told apart; more rows nobody reads.
_MAX_LINES, _MAX_LOOKS, _MAX_MARKS = 6, 40, 3


def over_time(report: DriftReport) -> Iterable[str]:
    """Return the section, where there is more than this one look."""
    if not report.history:
        return
    looks = [look for look in report.history if look.effects]
    names = [name for name in strongest_tests(report.verdict) if any(name in look.effects for look in looks)]
    series = [
        Series(name, [(float(look.number), look.effects.get(name)) for look in looks]) for name in names[:_MAX_LINES]
    ]
    alarms = [look for look in looks if look.outcome is DriftOutcome.DRIFT][-_MAX_MARKS:]
    chart = line_chart(series, x_label="look", y_label="effect (PSI)", marks=[_mark(look) for look in alarms])
    spent = sum(look.alpha_spent for look in report.history)
    sentence = (
        f"{len(report.history)} looks, which spent {spent:.2g} of the {report.settings.alpha:g} that all looks "
        "together may ever spend."
    )
    shown = report.history[-_MAX_LOOKS:]
    rows = [_row(look) for look in reversed(shown)]
    header = ("look", "at", "outcome", "rows", "windows", "alpha spent", "largest effect")
    yield section(
        "Evidence over time", paragraph(sentence), chart, folded(f"The last {len(shown)} looks", table(header, rows))
    )


def _mark(look: Look) -> Mark:
    return Mark(float(look.number), "drift")


def _row(look: Look) -> tuple[object, ...]:
    outcome = look.outcome.value.replace("_", " ")
    return (
        look.number, f"{look.at:%Y-%m-%d %H:%M}", outcome, look.rows, look.windows, look.alpha_spent,
        _largest(look.effects),
    )  # fmt: skip


def _largest(effects: Mapping[str, float]) -> str:
    if not effects:
        return ""
    name, effect = max(effects.items(), key=lambda item: item[1])
    return f"{effect:.3f}, {name}"
