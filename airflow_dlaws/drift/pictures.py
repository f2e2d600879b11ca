"""Pictures of drift as inline SVG: one feature's reference and current values over each other, and features ranked.

A picture is drawn from cells, never from rows, and of a bounded number of shapes: it does not grow with the data.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from airflow_dlaws.drift.cells import CategoricalProfile, FeatureProfile, NumericProfile
from airflow_dlaws.drift.counts import FeatureCounts
from airflow_dlaws.page import COLOURS

REFERENCE_COLOUR, CURRENT_COLOUR = COLOURS[0], COLOURS[1]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 400, 190, 42, 8, 12, 26
#: Bars of a histogram: enough to see two humps, few enough that a page of two dozen pictures stays small.
_BARS = 40
#: What lies in the outermost hundredth of both sides would squeeze everything else into one bar.
_TAIL = 0.01
_CATEGORIES = 10
_LABEL = 22
#: A bar so much higher than the next is cut, and told as a number: a column that is mostly zero has a shape beside it.
_SPIKE = 2.5


@dataclass(frozen=True)
class _Bar:
    """One place on the x axis: what it holds, and its share of the reference's and of the current rows."""

    label: str
    reference: float
    current: float


def overlay(profile: FeatureProfile, counts: FeatureCounts) -> str:
    """Return reference and current of one feature over each other, as shares of their rows."""
    ends = _ends(profile, counts)
    if isinstance(profile, CategoricalProfile):
        return _rows_of_bars([*_categories(profile, counts), *ends])
    bars, ticks = _histogram(profile, counts)
    return _columns(bars, ends, ticks)


def legend() -> str:
    """Return what the colours of an overlay mean."""
    return (
        f'<div class="muted"><span class="key" style="background:{REFERENCE_COLOUR}"></span>reference'
        f'<span class="key" style="background:{CURRENT_COLOUR}"></span>current</div>'
    )


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A row of a ranking.

    :param size: in multiples of the least size that matters.
    :param told: the size as a text beside the bar.
    """

    name: str
    size: float
    told: str
    drifted: bool


def ranking(rows: Sequence[Ranked]) -> str:
    """Return a bar for each row, with a line at the size from which on a change matters."""
    left, right, height = 190, 110, 20
    # A size a hundred times as large as the line would hide it.
    top = min(max((row.size for row in rows), default=1.0), 40.0) or 1.0
    scale = (760 - left - right) / max(top, 1.25)
    shapes = [_ranked(n * height, row, min(row.size, top) * scale) for n, row in enumerate(rows)]
    x, bottom = left + scale, len(rows) * height
    line = (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{bottom}" stroke="#888" stroke-dasharray="4 3"/>'
        f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">matters from here on</text>'
    )
    return f'<svg viewBox="0 0 760 {bottom + 20}" role="img">{"".join(shapes)}{line}</svg>'


def _ranked(y: int, row: Ranked, width: float) -> str:
    colour = CURRENT_COLOUR if row.drifted else "#8a94a0"
    return (
        f'<text x="182" y="{y + 14}" text-anchor="end">{_short(row.name, 28)}</text>'
        f'<rect x="190" y="{y + 3}" width="{max(1.0, width):.1f}" height="14" fill="{colour}">'
        f"<title>{escape(row.name)}: {row.size:.3g} times what matters</title></rect>"
        f'<text x="{190 + max(1.0, width) + 6:.1f}" y="{y + 14}">{escape(row.told)}</text>'
    )


def _ends(profile: FeatureProfile, counts: FeatureCounts) -> list[_Bar]:
    """Return what stands beside the known values: beyond the reference's range, unseen, missing."""
    before, now = max(1, profile.rows), max(1, counts.rows)
    beside = [
        ("< min", 0, counts.below),
        ("> max", 0, counts.above),
        ("new values", 0, counts.unseen),
        ("missing", profile.missing, counts.missing),
    ]
    return [_Bar(label, then / before, here / now) for label, then, here in beside if then or here]


def _categories(profile: CategoricalProfile, counts: FeatureCounts) -> list[_Bar]:
    """Return the largest categories of both sides, and the rest as one."""
    before, now = max(1, profile.rows), max(1, counts.rows)
    names = sorted(profile.counts)
    bars = [
        _Bar(name, profile.counts[name] / before, cell / now) for name, cell in zip(names, counts.cells, strict=True)
    ]
    bars.sort(key=lambda bar: -max(bar.reference, bar.current))
    shown, rest = bars[:_CATEGORIES], bars[_CATEGORIES:]
    if rest:
        others = _Bar(f"{len(rest)} others", sum(bar.reference for bar in rest), sum(bar.current for bar in rest))
        shown.append(others)
    return shown


