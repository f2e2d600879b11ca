"""Which rows cannot be scored, and which ones a container's complaint can mean."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.rows import BadRow, Requests, bad_rows, check_columns, suspects

COLUMNS = {"dep_delay": "number", "carrier": "text"}
WHOLE = Requests(payload_bytes=6 * 1024 * 1024)


def problems(*records: bytes, columns: dict[str, str] = COLUMNS) -> dict[int, str]:
    return {row.line: row.problem for row in bad_rows("s3://b/in/part-3.csv", records, columns)}


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (b"abc,UA", "'dep_delay' = 'abc' is no number"),
        (b"1_0,UA", "'dep_delay' = '1_0' is no number"),
        (b"inf,UA", "'dep_delay' = 'inf' is no number"),
        (b"1", "has 1 values, not 2 (dep_delay,carrier)"),
        (b"1,UA,", "has 3 values, not 2 (dep_delay,carrier)"),
        (b"", "is empty"),
        (b"  \r", "is empty"),
        (b"1,\xff", "is not UTF-8 text (byte 3 is 0xff)"),
        (b'"1,UA', "is no CSV"),
        (b"dep_delay,carrier", "is a header"),
    ],
)
def test_a_row_that_cannot_be_scored_says_why(record: bytes, problem: str) -> None:
    assert problem in problems(b"1,UA", record)[2] or problem in problems(b"1,UA", record, columns={})[2]


@pytest.mark.parametrize("record", [b"1,UA", b"-1.5e3,", b",", b"nan,UA", b' 7 ,"a,b"', b"1,UA\r"])
def test_a_row_that_can_be_scored_is_left_alone(record: bytes) -> None:
    assert problems(record) == {}


def test_without_columns_rows_are_as_wide_as_the_first() -> None:
    assert problems(b"a,b", b"a", columns={}) == {2: "has 1 values, not 2, as the first row has"}


def test_a_bad_row_is_named_by_object_and_line() -> None:
    row = BadRow(uri="s3://b/in/part-3.csv", line=7312, problem="'dep_delay' = 'abc' is no number")
    assert str(row) == "s3://b/in/part-3.csv line 7,312: 'dep_delay' = 'abc' is no number"


@pytest.mark.parametrize("columns", [{"a": "float"}, ["a", "b"], "a"])
def test_columns_say_what_each_one_is(columns: object) -> None:
    with pytest.raises(SpecificationError, match='"number" or "text"'):
        check_columns("columns", columns)


def test_a_value_and_a_place_together_name_the_line() -> None:
    records = [b"1,abc", b"2,x", b"3,abc", b"4,y"]
    assert suspects("row 3: it is 'abc'", records, WHOLE) == [3]
    assert suspects("it is 'abc'", records, WHOLE) == [1, 3]
    assert suspects("row 4 has 2 values", records, WHOLE) == [4]
    assert suspects("something is wrong", records, WHOLE) == []


def test_one_record_in_a_request_leaves_only_the_value() -> None:
    records = [b"1,x", b"2,abc"]
    assert suspects("row 1: it is 'abc'", records, Requests(payload_bytes=100, single_record=True)) == [2]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(50, 120), st.data())
def test_the_place_in_a_request_is_found_again(sizes: list[int], limit: int, data: st.DataObject) -> None:
    """Put records into requests as a transform job does, let any one be refused, and look for it."""
    records = [b"x" * size for size in sizes]
    requests: list[list[int]] = [[]]
    for line, record in enumerate(records, start=1):
        filled = sum(len(records[other - 1]) + 1 for other in requests[-1])
        if requests[-1] and filled + len(record) + 1 > limit:
            requests.append([])
        requests[-1].append(line)
    refused = data.draw(st.integers(1, len(records)))
    place = next(lines.index(refused) + 1 for lines in requests if refused in lines)
    found = suspects(f"row {place} is bad", records, Requests(payload_bytes=limit))
    assert refused in found or len(found) >= 20
    assert all(lines.index(line) + 1 == place for line in found for lines in requests if line in lines)


@given(st.lists(st.tuples(st.floats(allow_infinity=False), st.text(st.characters(codec="utf-8"), max_size=8))))
def test_what_csv_writes_is_never_bad(rows: list[tuple[float, str]]) -> None:
    records = []
    for number, text in rows:
        if "\n" in text or "\r" in text or "\x00" in text:
            continue
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="").writerow([number, text])
        records.append(buffer.getvalue().encode())
    assert problems(*records) == {}
