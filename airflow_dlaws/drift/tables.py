"""Tables in files (CSV, JSON lines, Parquet) as chunks of columns, in bounded memory. What cannot be read is counted.

A chunk is {column: values}, empty where the file has none that is wanted; all its columns are equally long. Values are
what the format has: texts from CSV, JSON's and Arrow's values from the others. What a JSON object leaves out is None.
"""

from __future__ import annotations

import csv
import enum
import gzip
import io
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from airflow_dlaws.drift.body import Fault
from airflow_dlaws.errors import OutcomeUnacceptable, SpecificationError

#: Enough that counting by columns pays; a thousand columns of a chunk are some hundred megabytes at most.
ROWS_AT_ONCE = 10_000
#: A line of JSON longer than this is no row of a table; without a limit it could fill the memory. A field of CSV may
#: have 131,072 characters: the limit of Python's reader, which is one for the whole process.
_LONGEST = 16 * 1024 * 1024

Chunk = Mapping[str, Sequence[object]]


class TableFormat(enum.StrEnum):
    """How a table is written."""

    CSV = "csv"
    JSON_LINES = "jsonlines"
    PARQUET = "parquet"


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """How to read the files of one data set.

    :param names: the columns of CSV without a header line; None where the first line of each file is one.
    """

    format: TableFormat = TableFormat.CSV
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "format", TableFormat(self.format))
        except ValueError:
            allowed = [each.value for each in TableFormat]
            raise SpecificationError(f"format={str(self.format)!r} is none of {allowed}") from None


def read_chunks(
    options: TableOptions, file: IO[bytes], where: str, wanted: Sequence[str], faults: Counter[Fault]
) -> Iterator[Chunk]:
    """Yield the wanted columns of one file, as far as it has them; count in `faults` what is unreadable.

    :param where: the file's name, for messages; one that ends in .gz is unpacked.
    :raises OutcomeUnacceptable: nothing of the file can be read (it is no Parquet, its header is no CSV).
    """
    if options.format is TableFormat.PARQUET:
        yield from _parquet(file, where, wanted)
        return
    plain: IO[bytes] = gzip.GzipFile(fileobj=file, mode="rb") if where.endswith(".gz") else file  # type: ignore[assignment]
    try:
        if options.format is TableFormat.CSV:
            yield from _csv(plain, where, wanted, options.names, faults)
        else:
            yield from _json_lines(plain, wanted, faults)
    except (gzip.BadGzipFile, EOFError) as error:
        raise OutcomeUnacceptable(f"{where} is no whole gzip file: {error}") from error


def _csv(
    file: IO[bytes], where: str, wanted: Sequence[str], names: Sequence[str] | None, faults: Counter[Fault]
) -> Iterator[Chunk]:
    # Bytes that are no UTF-8 spoil the values they stand in, not the file.
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="")
    rows = _csv_rows(csv.reader(text), faults)
    header = list(names) if names is not None else [name.strip() for name in next(rows, [])]
    if names is None and not header:
        raise OutcomeUnacceptable(f"{where} is empty: it has not even a header line")
    places = {name: header.index(name) for name in wanted if name in header}
    fits = (row for row in rows if _counted(len(row) == len(header), faults))
    while chunk := list(itertools.islice(fits, ROWS_AT_ONCE)):
        yield {name: [row[place] for row in chunk] for name, place in places.items()}
    text.detach()


def _csv_rows(reader: Any, faults: Counter[Fault]) -> Iterator[list[str]]:
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            faults[Fault.BAD_CSV] += 1
            continue
        if row:  # blank lines are no rows
            yield row


def _counted(fits: bool, faults: Counter[Fault]) -> bool:
    if not fits:
        faults[Fault.WRONG_COLUMN_COUNT] += 1
    return fits


def _json_lines(file: IO[bytes], wanted: Sequence[str], faults: Counter[Fault]) -> Iterator[Chunk]:
    objects = _json_objects(file, faults)
    while chunk := list(itertools.islice(objects, ROWS_AT_ONCE)):
        yield {name: [row.get(name) for row in chunk] for name in wanted if any(name in row for row in chunk)}


def _json_objects(file: IO[bytes], faults: Counter[Fault]) -> Iterator[dict[str, Any]]:
    too_long = False
    while line := file.readline(_LONGEST):
        whole = line.endswith(b"\n") or len(line) < _LONGEST
        if too_long or not whole:
            faults[Fault.LINE_TOO_LONG] += not too_long
            too_long = not whole
            continue
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            faults[Fault.BAD_JSON] += 1
            continue
        if isinstance(row, dict):
            yield row
        else:
            faults[Fault.UNKNOWN_JSON_LAYOUT] += 1


def _parquet(file: IO[bytes], where: str, wanted: Sequence[str]) -> Iterator[Chunk]:
    try:
        import pyarrow.parquet as parquet
        from pyarrow.lib import ArrowException
    except ImportError as error:
        raise SpecificationError(
            f"reading {where} needs pyarrow where the check runs (airflow-dlaws[validation] brings it): {error}"
        ) from error
    try:
        table = parquet.ParquetFile(file)
        there = [name for name in wanted if name in table.schema_arrow.names]
        for batch in table.iter_batches(batch_size=ROWS_AT_ONCE, columns=there):
            yield {name: _values(batch.column(name)) for name in there}
    except (ArrowException, OSError, ValueError) as error:
        raise OutcomeUnacceptable(f"{where} cannot be read as Parquet: {error}") from error


def _values(column: Any) -> Sequence[object]:
    """Return a column as numpy numbers where it is one of numbers, missing ones NaN; else as Python values."""
    import pyarrow.types as types

    kind = column.type
    if types.is_floating(kind) or types.is_integer(kind) or types.is_boolean(kind):
        return column.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]
    if types.is_dictionary(kind):
        column = column.dictionary_decode()
    return column.to_pylist()  # type: ignore[no-any-return]
