"""HTML reports."""

from __future__ import annotations

from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.page import Mark, Series, bar_chart, line_chart, page, section, table


def svg_of(html: str) -> ElementTree.Element:
    return ElementTree.fromstring(html[html.index("<svg") : html.index("</svg>") + 6])


def test_text_from_outside_cannot_become_markup() -> None:
    html = page("<b>", "<script>", section("<i>", table(["<u>"], [["<img>"]])))
    assert not any(tag in html for tag in ("<b>", "<script>", "<i>", "<u>", "<img>"))


def test_a_page_needs_no_network() -> None:
    html = page("Title", "Lead", line_chart([Series("a", [(0, 1), (1, 2)])], x_label="x", y_label="y"))
    found: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.extend(value or "" for name, value in attrs if name in {"src", "href", "xlink:href"})

    Links().feed(html)
    assert found == []


@given(
    st.lists(
        st.tuples(st.floats(-1e6, 1e6), st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))),
        max_size=20,
    )
)
def test_a_line_chart_of_any_points_is_valid_svg_inside_its_frame(points: list[tuple[float, float | None]]) -> None:
    svg = svg_of(line_chart([Series("a", sorted(points, key=lambda point: point[0]))], x_label="x", y_label="y"))
    assert "nan" not in "".join(svg.itertext()) + ElementTree.tostring(svg, "unicode")


def test_a_gap_breaks_the_line() -> None:
    svg = line_chart([Series("a", [(0, 1), (1, None), (2, 1), (3, 2)])], x_label="", y_label="", marks=[Mark(1, "gap")])
    (path,) = [element.get("d") for element in svg_of(svg) if element.tag == "path"]
    assert path is not None
    assert path.count("M") == 2


@pytest.mark.parametrize("values", [[1.0, 2.0], [0.0, 0.0], [-1.0, 3.0]])
def test_bars_stand_on_zero(values: list[float]) -> None:
    svg = svg_of(bar_chart(["a", "b"], [("n", values)], y_label="n"))
    bars = [(float(bar.get("y", "")), float(bar.get("height", ""))) for bar in svg if bar.tag == "rect"]
    bases = {round(top if value < 0 else top + height, 1) for (top, height), value in zip(bars, values, strict=True)}
    assert len(bases) == 1
