"""Parquet and CSV, with pyarrow. Row groups of Parquet and runs of lines of CSV are the blocks."""

from pathlib import Path
from typing import Any

import numpy as np

from sm_runtime.readers.errors import DataCorrupt, DataRefused, library
from sm_runtime.readers.fields import Column, Columns, Field
from sm_runtime.readers.shard import BlockCache, BlockShard

#: Lines that are parsed together.
CSV_ROWS = 4096
SCAN_BYTES = 8 << 20


class ParquetShard(BlockShard):
    """Row groups are read whole, of the columns that are asked for; pages that carry a CRC-32 are checked."""

    def __init__(self, path: Path, cache: BlockCache, columns: list[str] | None = None) -> None:
        self.path, self._handle, self._columns = path, None, columns
        names, metadata = self.handle.schema_arrow.names, self.handle.metadata
        missing = [name for name in columns or () if name not in names and name.partition(".")[0] not in names]
        if missing:
            raise DataRefused(f"{path} has no column {missing}, but {names}")
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        super().__init__(path, np.array(sizes, np.int64), cache)

    def load(self, block: int) -> Columns:
        """Read one row group."""
        try:
            table = self.handle.read_row_group(block, columns=self._columns)
        except Exception as error:  # OSError, ArrowInvalid, thrift errors: pyarrow has no one class for broken bytes
            raise DataCorrupt(self.path, f"row group {block} cannot be read: {error}") from error
        if table.num_rows != self.blocks[block]:
            raise DataCorrupt(self.path, f"row group {block} has {table.num_rows} of {self.blocks[block]} rows")
        return columns_of(table, self.path)

    def _open(self) -> Any:
        parquet = library("pyarrow.parquet", "pyarrow", "Parquet")
        try:
            return parquet.ParquetFile(self.path, page_checksum_verification=True)
        except Exception as error:
            raise DataCorrupt(self.path, f"no whole Parquet file: {error}") from error


class CsvShard(BlockShard):
    """Lines with a header; the types are those of the first lines of the first file, unless fields say otherwise."""

    def __init__(self, path: Path, cache: BlockCache, types: dict[str, Any], columns: list[str] | None = None) -> None:
        starts, sizes, header = csv_index(path)
        self._offsets, self._header, self._types, self._columns = starts, header, types, columns
        super().__init__(path, sizes, cache)

    def load(self, block: int) -> Columns:
        """Parse one run of lines."""
        start, end = int(self._offsets[block]), int(self._offsets[block + 1])
        self.handle.seek(start)
        data = self.handle.read(end - start)
        first = self.span(block)[0]
        table = _parse(self._header + data, self.path, self._types, first, start, self._columns)
        if table.num_rows != self.blocks[block]:
            what = (
                f"{table.num_rows} rows in {self.blocks[block]} lines: a value that holds a quote or a line break "
                "needs quotes around it, and the quote doubled"
            )
            raise DataCorrupt(self.path, what, record=first, offset=start)
        return columns_of(table, self.path)

    def _open(self) -> Any:
        return self.path.open("rb")


def csv_types(paths: list[Path], fields: dict[str, Field], columns: list[str] | None = None) -> dict[str, Any]:
    """Return the type of every column, from the first lines of the first file that has any, and from `fields`."""
    arrow = library("pyarrow", "pyarrow", "CSV")
    for path in paths:
        starts, sizes, header = csv_index(path, limit=1)
        if len(sizes):
            break
    else:
        return {}
    with path.open("rb") as file:
        file.seek(int(starts[0]))
        table = _parse(header + file.read(int(starts[1] - starts[0])), path, {}, 0, int(starts[0]), columns)
    types = {column.name: column.type for column in table.schema}
    for name, field in fields.items():
        if field.dtype and name in types:
            types[name] = arrow.from_numpy_dtype(np.dtype(field.dtype))
    return types


def csv_index(path: Path, limit: int | None = None) -> tuple[np.ndarray, np.ndarray, bytes]:
    """Return the bounds of runs of lines (int64[k + 1]), their rows (int64[k]), and the header line.

    A line break between quotes is none. Empty lines are no rows: each belongs to the line after it.
    """
    ends, offset, quotes, last = [], 0, 0, b""
    tail = b"\n\n"  # the two bytes before what is scanned
    with path.open("rb") as file:
        while data := file.read(SCAN_BYTES):
            array = np.frombuffer(data, np.uint8)
            inside = (np.cumsum(array == ord('"')) + quotes) % 2
            found = np.flatnonzero((array == ord("\n")) & (inside == 0))
            before, earlier = _back(array, found, 1, tail), _back(array, found, 2, tail)
            empty = (before == ord("\n")) | ((before == ord("\r")) & (earlier == ord("\n")))
            ends.append(found[~empty] + offset + 1)
            quotes, offset, last = int(inside[-1]), offset + len(data), data[-1:]
            tail = (tail + data[-2:])[-2:]
            if limit and sum(map(len, ends)) > limit * CSV_ROWS:
                break
        if quotes and not limit:
            raise DataCorrupt(path, "the file ends within quotes")
        lines = np.concatenate([*ends, [offset] if last not in (b"", b"\n") else []]).astype(np.int64)
        if not len(lines):
            raise DataRefused(f"{path} is empty: a header line is needed; remove the file if it has no samples")
        file.seek(0)
        header = file.read(int(lines[0]))
    bounds = lines[::CSV_ROWS] if (len(lines) - 1) % CSV_ROWS == 0 else np.append(lines[::CSV_ROWS], lines[-1])
    sizes = np.minimum(CSV_ROWS, len(lines) - 1 - np.arange(0, len(lines) - 1, CSV_ROWS))
    return bounds, sizes.astype(np.int64), header if header.endswith(b"\n") else header + b"\n"


