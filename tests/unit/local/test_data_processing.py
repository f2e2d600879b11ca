"""Columns are chosen by JSONPath, as the developer guide describes it for CSV."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.local.data_processing import DataProcessing, RowFault, Selection

ROW = ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("path", "chosen"),
    [
        ("$", ROW),
        ("$[0]", ["a"]),
        ("$[-1]", ["d"]),
        ("$[1:]", ["b", "c", "d"]),
        ("$[:-1]", ["a", "b", "c"]),
        ("$[0,2:]", ["a", "c", "d"]),
        ("$[3, 0]", ["d", "a"]),
    ],
)
def test_a_path_chooses_columns(path: str, chosen: list[str]) -> None:
    assert Selection.parse(path).of(ROW) == chosen


@pytest.mark.parametrize("path", ["$.features", "$['id']", "[1]", "$[a]", "$[1:2:3]", "$[]"])
def test_what_selects_from_no_array_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"selects nothing|neither an index"):
        Selection.parse(path)


def test_an_index_outside_the_row_is_a_fault() -> None:
    with pytest.raises(RowFault, match="out of bounds"):
        Selection.parse("$[4]").of(ROW)


def processing(**members: Any) -> DataProcessing:
    read = DataProcessing.read({"DataProcessing": members})
    assert read is not None
    return read


def test_nothing_asked_is_nothing_done() -> None:
    asked = {"InputFilter": "$", "OutputFilter": "$", "JoinSource": "None"}
    assert DataProcessing.read({}) is None
    assert DataProcessing.read({"DataProcessing": asked}) is None


def test_an_answer_with_other_lines_than_the_input_cannot_be_joined() -> None:
    with pytest.raises(RowFault, match="mismatched line count"):
        processing(JoinSource="Input").after([b"a", b"b"], b"1\n")


def test_a_line_that_is_no_csv_is_a_fault() -> None:
    with pytest.raises(RowFault, match="Failed to parse line"):
        processing(InputFilter="$[1:]").before([b'"a'])


_CELL = st.text(st.characters(exclude_characters="\r\n\x00", exclude_categories=["Cs"]), max_size=5)


@given(st.lists(st.lists(_CELL, min_size=2, max_size=4), min_size=1, max_size=4))
def test_joining_appends_the_answer_to_each_row(rows: list[list[str]]) -> None:
    records = []
    for row in rows:
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(row)
        records.append(text.getvalue().encode())
    answers = "".join(f"{number}\n" for number in range(len(rows))).encode()
    joined = processing(JoinSource="Input").after(records, answers).decode()
    assert list(csv.reader(io.StringIO(joined))) == [[*row, str(number)] for number, row in enumerate(rows)]