def _histogram(profile: NumericProfile, counts: FeatureCounts) -> tuple[list[_Bar], tuple[str, str, str]]:
    """Spread the cells over bars of equal width; also return what stands below the first, middle and last bar."""
    bounds = _bounds(profile)
    if bounds is None:
        return [], ("", "", "")
    left, right = _view(bounds, profile.counts, counts.cells)
    edges = [left + (right - left) * n / _BARS for n in range(_BARS + 1)]
    before = _spread(bounds, profile.counts, edges, max(1, profile.rows))
    now = _spread(bounds, counts.cells, edges, max(1, counts.rows))
    bars = [
        _Bar(f"{start:.4g} to {end:.4g}", then, here)
        for (start, end), then, here in zip(itertools.pairwise(edges), before, now, strict=True)
    ]
    return bars, (f"{left:.3g}", f"{(left + right) / 2:.3g}", f"{right:.3g}")


def _bounds(profile: NumericProfile) -> list[float] | None:
    if profile.low is None or profile.high is None:
        return None
    edges = list(profile.edges)
    low, high = profile.low, profile.high
    if len(edges) > 1:
        # An edge lies halfway between two values: the outermost of a few whole numbers gets a cell as wide as theirs.
        low, high = min(low, 2 * edges[0] - edges[1]), max(high, 2 * edges[-1] - edges[-2])
    if high <= low:
        low, high = low - 0.5, high + 0.5
    return [low, *edges, high]


def _view(bounds: Sequence[float], *sides: Sequence[int]) -> tuple[float, float]:
    """Return the range to draw: all but the outermost hundredth of each side."""
    lows, highs = [], []
    for cells in sides:
        if total := sum(cells):
            lows.append(_quantile(bounds, cells, _TAIL * total))
            highs.append(_quantile(bounds, cells, (1 - _TAIL) * total))
    left, right = min(lows, default=bounds[0]), max(highs, default=bounds[-1])
    return (left, right) if right > left else (bounds[0], bounds[-1])


def _quantile(bounds: Sequence[float], cells: Sequence[int], wanted: float) -> float:
    passed = 0
    for (start, end), count in zip(itertools.pairwise(bounds), cells, strict=True):
        if count and passed + count >= wanted:
            return start + (end - start) * max(0.0, wanted - passed) / count
        passed += count
    return bounds[-1]


def _spread(bounds: Sequence[float], cells: Sequence[int], edges: Sequence[float], rows: int) -> list[float]:
    """Return the share of the rows in each bar, each cell's rows lying evenly in it; the tails go to the outer bars."""
    shares, last, width = [0.0] * (len(edges) - 1), len(edges) - 2, edges[1] - edges[0]
    for (start, end), count in zip(itertools.pairwise(bounds), cells, strict=True):
        first = min(last, max(0, math.floor((start - edges[0]) / width)))
        final = min(last, max(0, math.floor((end - edges[0]) / width)))
        for bar in range(first, final + 1):
            begins = start if bar == 0 else max(start, edges[bar])
            ends = end if bar == last else min(end, edges[bar + 1])
            part = (ends - begins) / (end - start) if end > start else 1.0 / (final - first + 1)
            shares[bar] += max(0.0, part) * count / rows
    return shares


def _columns(bars: Sequence[_Bar], ends: Sequence[_Bar], ticks: tuple[str, str, str]) -> str:
    """Draw bars side by side as two steps over each other, and what lies beyond as pairs to their right."""
    room = 50 * len(ends)
    right = _WIDTH - _RIGHT - room
    top = _ceiling([value for bar in (*bars, *ends) for value in (bar.reference, bar.current)])
    scale = (_HEIGHT - _TOP - _BOTTOM) / top
    shapes = [_y_axis(top, right + room)]
    if bars:
        shapes += _steps(bars, right, scale, top)
        shapes += [
            f'<text x="{x:.1f}" y="{_HEIGHT - 10}" text-anchor="{anchor}">{escape(text)}</text>'
            for x, anchor, text in zip(
                (_LEFT, (_LEFT + right) / 2, right - 2), ("start", "middle", "end"), ticks, strict=True
            )
        ]
    for n, bar in enumerate(ends):
        shapes.append(_pair(bar, right + 50 * n + 10, scale, top))
    return _svg(shapes, _HEIGHT)


