"""Tables in local files (Parquet, CSV, NPY, NPZ) as columns in pieces, in bounded memory and at little cost.

Parquet is read with as little of pyarrow as will do: converting columns through its own `to_numpy` would import pandas,
which takes longer than reading a hundred thousand rows. Texts of Parquet stay codes into a dictionary.
"""

from __future__ import annotations

import abc
import csv
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_dlaws.data.coded import Coded
from airflow_dlaws.errors import SpecificationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Columns = Mapping[str, NDArray[Any] | Sequence[object] | Coded]

#: Values in memory at once: two megabytes of float64 beside what a page of the file needs.
_VALUES_AT_ONCE = 1 << 18
_MOST_ROWS, _LEAST_ROWS = 1 << 17, 1 << 10

#: Without it, Arrow reads whole column chunks; a row group may be the whole file.
_PARQUET_BUFFER = 1 << 16

SUFFIXES = (".parquet", ".csv", ".npy", ".npz")


class Table(abc.ABC):
    """Rows and named columns in a file."""

    #: In the order of the file.
    names: tuple[str, ...]
    #: Names of columns that hold texts or truth values, and of those that hold a vector in each row.
    texts: frozenset[str] = frozenset()
    vectors: frozenset[str] = frozenset()
    #: Whether reading a few columns costs less than reading all.
    by_column: bool = True
    #: Rows that could not be read; known once all are read.
    unreadable: int = 0

    @abc.abstractmethod
    def pieces(self, names: Sequence[str]) -> Iterator[Columns]:
        """Yield the named columns, some rows at a time; a vector column as n x d numbers."""


def open_table(path: Path) -> Table:
    """Return the table in a file, by its suffix.

    :raises SpecificationError: there is no such file, or it is none of the known kinds.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        raise SpecificationError(f"there is no file {path}")
    if suffix not in SUFFIXES:
        raise SpecificationError(f"{path} is no table: its name must end in {', '.join(SUFFIXES)}")
    if suffix == ".parquet":
        return ParquetTable(path)
    return CsvTable(path) if suffix == ".csv" else NumpyTable(path)


def _rows_at_once(columns: int) -> int:
    return max(_LEAST_ROWS, min(_MOST_ROWS, _VALUES_AT_ONCE // max(1, columns)))


class ParquetTable(Table):
    """A Parquet file."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise SpecificationError(
                f"reading {path} needs pyarrow: pip install 'airflow-dlaws[validation]'"
            ) from error
        self._path = path
        try:
            first = parquet.ParquetFile(path)
        except (OSError, ValueError) as error:
            raise SpecificationError(f"{path} cannot be read as Parquet: {error}") from error
        fields = {field.name: str(field.type) for field in first.schema_arrow}
        texts = [name for name, kind in fields.items() if kind in {"string", "large_string"} or "dictionary" in kind]
        self.names = tuple(fields)
        self.texts = frozenset([*texts, *(name for name, kind in fields.items() if kind == "bool")])
        self.vectors = frozenset(name for name, kind in fields.items() if "list<" in kind)
        # Without pre-buffering and with a buffer, pages are read as they are needed.
        self._file = parquet.ParquetFile(
            path, metadata=first.metadata, read_dictionary=texts, buffer_size=_PARQUET_BUFFER, pre_buffer=False
        )

    def pieces(self, names: Sequence[str]) -> Iterator[Columns]:
        """Yield the named columns."""
        size = _rows_at_once(len(names))
        try:
            # One thread: two would need twice the memory, and more CPU altogether.
            for batch in self._file.iter_batches(batch_size=size, columns=list(names), use_threads=False):
                yield {name: arrow_column(batch.column(name)) for name in names}
        except (OSError, ValueError) as error:
            raise SpecificationError(f"{self._path} cannot be read as Parquet: {error}") from error


def arrow_column(column: Any) -> NDArray[Any] | Sequence[object] | Coded:
    """Return an Arrow array as numbers (NaN for null), as codes, as n x d vectors, or as Python values."""
    import numpy as np

    kind = str(column.type)
    if kind.startswith("dictionary<"):
        codes = _plain_numbers(column.indices, fill=-1)
        if codes is not None:
            return Coded(codes=codes.astype(np.int64), values=column.dictionary.to_pylist())
    if kind.startswith("fixed_size_list<") and not column.null_count:
        flat = _plain_numbers(column.flatten(), fill=np.nan)
        if flat is not None:
            return flat.reshape(len(column), -1)
    numbers = _plain_numbers(column, fill=np.nan)
    return column.to_pylist() if numbers is None else numbers


