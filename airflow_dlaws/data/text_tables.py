"""Tables in files of text, CSV and JSON lines: what cannot be read is counted, and the rest is read.

Values are what the format has: texts from CSV, JSON's values from the other. What a JSON object leaves out is None.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from airflow_dlaws.data.tables import Table, rows_at_once
from airflow_dlaws.errors import OutcomeUnacceptable

if TYPE_CHECKING:
    from airflow_dlaws.data.tables import Columns

#: Rows that tell what the columns of a file are.
_FIRST_ROWS = 1 << 10

#: Columns of JSON lines are known row by row: so many are assumed where rows are read at once.
_COLUMNS_OF_JSON = 32

#: A line of JSON longer than this is no row of a table; without a limit it could fill the memory. A field of CSV may
#: have 131,072 characters: the limit of Python's reader, which is one for the whole process.
_LONGEST = 16 * 1024 * 1024


class _TextTable(Table):
    """A file that is read from its start each time, unpacked where its name ends in .gz."""

    by_column = False

    def __init__(self, file: Path | IO[bytes], where: str) -> None:
        super().__init__()
        self._file, self._where = file, where

    @contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        self.faults.clear()
        file = self._file.open("rb") if isinstance(self._file, Path) else self._file
        file.seek(0)
        try:
            yield gzip.GzipFile(fileobj=file, mode="rb") if self._where.endswith(".gz") else file  # type: ignore[misc]
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise OutcomeUnacceptable(f"{self._where} is no whole gzip file: {error}") from error
        finally:
            if isinstance(self._file, Path):
                file.close()


class CsvTable(_TextTable):
    """A CSV file; all its values are texts. Of columns of one name the first is read.

    :param names: the columns of a file without a header line.
    """

    def __init__(self, file: Path | IO[bytes], where: str, names: Sequence[str] | None = None) -> None:
        super().__init__(file, where)
        self._given = names is not None
        self._header = list(names) if names is not None else self._first_line()
        self.names = tuple(dict.fromkeys(self._header))

    def _first_line(self) -> list[str]:
        with self._reader() as reader:
            header = [name.strip() for name in next(self._rows(reader), [])]
        if not header:
            raise OutcomeUnacceptable(f"{self._where} is empty: it has not even a header line")
        return header

    @cached_property
    def texts(self) -> frozenset[str]:  # type: ignore[override]
        """The columns with a text, among the first rows, that is neither a number nor a word for none."""
        found: set[str] = set()
        with self._reader() as reader:
            for row in itertools.islice(self._fitting(reader), _FIRST_ROWS):
                found.update(name for name, value in zip(self._header, row, strict=True) if _is_text(value))
        return frozenset(found)

    def pieces(self, names: Sequence[str]) -> Iterator[Columns]:
        """Yield the named columns; a row with another number of values is left out and counted."""
        places = {name: self._header.index(name) for name in names if name in self.names}
        with self._reader() as reader:
            rows = self._fitting(reader)
            while chunk := list(itertools.islice(rows, rows_at_once(len(self._header)))):
                yield {name: [row[place] for row in chunk] for name, place in places.items()}

    @contextmanager
    def _reader(self) -> Iterator[Any]:
        with self._open() as file:
            # Bytes that are no UTF-8 spoil the values they stand in, not the file.
            text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="")
            try:
                yield csv.reader(text)
            finally:
                text.detach()  # it would close the file

    def _fitting(self, reader: Any) -> Iterator[list[str]]:
        for row in itertools.islice(self._rows(reader), 0 if self._given else 1, None):
            if len(row) == len(self._header):
                yield row
            else:
                self.faults["wrong_column_count"] += 1

    def _rows(self, reader: Any) -> Iterator[list[str]]:
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error:
                self.faults["bad_csv"] += 1
                continue
            if row:  # blank lines are no rows
                yield row


def _is_text(value: str) -> bool:
    word = value.strip()
    try:
        float(word)
    except ValueError:
        return word.lower() not in {"", "na", "n/a", "null", "none"}
    return "_" in word


class JsonLinesTable(_TextTable):
    """A file with a JSON object in each line."""

    @cached_property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The names in the first rows."""
        return tuple(self._first(lambda value: True))

    @cached_property
    def texts(self) -> frozenset[str]:  # type: ignore[override]
        """The columns with a text or a truth value among the first rows."""
        return frozenset(self._first(lambda value: isinstance(value, (str, bool))))

    @cached_property
    def vectors(self) -> frozenset[str]:  # type: ignore[override]
        """The columns with a list among the first rows."""
        return frozenset(self._first(lambda value: isinstance(value, list)))

    def _first(self, fits: Callable[[Any], bool]) -> dict[str, None]:
        with self._open() as file:
            rows = itertools.islice(self._objects(file), _FIRST_ROWS)
            return {name: None for row in rows for name, value in row.items() if fits(value)}

    def pieces(self, names: Sequence[str]) -> Iterator[Columns]:
        """Yield the named columns, as far as some of these rows have them."""
        with self._open() as file:
            objects = self._objects(file)
            while chunk := list(itertools.islice(objects, rows_at_once(_COLUMNS_OF_JSON))):
                yield {name: [row.get(name) for row in chunk] for name in names if any(name in row for row in chunk)}

    def _objects(self, file: IO[bytes]) -> Iterator[dict[str, Any]]:
        too_long = False
        while line := file.readline(_LONGEST):
            whole = line.endswith(b"\n") or len(line) < _LONGEST
            if too_long or not whole:
                if not too_long:
                    self.faults["line_too_long"] += 1
                too_long = not whole
                continue
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                self.faults["bad_json"] += 1
                continue
            if isinstance(row, dict):
                yield row
            else:
                self.faults["unknown_json_layout"] += 1