def _back(array: np.ndarray, places: np.ndarray, steps: int, tail: bytes) -> np.ndarray:
    """Return what stands so many bytes before places, of which the first may lie in the tail."""
    values, short = array.take(places - steps, mode="wrap"), places < steps
    values[short] = np.frombuffer(tail, np.uint8)[places[short] - steps]
    return values


def _parse(data: bytes, path: Path, types: dict[str, Any], record: int, offset: int, columns: list[str] | None) -> Any:
    arrow, csv = library("pyarrow", "pyarrow", "CSV"), library("pyarrow.csv", "pyarrow", "CSV")
    convert = csv.ConvertOptions(column_types=types, include_columns=columns)
    read, parse = csv.ReadOptions(use_threads=False), csv.ParseOptions(newlines_in_values=True)
    try:
        table = csv.read_csv(arrow.BufferReader(data), read_options=read, parse_options=parse, convert_options=convert)
        names = table.column_names
    except arrow.ArrowInvalid as error:
        what = (
            f"rows from here on do not parse: {error}; give types with fields={{...: Field(dtype=...)}} if they should"
        )
        raise DataCorrupt(path, what, record=record, offset=offset) from error
    except KeyError as error:
        raise DataRefused(f"{path} lacks a column that is asked for: {error}") from error
    except UnicodeDecodeError as error:
        raise DataCorrupt(path, f"the header line is not UTF-8: {error}") from error
    if len(set(names)) < len(names):
        raise DataRefused(f"{path} has several columns of one name: {names}")
    if types and set(names) != set(types):
        raise DataRefused(f"{path} has the columns {names}, the first file {sorted(types)}")
    return table


def columns_of(table: Any, path: Path) -> Columns:
    """Return numpy columns of a table; structs become NAME.PART."""
    arrow = library("pyarrow", "pyarrow", "Parquet")
    while any(arrow.types.is_struct(column.type) for column in table.schema):
        table = table.flatten()
    return {name: _column(table.column(name), name, path) for name in table.column_names}


def _column(chunked: Any, name: str, path: Path) -> Column:
    arrow = library("pyarrow", "pyarrow", "Parquet")
    types = arrow.types
    array = chunked.combine_chunks() if chunked.num_chunks != 1 else chunked.chunk(0)
    if types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if array.null_count and not types.is_floating(kind):
        raise DataRefused(f"{path}: {array.null_count} of {name!r} are null; fill them, or store floats (null is NaN)")
    if types.is_floating(kind) or types.is_integer(kind) or types.is_boolean(kind):
        return array.to_numpy(zero_copy_only=False)
    if types.is_fixed_size_binary(kind):
        width = kind.byte_width
        start = array.offset * width
        return np.frombuffer(array.buffers()[1], np.uint8)[start : start + len(array) * width].reshape(-1, width)
    if types.is_fixed_size_list(kind) or types.is_list(kind) or types.is_large_list(kind):
        inner = _column(arrow.chunked_array([array.flatten()]), name, path)
        if isinstance(inner, list):
            raise DataRefused(
                f"{path}: column {name!r} is {kind}, and what is in the lists differs in length: flatten it"
            )
        if types.is_fixed_size_list(kind):
            return inner.reshape(len(array), kind.list_size, *inner.shape[1:])
        return _cut(inner, np.diff(array.offsets.to_numpy()))
    if len(array) == 0:
        return np.empty((0, 0), np.uint8)
    if types.is_string(kind) or types.is_binary(kind) or types.is_large_string(kind) or types.is_large_binary(kind):
        wide = "large" in str(kind)
        offsets = np.frombuffer(array.buffers()[1], np.int64 if wide else np.int32)
        offsets = offsets[array.offset : array.offset + len(array) + 1]
        data = np.frombuffer(array.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
        return _cut(data, np.diff(offsets))
    raise DataRefused(f"{path}: column {name!r} is {kind}, which is no number, text, bytes or list: cast it")


def _cut(values: np.ndarray, lengths: np.ndarray) -> Column:
    if len(lengths) and (lengths == lengths[0]).all():
        return values.reshape(len(lengths), int(lengths[0]), *values.shape[1:])
    return np.split(values, np.cumsum(lengths)[:-1])
