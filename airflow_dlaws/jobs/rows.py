"""Rows of CSV without a header: what is wrong with one, and which one a model's container complained about. Pure."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_dlaws.errors import SpecificationError

NUMBER, TEXT = "number", "text"
#: As many bad rows as one wants to read in a message.
ROWS_IN_MESSAGE = 20
#: Longest value that is shown whole.
_SHOWN = 40

_ROW = re.compile(r"\b(?:row|line|record)s?\s*(?:no\.?|number|#)?\s*(\d+)", re.IGNORECASE)
_QUOTED = re.compile(r"'([^']+)'|\"([^\"]+)\"")


@dataclass(frozen=True, kw_only=True)
class BadRow:
    """One row that cannot be scored, by its line in its object."""

    uri: str
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.uri} line {self.line:,}: {self.problem}"


def check_columns(name: str, columns: Any) -> None:
    """Refuse what does not say what each column is.

    :raises SpecificationError: with what is allowed.
    """
    if not isinstance(columns, Mapping) or any(kind not in (NUMBER, TEXT) for kind in columns.values()):
        raise SpecificationError(
            f'{name}={columns!r} must map each column, in order, to "{NUMBER}" or "{TEXT}", '
            f'as {{"dep_delay": "{NUMBER}", "carrier": "{TEXT}"}}'
        )


class RowCheck:
    """Checks the rows of one object, one after the other.

    :param columns: name -> "number" or "text", in order; without them all rows must be as wide as the first.
    """

    def __init__(self, columns: Mapping[str, str]) -> None:
        self._columns = dict(columns)
        self._width = len(columns) or None

    def problem(self, record: bytes) -> str:
        """Return what is wrong with the next row (without its line end), or nothing."""
        try:
            text = record.decode()
        except UnicodeDecodeError as error:
            return f"is not UTF-8 text (byte {error.start + 1} is {record[error.start]:#04x})"
        if not text.strip():
            return "is empty: no prediction can belong to it"
        try:
            row = next(csv.reader([text], strict=True))
        except csv.Error as error:
            return f"is no CSV: {error}"
        self._width = self._width or len(row)
        if len(row) != self._width:
            named = f" ({','.join(self._columns)})" if self._columns else ", as the first row has"
            return f"has {len(row)} values, not {self._width}{named}"
        if self._columns and row == list(self._columns):
            return "is a header: every line is scored, so leave it out"
        return next(filter(None, map(_cell_problem, self._columns.items(), row)), "")


def bad_rows(uri: str, records: Iterable[bytes], columns: Mapping[str, str]) -> Iterator[BadRow]:
    """Yield the rows of an object that cannot be scored."""
    check = RowCheck(columns)
    for line, record in enumerate(records, start=1):
        problem = check.problem(record)
        if problem:
            yield BadRow(uri=uri, line=line, problem=problem)


def _cell_problem(column: tuple[str, str], value: str) -> str:
    name, kind = column
    if kind == NUMBER and value.strip() and not _is_number(value):
        return f"{name!r} = {_shown(value)} is no number"
    return ""


def _is_number(text: str) -> bool:
    try:
        return "_" not in text and not math.isinf(float(text))  # nan is a way to write a missing value
    except ValueError:
        return False


def _shown(value: str) -> str:
    return repr(value if len(value) <= _SHOWN else f"{value[:_SHOWN]}...")


@dataclass(frozen=True, kw_only=True)
class Requests:
    """How the records of an object were put into requests, as the job's data log says it.

    :param payload_bytes: a request holds as many records as fit.
    """

    payload_bytes: int
    single_record: bool = False

    def places(self, records: Iterable[bytes]) -> Iterator[tuple[int, bytes, int]]:
        """Yield (line, record, its place in its request), both from 1."""
        size = place = 0
        for line, record in enumerate(records, start=1):
            if self.single_record or size + len(record) + 1 > self.payload_bytes:
                size = place = 0
            size, place = size + len(record) + 1, place + 1
            yield line, record, place


def suspects(words: str, records: Iterable[bytes], requests: Requests) -> list[int]:
    """Return the lines that a container's complaint about a request can mean, the most likely reading first.

    A complaint may name the row within the request ("row 3") and quote a value ("'abc'"). Lines for which both are true
    go before lines that have the value, and those before lines that have the place.
    """
    found = _ROW.search(words)
    row = int(found.group(1)) if found else None
    values = {one or other for one, other in _QUOTED.findall(words)}
    both: list[int] = []
    by_value: list[int] = []
    by_place: list[int] = []
    for line, record, place in requests.places(records):
        in_place = row is not None and place == row
        has_value = bool(values) and not values.isdisjoint(_cells(record))
        for hit, lines in ((in_place and has_value, both), (has_value, by_value), (in_place, by_place)):
            if hit and len(lines) < ROWS_IN_MESSAGE:
                lines.append(line)
    return both or by_value or by_place


def _cells(record: bytes) -> list[str]:
    text = record.decode(errors="replace")
    return [text, *next(csv.reader([text]), [])]
