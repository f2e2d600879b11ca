"""The leaderboard as one HTML page: how the trials learnt, which one is best, what each of them cost."""

from __future__ import annotations

from airflow_dlaws.page import Series, line_chart, page, paragraph, section, table
from airflow_dlaws.sweeps.decide import describe
from airflow_dlaws.sweeps.leaderboard import Leaderboard, Standing
from airflow_dlaws.sweeps.spec import Direction

#: More lines than there are colours cannot be told apart; the table has all trials.
_DRAWN = 7


def render(board: Leaderboard) -> str:
    """Return the page."""
    state = "" if board.ended else " (running)"
    tone = "" if not board.ended else "good" if board.best else "bad"
    sections = [_curves(board), _table(board), _facts(board)]
    return page(f"Sweep of {board.objective}{state}", board.summary, *sections, tone=tone)


def _curves(board: Leaderboard) -> str:
    drawn = [standing for standing in board.standings if standing.reports]
    best = [Series(f"trial {standing.trial}", list(standing.reports)) for standing in drawn[:_DRAWN]]
    chart = line_chart(best, x_label=board.resource, y_label=board.objective)
    note = f"The best {len(best)} of {len(drawn)} trials that have reported." if len(drawn) > len(best) else ""
    return section("How they learnt", paragraph(note), chart)


def _table(board: Leaderboard) -> str:
    better = "lower" if board.direction is Direction.MINIMIZE else "higher"
    header = [
        "Trial",
        f"{board.objective} ({better} is better)",
        board.resource,
        "State",
        "Seconds",
        "Parameters",
        "Why",
    ]
    return section("Leaderboard", table(header, [_row(standing) for standing in board.standings]))


def _row(standing: Standing) -> list[object]:
    value = standing.last_value if standing.value is None else standing.value
    seconds = f"{standing.billable_seconds:.0f}"
    parameters = describe(standing.parameters)
    at = None if standing.at is None else f"{standing.at:g}"
    return [standing.trial, value, at, str(standing.state), seconds, parameters, standing.reason]


def _facts(board: Leaderboard) -> str:
    best = board.best
    rows = [
        ("Sweep", board.sweep),
        ("Searched by", board.engine),
        ("Ended because", f"{board.ending}: {board.ending_reason}" if board.ending else ""),
        ("Instance-seconds of all trials", f"{board.billable_seconds:.0f}"),
        ("Best trial's job", best.job_name if best else ""),
        ("Best trial's model", (best.artifact_uri or "") if best else ""),
    ]
    return section("Where it comes from", table(["", ""], [row for row in rows if row[1]]))
