"""The metric line: written by scripts, read by us and by SageMaker's regular expressions."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.jobs.metric_line import format_line, metric_regex, parse_line

names = st.text(st.characters(codec="ascii", categories=["L", "N"], include_characters=":_-."), min_size=1, max_size=30)
values = st.floats(allow_nan=False, allow_infinity=False)


@given(metrics=st.dictionaries(names, values, max_size=5))
def test_what_a_script_reports_is_read_back(metrics: dict[str, float]) -> None:
    assert parse_line(format_line(metrics)) == metrics


@given(metrics=st.dictionaries(names, values, min_size=1, max_size=5))
def test_the_service_finds_every_metric_by_its_regular_expression(metrics: dict[str, float]) -> None:
    line = format_line(metrics)
    for name, value in metrics.items():
        found = re.search(metric_regex(name), line)
        assert found is not None
        assert float(found.group(1)) == value


@pytest.mark.parametrize(
    "line",
    [
        "",
        "epoch 3",
        '{"dlaws_metrics": ',
        '{"dlaws_metrics": [1]}',
        '{"dlaws_metrics": {"a": "x"}}',
        f'{{"dlaws_metrics": {{"a": 1{"0" * 400}}}}}',
        f'{{"dlaws_metrics": {"[" * 100_000}',
    ],
)
def test_other_and_broken_lines_report_nothing(line: str) -> None:
    assert parse_line(line) is None


def test_a_line_with_a_prefix_is_read() -> None:
    assert parse_line('[algo-1] {"dlaws_metrics": {"loss": 0.5}}') == {"loss": 0.5}
