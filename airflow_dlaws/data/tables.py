"""Tables in files (Parquet, CSV, JSON lines, NPY, NPZ) as columns in pieces, in bounded memory and at little cost.

Here are the tables of Parquet and numpy; those of text are in data/text_tables.py. Parquet is read with as little of
pyarrow as will do: converting columns through its own `to_numpy` would import pandas, which takes longer than reading
a hundred thousand rows. Texts of Parquet stay codes into a dictionary.
"""

from __future__ import annotations

import abc
import enum
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from airflow_dlaws.data.coded import Coded
from airflow_dlaws.errors import OutcomeUnacceptable, SpecificationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Columns = Mapping[str, NDArray[Any] | Sequence[object] | Coded]

#: Values in memory at once: two megabytes of float64 beside what a page of the file needs.
_VALUES_AT_ONCE = 1 << 18
_MOST_ROWS, _LEAST_ROWS = 1 << 17, 1 << 10

#: Without it, Arrow reads whole column chunks; a row group may be the whole file.
_PARQUET_BUFFER = 1 << 16

SUFFIXES = (".parquet", ".csv", ".npy", ".npz")


class TableFormat(enum.StrEnum):
    """How a table is written."""

    CSV = "csv"
    JSON_LINES = "jsonlines"
    PARQUET = "parquet"


class Table(abc.ABC):
    """Rows and named columns in a file."""

    #: In the order of the file; of JSON lines those of its first rows.
    names: tuple[str, ...]
    #: Names of columns that hold texts or truth values, and of those that hold a vector in each row.
    texts: frozenset[str] = frozenset()
    vectors: frozenset[str] = frozenset()
    #: Whether reading a few columns costs less than reading all.
    by_column: bool = True

    def __init__(self) -> None:
        #: How many rows could not be read, by kind (drift/body.py); known once all are read.
        self.faults: Counter[str] = Counter()

    @abc.abstractmethod
    def pieces(self, names: Sequence[str]) -> Iterator[Columns]:
        """Yield those of the named columns that there are, some rows at a time; a vector column as n x d numbers.

        :raises OutcomeUnacceptable: the file ends early, or is none of its kind.
        """