#: Arrow's names of numeric types, and numpy's.
_TYPES = {
    "float": "f4", "double": "f8", "halffloat": "f2",
    **{f"{sign}int{bits}": f"{sign or 'i'}{bits // 8}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip


def _plain_numbers(column: Any, *, fill: float) -> NDArray[Any] | None:
    """Return the numbers of an Arrow array out of its buffers, or None where it has none."""
    import numpy as np

    kind = _TYPES.get(str(column.type))
    if kind is None:
        return None
    valid, data = column.buffers()
    numbers: NDArray[Any] = (
        np.frombuffer(data, dtype=kind)[column.offset :][: len(column)] if data else np.empty(0, kind)
    )
    if not column.null_count:
        return numbers
    bits = np.unpackbits(np.frombuffer(valid, dtype=np.uint8), bitorder="little")[column.offset :][: len(column)]
    wide = np.result_type(numbers.dtype, np.float32) if np.isnan(fill) else np.dtype(np.int64)
    return np.where(bits, numbers.astype(wide), wide.type(fill))


class CsvTable(Table):
    """A CSV file whose first line names the columns; all its values are texts."""

    by_column = False

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._open() as file:
            self.names = tuple(name.strip() for name in next(csv.reader(file), []))
        if not self.names or len(set(self.names)) < len(self.names):
            raise SpecificationError(f"{path}: the first line must name the columns, each once; it is {self.names}")
        self.texts = self._not_numbers()

    def _open(self) -> Any:
        return self._path.open(encoding="utf-8-sig", errors="replace", newline="")

    def _not_numbers(self) -> frozenset[str]:
        """Return the columns with a text, among the first rows, that is neither a number nor a word for none."""
        found: set[str] = set()
        with self._open() as file:
            rows = self._fitting(csv.reader(file))
            next(rows, None)
            for row in itertools.islice(rows, _LEAST_ROWS):
                found.update(name for name, value in zip(self.names, row, strict=True) if _is_text(value))
        return frozenset(found)

    def pieces(self, names: Sequence[str]) -> Iterator[Columns]:
        """Yield the named columns; a row with another number of values is left out and counted."""
        places = [(name, self.names.index(name)) for name in names]
        self.unreadable = 0
        with self._open() as file:
            rows = self._fitting(csv.reader(file))
            next(rows, None)
            while chunk := list(itertools.islice(rows, _rows_at_once(len(self.names)))):
                yield {name: [row[place] for row in chunk] for name, place in places}

    def _fitting(self, reader: Iterator[list[str]]) -> Iterator[list[str]]:
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error:
                row = [""] * (len(self.names) + 1)
            if len(row) == len(self.names):
                yield row
            elif row:  # blank lines are no rows
                self.unreadable += 1


def _is_text(value: str) -> bool:
    word = value.strip()
    try:
        float(word)
    except ValueError:
        return word.lower() not in {"", "na", "n/a", "null", "none"}
    return "_" in word


class NumpyTable(Table):
    """The array of an NPY file, which stays on disk, or the arrays of an NPZ file, of which one is in memory at once.

    A matrix of an NPY file is called "embedding", and a single column "values"; NPZ files name their arrays.
    """

    def __init__(self, path: Path) -> None:
        import numpy as np

        try:
            loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise SpecificationError(f"{path} cannot be read as arrays of numpy: {error}") from error
        if isinstance(loaded, np.ndarray):
            self._arrays: Any = {"embedding" if loaded.ndim == 2 else "values": loaded}
        else:
            self._arrays = loaded
        self.names = tuple(self._arrays)
        shapes = {}
        for name in self.names:
            array = self._arrays[name]
            shapes[name] = array.shape
            if array.dtype.kind not in "fiubU" or array.ndim not in (1, 2):
                raise SpecificationError(
                    f"{path}: {name!r} is {array.dtype} {array.shape}; columns and matrices are read"
                )
            self.texts |= {name} if array.dtype.kind in "Ub" else set()
            self.vectors |= {name} if array.ndim == 2 else set()
        if len({shape[0] for shape in shapes.values()}) != 1:
            raise SpecificationError(f"{path}: arrays need the same number of rows; they are {shapes}")

    def pieces(self, names: Sequence[str]) -> Iterator[Columns]:
        """Yield the named arrays."""
        arrays = {name: self._arrays[name] for name in names}
        rows, width = (
            len(next(iter(arrays.values()))),
            sum(array.size // len(array) for array in arrays.values() if len(array)),
        )
        size = _rows_at_once(width)
        for start in range(0, rows, size):
            yield {name: array[start : start + size] for name, array in arrays.items()}
