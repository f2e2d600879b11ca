"""What both fleets did over time, in bounded space: what the report draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from airflow_dlaws.rollout.analysis import Minute
from airflow_dlaws.rollout.state import Look

#: Points across a chart; more cannot be told apart, and eight hours are 480 minutes.
MOST_ROWS = 240
#: Looks that are kept; enough for two hours of a look each half minute.
MOST_LOOKS = 240


@dataclass(frozen=True, kw_only=True)
class TimelineRow:
    """Some minutes of both fleets. `start` is in epoch seconds, latencies are in microseconds."""

    start: int
    minutes: int = 1
    green_requests: int = 0
    green_errors: int = 0
    blue_requests: int = 0
    blue_errors: int = 0
    green_p50: float | None = None
    green_p95: float | None = None
    blue_p50: float | None = None
    blue_p95: float | None = None


def timeline_of(minutes: Sequence[Minute], most: int = MOST_ROWS) -> tuple[TimelineRow, ...]:
    """Return at most `most` rows, each of as many minutes as that takes; latencies are those of the slowest minute."""
    if not minutes:
        return ()
    first = minutes[0].start
    span = (minutes[-1].start - first) // 60 + 1
    width = -(-span // most)
    groups: dict[int, list[Minute]] = {}
    for minute in minutes:
        groups.setdefault((minute.start - first) // (60 * width), []).append(minute)
    return tuple(_row(first + 60 * width * place, width, group) for place, group in sorted(groups.items()))


def _row(start: int, width: int, minutes: Sequence[Minute]) -> TimelineRow:
    def slowest(name: str) -> float | None:
        return max(
            (value for value in (getattr(minute, name) for minute in minutes) if value is not None), default=None
        )

    return TimelineRow(
        start=start,
        minutes=width,
        green_requests=sum(minute.green_requests for minute in minutes),
        green_errors=sum(minute.green_errors for minute in minutes),
        blue_requests=sum(minute.blue_requests for minute in minutes),
        blue_errors=sum(minute.blue_errors for minute in minutes),
        green_p50=slowest("green_p50"),
        green_p95=slowest("green_p95"),
        blue_p50=slowest("blue_p50"),
        blue_p95=slowest("blue_p95"),
    )


def thinned(looks: Sequence[Look], most: int = MOST_LOOKS) -> tuple[Look, ...]:
    """Return fewer looks: the newest, of the older ones every second, and those at which something changed.

    Applied at each look, what is long past grows sparser and sparser, and what was decided stays.
    """
    if len(looks) <= most:
        return tuple(looks)
    old, new = looks[: -most // 2], looks[-most // 2 :]
    kept = [look for place, look in enumerate(old) if place % 2 == 0 or _says_something(old[max(0, place - 1)], look)]
    return (*kept[-most:], *new)


def _says_something(before: Look, look: Look) -> bool:
    return (before.step, before.action, before.status, before.verdict) != (
        look.step, look.action, look.status, look.verdict
    )  # fmt: skip