def open_table(path: Path) -> Table:
    """Return the table in a local file, by its suffix.

    :raises SpecificationError: there is no such file, or it is none of the known kinds.
    :raises OutcomeUnacceptable: it is not what its suffix says.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        raise SpecificationError(f"there is no file {path}")
    if suffix not in SUFFIXES:
        raise SpecificationError(f"{path} is no table: its name must end in {', '.join(SUFFIXES)}")
    if suffix in {".npy", ".npz"}:
        return NumpyTable(path)
    return read_table(path, str(path), TableFormat.CSV if suffix == ".csv" else TableFormat.PARQUET)


def read_table(
    file: Path | IO[bytes], where: str, written: TableFormat | str, *, names: Sequence[str] | None = None
) -> Table:
    """Return the table in a file of a known format.

    :param file: where it lies, or the open file, which can be read from any place and stays open.
    :param where: its name, for messages; text in a file whose name ends in .gz is unpacked.
    :param names: the columns of CSV without a header line; None where the first line is one.
    :raises SpecificationError: there is no such format.
    :raises OutcomeUnacceptable: nothing of the file can be read (it is no Parquet, its header is no CSV).
    """
    from airflow_dlaws.data.text_tables import CsvTable, JsonLinesTable

    known = table_format(written)
    if known is TableFormat.PARQUET:
        return ParquetTable(file, where)
    return CsvTable(file, where, names) if known is TableFormat.CSV else JsonLinesTable(file, where)


def table_format(written: str) -> TableFormat:
    """Return the format of this name.

    :raises SpecificationError: there is none.
    """
    try:
        return TableFormat(written)
    except ValueError:
        allowed = [each.value for each in TableFormat]
        raise SpecificationError(f"format={str(written)!r} is none of {allowed}") from None


def rows_at_once(columns: int) -> int:
    """Return how many rows of so many columns are read at once."""
    return max(_LEAST_ROWS, min(_MOST_ROWS, _VALUES_AT_ONCE // max(1, columns)))


class ParquetTable(Table):
    """A Parquet file."""

    def __init__(self, file: Path | IO[bytes], where: str) -> None:
        super().__init__()
        try:
            import pyarrow.parquet as parquet
            from pyarrow.lib import ArrowException
        except ImportError as error:
            raise SpecificationError(
                f"reading {where} needs pyarrow where it is read: pip install 'airflow-dlaws[validation]' ({error})"
            ) from error
        self._where, self._errors = where, (ArrowException, OSError, ValueError)
        try:
            first = parquet.ParquetFile(file)
        except self._errors as error:
            raise OutcomeUnacceptable(f"{where} cannot be read as Parquet: {error}") from error
        fields = {field.name: str(field.type) for field in first.schema_arrow}
        texts = [name for name, kind in fields.items() if kind in {"string", "large_string"} or "dictionary" in kind]
        self.names = tuple(fields)
        self.texts = frozenset([*texts, *(name for name, kind in fields.items() if kind == "bool")])
        self.vectors = frozenset(name for name, kind in fields.items() if "list<" in kind)
        # Without pre-buffering and with a buffer, pages are read as they are needed.
        self._file = parquet.ParquetFile(
            file, metadata=first.metadata, read_dictionary=texts, buffer_size=_PARQUET_BUFFER, pre_buffer=False
        )

    def pieces(self, names: Sequence[str]) -> Iterator[Columns]:
        """Yield the named columns."""
        there = [name for name in names if name in self.names]
        try:
            # One thread: two would need twice the memory, and more CPU altogether.
            for batch in self._file.iter_batches(rows_at_once(len(there)), columns=there, use_threads=False):
                yield {name: arrow_column(batch.column(name)) for name in there}
        except self._errors as error:
            raise OutcomeUnacceptable(f"{self._where} cannot be read as Parquet: {error}") from error


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


class NumpyTable(Table):
    """The array of an NPY file, which stays on disk, or the arrays of an NPZ file, of which one is in memory at once.

    A matrix of an NPY file is called "embedding", and a single column "values"; NPZ files name their arrays.
    """

    def __init__(self, path: Path) -> None:
        import numpy as np

        super().__init__()
        self._path = path
        with self._readable():
            loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            self._arrays: Any = {"embedding" if loaded.ndim == 2 else "values": loaded}
        else:
            self._arrays = loaded
        self.names = tuple(self._arrays)
        shapes = {}
        for name in self.names:
            with self._readable():
                array = self._arrays[name]
            shapes[name] = array.shape
            if array.dtype.kind not in "fiubU" or array.ndim not in (1, 2):
                raise OutcomeUnacceptable(
                    f"{path}: {name!r} is {array.dtype} {array.shape}; columns and matrices are read"
                )
            self.texts |= {name} if array.dtype.kind in "Ub" else set()
            self.vectors |= {name} if array.ndim == 2 else set()
        if len({shape[0] for shape in shapes.values()}) != 1:
            raise OutcomeUnacceptable(f"{path}: arrays need the same number of rows; they are {shapes}")

    def pieces(self, names: Sequence[str]) -> Iterator[Columns]:
        """Yield the named arrays."""
        with self._readable():
            arrays = {name: self._arrays[name] for name in names if name in self.names}
        rows, width = (
            len(next(iter(arrays.values()))),
            sum(array.size // len(array) for array in arrays.values() if len(array)),
        )
        size = rows_at_once(width)
        for start in range(0, rows, size):
            yield {name: array[start : start + size] for name, array in arrays.items()}

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Say so where an array cannot be read: cut off, changed on its way, or of Python objects."""
        try:
            yield
        except Exception as error:  # numpy, zipfile and zlib have many names for broken bytes
            raise OutcomeUnacceptable(f"{self._path} cannot be read as arrays of numpy: {error}") from error
