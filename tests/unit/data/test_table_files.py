"""Tables out of files: every format the same, whatever stands in them counted and never a crash."""

from __future__ import annotations

import contextlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

import drift_table as tables
from airflow_dlaws.data import tables as reading
from airflow_dlaws.data import text_tables
from airflow_dlaws.data.coded import values_of
from airflow_dlaws.data.tables import TableFormat, read_table
from airflow_dlaws.drift.body import Fault
from airflow_dlaws.drift.values import category_of
from airflow_dlaws.errors import OutcomeUnacceptable, SpecificationError

WANTED = ("delay", "carrier", "gone")


def read(body, kind="csv", *, where="a", names=None, wanted=WANTED):
    """Return the columns of a file put together, and its faults."""
    columns, table = {}, read_table(io.BytesIO(body), where, kind, names=names)
    for chunk in table.pieces(wanted):
        assert len({len(values) for values in chunk.values()}) <= 1
        for name, values in chunk.items():
            columns.setdefault(name, []).extend(map(category_of, values_of(values)))
    return columns, dict(table.faults)


@pytest.mark.parametrize("rows_at_once", [7, 10_000])
@pytest.mark.parametrize(
    ("kind", "where", "write"),
    [
        ("csv", "a.csv", tables.as_csv),
        ("csv", "a.csv.gz", tables.as_gzip),
        ("jsonlines", "a.jsonl", tables.as_json_lines),
        ("parquet", "a.parquet", tables.as_parquet),
    ],
)
def test_every_format_gives_the_same_values(monkeypatch, kind, where, write, rows_at_once):
    for limit in ("_LEAST_ROWS", "_MOST_ROWS"):
        monkeypatch.setattr(reading, limit, rows_at_once)
    table = tables.rows(100, seed=5)
    columns, faults = read(write(table), kind, where=where)
    assert faults == {}
    assert columns.keys() == {"delay", "carrier"}
    assert columns["carrier"] == table["carrier"]
    assert [float(value) for value in columns["delay"]] == table["delay"]


def test_rows_of_another_width_are_lost_and_counted():
    columns, faults = read(b"delay,carrier\n1,A\n2\n3,B,C\n\n4,D\n")
    assert columns["delay"] == ["1", "4"]
    assert faults == {Fault.WRONG_COLUMN_COUNT.value: 2}


def test_a_byte_order_mark_and_blanks_in_the_header_are_no_part_of_a_name():
    columns, _ = read(b"\xef\xbb\xbfdelay, carrier\n1,A\n")
    assert columns == {"delay": ["1"], "carrier": ["A"]}


def test_json_lines_that_are_no_objects_are_counted_by_what_they_are():
    columns, faults = read(b'{"delay": 1}\n[1]\nnonsense\n\n{"carrier": "A"}\n', "jsonlines")
    assert columns == {"delay": ["1", None], "carrier": [None, "A"]}
    assert faults == {Fault.UNKNOWN_JSON_LAYOUT.value: 1, Fault.BAD_JSON.value: 1}


def test_a_huge_line_is_passed_over_once_and_what_follows_is_read(monkeypatch):
    monkeypatch.setattr(text_tables, "_LONGEST", 100)
    body = b'{"delay": 1}\n{"delay": "' + b"x" * 1000 + b'"}\n{"delay": 2}\n'
    columns, faults = read(body, "jsonlines")
    assert columns == {"delay": ["1", "2"]}
    assert faults == {Fault.LINE_TOO_LONG.value: 1}
    columns, faults = read(b"delay,carrier\n1,A\n" + b"x" * 200_000 + b",B\n2,C\n")
    assert columns["delay"] == ["1", "2"]
    assert faults == {Fault.BAD_CSV.value: 1}


def test_json_lines_know_their_columns_and_one_that_comes_late_is_read_all_the_same():
    body = b'{"delay": 1, "carrier": "A", "v": [1, 2]}\n' * 3 + b'{"late": true}\n' + b"[]\n"
    table = read_table(io.BytesIO(body), "a", "jsonlines")
    assert (table.names, table.texts, table.vectors) == (
        ("delay", "carrier", "v", "late"),
        {"carrier", "late"},
        {"v"},
    )
    for _ in range(2):  # a table can be read again
        assert [*table.pieces(["late"])] == [{"late": [None, None, None, True]}]
        assert table.faults == {Fault.UNKNOWN_JSON_LAYOUT.value: 1}


def test_without_a_header_the_names_are_given():
    assert read(b"1,A\n2,B\n", names=("delay", "carrier"))[0] == {"delay": ["1", "2"], "carrier": ["A", "B"]}


@pytest.mark.parametrize(
    ("body", "kind", "where", "message"),
    [
        (b"", "csv", "a.csv", "is empty"),
        (b"junk", "parquet", "a.parquet", "cannot be read as Parquet"),
        (b"junk", "csv", "a.csv.gz", "no whole gzip file"),
        (tables.as_gzip(tables.rows(500, 1))[:-20], "csv", "a.csv.gz", "no whole gzip file"),
    ],
)
def test_a_file_of_which_nothing_can_be_read_is_told_and_not_skipped(body, kind, where, message):
    with pytest.raises(OutcomeUnacceptable, match=message):
        read(body, kind, where=where)


def test_an_unknown_format_is_refused():
    with pytest.raises(SpecificationError, match="'excel' is none of"):
        read_table(io.BytesIO(), "a", "excel")


@given(body=st.binary(max_size=400), kind=st.sampled_from(TableFormat))
def test_any_bytes_give_columns_or_an_error_with_the_files_name(body, kind):
    # Anything else than these columns and this error ends the test.
    with contextlib.suppress(OutcomeUnacceptable):
        columns, _ = read(body, kind, where="s3://bucket/file")
        assert columns.keys() <= set(WANTED)