def _ceiling(values: Sequence[float]) -> float:
    """Return the top of the y axis: the largest share, or less where one bar dwarfs all the others."""
    ordered = sorted(values, reverse=True)
    if len(ordered) > 4 and ordered[2] > 0 and ordered[0] > _SPIKE * ordered[2]:
        return 1.5 * ordered[2]
    return (ordered[0] if ordered else 0.0) or 1.0


def _steps(bars: Sequence[_Bar], right: float, scale: float, top: float) -> list[str]:
    width, base = (right - _LEFT) / len(bars), _HEIGHT - _BOTTOM
    shapes = []
    for colour, opacity, values in (
        (REFERENCE_COLOUR, 0.38, [bar.reference for bar in bars]),
        (CURRENT_COLOUR, 0.22, [bar.current for bar in bars]),
    ):
        heights = [base - min(value, top) * scale for value in values]
        path = "".join(f"V{height:.1f}h{width:.2f}" for height in heights)
        shapes.append(
            f'<path d="M{_LEFT},{base}{path}V{base}Z" fill="{colour}" fill-opacity="{opacity}" stroke="{colour}" '
            f'stroke-width="1.4"/>'
        )
    shapes += [
        _cut(_LEFT + (n + 0.5) * width, bar) for n, bar in enumerate(bars) if max(bar.reference, bar.current) > top
    ]
    return shapes


def _cut(x: float, bar: _Bar) -> str:
    """Tell a bar that is higher than the picture as numbers."""
    anchor = "start" if x < _WIDTH / 2 else "end"
    return (
        f'<text x="{x + (5 if anchor == "start" else -5):.1f}" y="{_TOP + 8}" text-anchor="{anchor}">'
        f"{bar.reference:.1%} &#8594; {bar.current:.1%}</text>"
    )


def _pair(bar: _Bar, x: float, scale: float, top: float) -> str:
    base = _HEIGHT - _BOTTOM
    rects = "".join(
        f'<rect x="{x + place * 13:.1f}" y="{base - max(0.5, min(value, top) * scale):.1f}" width="12" '
        f'height="{max(0.5, min(value, top) * scale):.1f}" fill="{colour}" fill-opacity="{opacity}"/>'
        for place, value, colour, opacity in (
            (0, bar.reference, REFERENCE_COLOUR, 0.6),
            (1, bar.current, CURRENT_COLOUR, 0.8),
        )
    )
    return (
        f"<g><title>{escape(bar.label)}: {bar.reference:.2%}, now {bar.current:.2%}</title>{rects}"
        f'<text x="{x + 13:.1f}" y="{_HEIGHT - 10}" text-anchor="middle">{escape(bar.label)}</text></g>'
    )


def _y_axis(top: float, right: float) -> str:
    lines = []
    for part in (0.0, 0.5, 1.0):
        y = _HEIGHT - _BOTTOM - part * (_HEIGHT - _TOP - _BOTTOM)
        lines.append(
            f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{part * top:.2g}</text>'
            if top < 0.01
            else f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{100 * part * top:.3g} %</text>'
        )
    return "".join(lines)


def _rows_of_bars(bars: Sequence[_Bar]) -> str:
    """Draw each category as a row with two bars; names are long, and rows have room for them."""
    height, left, right = 26, 132, 52
    top = max((max(bar.reference, bar.current) for bar in bars), default=0.0) or 1.0
    scale = (_WIDTH - left - right) / top
    shapes = []
    for n, bar in enumerate(bars):
        y = n * height + 4
        rects = "".join(
            f'<rect x="{left}" y="{y + place * 9}" width="{max(0.5, value * scale):.1f}" height="8" fill="{colour}" '
            f'fill-opacity="0.8"/>'
            for place, value, colour in ((0, bar.reference, REFERENCE_COLOUR), (1, bar.current, CURRENT_COLOUR))
        )
        ends = left + max(bar.reference, bar.current) * scale + 5
        shapes.append(
            f"<g><title>{escape(bar.label)}: {bar.reference:.2%}, now {bar.current:.2%}</title>"
            f'<text x="{left - 6}" y="{y + 12}" text-anchor="end">{_short(bar.label, _LABEL)}</text>{rects}'
            f'<text x="{ends:.1f}" y="{y + 12}">{bar.current:.1%}</text></g>'
        )
    return _svg(shapes, max(40, len(bars) * height + 6))


def _short(text: str, longest: int) -> str:
    return escape(text if len(text) <= longest else f"{text[: longest - 1]}…")


def _svg(shapes: Sequence[str], height: int) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img">{"".join(shapes)}</svg>'
