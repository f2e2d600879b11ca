"""Self-contained HTML reports: a page, tables, and charts as inline SVG. No network, no scripts, no libraries.

All reports of this package (drift, evaluation, rollout, demo) are made of these pieces.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeGuard

#: Okabe and Ito's colours, told apart by colour-blind readers (https://jfly.uni-koeln.de/color/).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 260, 62, 16, 14, 44
#: Room for the name of a mark.
_NAME_WIDTH = 120
#: A smaller range is drawn as if it were 1 wide: its ticks would all read the same.
_SMALLEST_RANGE = 1e-12
_STYLE = """
:root{color-scheme:light dark;--line:#8885;--soft:#8881;
--text:light-dark(#1b1f24,#e8eaed);--muted:light-dark(#59636e,#9aa4ae)}
body{font:15px/1.55 system-ui,sans-serif;color:var(--text);background:light-dark(#fff,#15181c);
max-width:860px;margin:2.5rem auto;padding:0 1.2rem}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 .4rem}h2{font-size:1.15rem;margin:2.2rem 0 .6rem}
.lead{font-size:1.05rem;margin:.2rem 0 1.2rem}.muted{color:var(--muted)}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
td,th{padding:.32rem .6rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
th{font-weight:600;background:var(--soft)}.good{color:#00845f}.bad{color:#c8371a}.warn{color:#b37400}
svg{width:100%;height:auto;font-size:11px}svg text{fill:var(--muted)}svg .grid{stroke:var(--line)}
.tiles{display:flex;flex-wrap:wrap;gap:.6rem;margin:1rem 0 0}
.tile{flex:1 1 130px;border:1px solid var(--line);border-radius:8px;padding:.55rem .8rem}
.tile b{display:block;font-size:1.25rem;line-height:1.35;font-variant-numeric:tabular-nums}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(370px,1fr));gap:.9rem}
.card{border:1px solid var(--line);border-radius:8px;padding:.7rem .9rem;min-width:0}
h3{font-size:1rem;margin:1.2rem 0 .4rem;overflow-wrap:anywhere}.card h3{margin:0}
.card p{margin:.15rem 0 .4rem;font-size:.9rem}
td{overflow-wrap:anywhere}summary{cursor:pointer;margin:.8rem 0;color:var(--muted)}
dt{font-weight:600;margin-top:.6rem;font-variant-numeric:tabular-nums}dd{margin:0 0 0 1rem;overflow-wrap:anywhere}
.wide{overflow-x:auto}.wide td:not(:last-child){white-space:nowrap}.narrow{display:none}
@media(max-width:560px){svg{font-size:19px}svg .across{display:none}.narrow{display:inline}body{margin:1.2rem auto}
td,th{padding:.3rem .4rem}.wide table{width:46rem}}
.key{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin:0 .35em 0 1em;vertical-align:-.05em}
"""


@dataclass(frozen=True)
class Series:
    """One line or one set of bars: points (x, y); a None y leaves a gap."""

    name: str
    points: Sequence[tuple[float, float | None]]
    #: A limit that the others are held against: grey and dashed.
    is_limit: bool = False

    def colour(self, place: int) -> str:
        """Return its colour, as the series at this place."""
        return "#888" if self.is_limit else COLOURS[place % len(COLOURS)]


@dataclass(frozen=True)
class Mark:
    """A vertical line across a chart: something that happened at `x`."""

    x: float
    name: str


def page(title: str, lead: str, *sections: str, tone: str = "") -> str:
    """Return a whole HTML document. `tone` is "good", "bad", "warn" or nothing; sections are HTML."""
    body = "\n".join(sections)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_STYLE}</style></head><body>'
        f'<h1>{escape(title)}</h1><p class="lead {escape(tone)}">{escape(lead)}</p>{body}</body></html>\n'
    )


def section(heading: str, *parts: str) -> str:
    """Return a section: a heading and HTML parts."""
    return f"<section><h2>{escape(heading)}</h2>{''.join(parts)}</section>"


def subheading(text: str) -> str:
    """Return a heading inside a section or a box."""
    return f"<h3>{escape(text)}</h3>"


def paragraph(text: str, *, tone: str = "") -> str:
    """Return a paragraph of plain text."""
    return f'<p class="{escape(tone)}">{escape(text)}</p>'


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; floats are shown with four significant digits."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(show(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def entries(rows: Iterable[tuple[str, str]]) -> str:
    """Return a list of entries: a head each, and a text below it."""
    return "<dl>" + "".join(f"<dt>{escape(head)}</dt><dd>{escape(text)}</dd>" for head, text in rows) + "</dl>"


def wide(html: str) -> str:
    """Return HTML, such as a table of many columns, that scrolls sideways by itself on a narrow screen."""
    return f'<div class="wide">{html}</div>'


def tiles(rows: Iterable[tuple[str, str, str]]) -> str:
    """Return the few figures a reader looks for first: (what, value, remark)."""
    boxes = (
        f'<div class="tile"><span class="muted">{escape(what)}</span><b>{escape(value)}</b>'
        f'<span class="muted">{escape(remark)}</span></div>'
        for what, value, remark in rows
    )
    return f'<div class="tiles">{"".join(boxes)}</div>'


def cards(parts: Iterable[str]) -> str:
    """Return boxes of HTML side by side, as many as there is room for."""
    return f'<div class="cards">{"".join(f"""<div class="card">{part}</div>""" for part in parts)}</div>'


def folded(summary: str, *parts: str) -> str:
    """Return HTML that shows after a click on `summary`; needs no script."""
    return f"<details><summary>{escape(summary)}</summary>{''.join(parts)}</details>"


def show(value: object) -> str:
    """Return a value as a person reads it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def line_chart(
    series: Sequence[Series], *, x_label: str, y_label: str, marks: Sequence[Mark] = (), steps: bool = False
) -> str:
    """Return a line chart with a legend. `steps` holds each value until the next point."""
    frame = _Frame.around(series, x_range=_x_range(series, marks))
    lines = [_polyline(frame, each, each.colour(n), steps) for n, each in enumerate(series)]
    notes = [_mark(frame, mark, row) for mark, row in _in_rows(frame, marks)]
    return _chart(frame, series, [*lines, *notes], x_label, y_label, frame.x_ticks())


def _x_range(series: Sequence[Series], marks: Sequence[Mark]) -> tuple[float, float] | None:
    """Return a range with all marks in it, None where there is none."""
    xs = [*(x for each in series for x, _ in each.points), *(mark.x for mark in marks)]
    return (min(xs), max(xs)) if marks else None


def bar_chart(categories: Sequence[str], series: Sequence[tuple[str, Sequence[float]]], *, y_label: str) -> str:
    """Return grouped bars: one group a category, one colour a series of values."""
    as_series = [Series(name, [(float(n), value) for n, value in enumerate(values)]) for name, values in series]
    frame = _Frame.around(as_series, x_range=(-0.5, len(categories) - 0.5))
    width = 0.8 * (frame.x(1) - frame.x(0)) / max(1, len(series))
    bars = []
    for place, each in enumerate(as_series):
        for n, value in each.points:
            if value is None:
                continue
            left = frame.x(n) + (place - len(series) / 2) * width
            top, base = sorted((frame.y(value), frame.y(0)))
            colour = COLOURS[place % len(COLOURS)]
            bars.append(
                f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{base - top:.1f}" fill="{colour}">'
                f"<title>{escape(categories[int(n)])}, {escape(each.name)}: {show(value)}</title></rect>"
            )
    every = math.ceil(len(categories) / 14)
    ticks = [(float(n), name) for n, name in enumerate(categories) if n % every == 0]
    return _chart(frame, as_series, bars, "", y_label, ticks)


@dataclass(frozen=True)
class _Frame:
    """Maps data to pixels."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]

    @classmethod
    def around(cls, series: Sequence[Series], x_range: tuple[float, float] | None = None) -> _Frame:
        xs = [x for each in series for x, _ in each.points] or [0.0, 1.0]
        ys = [y for each in series for _, y in each.points if _drawable(y)] or [0.0, 1.0]
        low, high = min(0.0, *ys), max(0.0, *ys)
        high = high if high - low > _SMALLEST_RANGE else low + 1.0
        step = _nice_step((high - low) / 5)
        left, right = x_range or (min(xs), max(xs))
        right = right if right - left > _SMALLEST_RANGE else left + 1.0
        return cls((left, right), (math.floor(low / step) * step, math.ceil(high / step) * step))

    def x(self, value: float) -> float:
        low, high = self.x_range
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    def x_ticks(self) -> list[tuple[float, str]]:
        return _ticks(*self.x_range, 8)

    def y_ticks(self) -> list[tuple[float, str]]:
        return _ticks(*self.y_range, 5)


def _drawable(y: float | None) -> TypeGuard[float]:
    """Tell whether a value has a place on a chart; near the largest float, tick arithmetic overflows."""
    return y is not None and abs(y) < 1e100


def _nice_step(step: float) -> float:
    """Round a step up to 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= step * 0.999)


def _ticks(low: float, high: float, count: int) -> list[tuple[float, str]]:
    step = _nice_step((high - low) / count)
    first = math.ceil(low / step - 1e-9)
    return [(n * step, f"{n * step:.6g}") for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _polyline(frame: _Frame, series: Series, colour: str, steps: bool) -> str:
    paths, pen = [], "M"
    for x, y in series.points:
        if not _drawable(y):
            pen = "M"
            continue
        across = f"H{frame.x(x):.1f}" if steps and pen == "L" else ""
        paths.append(f"{across}{pen}{frame.x(x):.1f},{frame.y(y):.1f}")
        pen = "L"
    dashes = ' stroke-dasharray="7 4"' if series.is_limit else ""
    drawn = f'fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round"{dashes}'
    return f'<path d="{"".join(paths)}" {drawn}/>'


def _in_rows(frame: _Frame, marks: Sequence[Mark]) -> Iterator[tuple[Mark, int]]:
    """Yield each mark with the row its name stands in: names that are close would cover each other."""
    before, row = -math.inf, 0
    for mark in sorted(marks, key=lambda mark: mark.x):
        x = frame.x(mark.x)
        row = row + 1 if x - before < _NAME_WIDTH else 0
        before = x
        yield mark, row


def _mark(frame: _Frame, mark: Mark, row: int) -> str:
    x = frame.x(mark.x)
    anchor = "end" if x > _WIDTH * 0.75 else "start"
    shift = -5 if anchor == "end" else 5
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="#888" stroke-dasharray="4 3"/>'
        f'<text x="{x + shift:.1f}" y="{_TOP + 10 + 20 * row}" text-anchor="{anchor}">{escape(mark.name)}</text>'
    )


def _chart(
    frame: _Frame,
    series: Sequence[Series],
    shapes: Sequence[str],
    x_label: str,
    y_label: str,
    x_ticks: Sequence[tuple[float, str]],
) -> str:
    grid = [
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{frame.y(y):.1f}" y2="{frame.y(y):.1f}"/>'
        f'<text x="{_LEFT - 6}" y="{frame.y(y) + 4:.1f}" text-anchor="end">{escape(text)}</text>'
        for y, text in frame.y_ticks()
    ]
    below = [
        f'<text x="{frame.x(x):.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{escape(text)}</text>'
        for x, text in x_ticks
    ]
    middle = (_WIDTH + _LEFT) / 2
    labels = (
        f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>'
        f'<text class="across" transform="translate(14 {(_HEIGHT - _BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>"
    )
    legend = "".join(
        f'<span class="key" style="background:{each.colour(n)}"></span>{escape(each.name)}'
        for n, each in enumerate(series)
    )
    drawing = "".join([*grid, *below, labels, *shapes])
    legend += f'<span class="narrow"> ({escape(y_label)})</span>' if y_label else ""
    return f'<div class="muted">{legend}</div><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{drawing}</svg>'
