"""What a column of values means as numbers, categories or vectors: values.py for whole columns, with numpy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from airflow_dlaws.data.coded import Coded
from airflow_dlaws.drift.values import number_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]
    #: n numbers as a numpy array; n numbers, texts, truth values and None in any sequence; or codes.
    Column = NDArray[Any] | Sequence[object] | Coded


def read_numbers(column: Column) -> tuple[NDArray[Any], int]:
    """Return the numbers of a column, NaN where one is missing, and how many values were neither."""
    import numpy as np

    if isinstance(column, np.ndarray) and column.dtype.kind in "fiub":
        return column, 0
    if isinstance(column, Coded):
        numbers, wrong = _numbers_of([*column.values, None])  # code -1 finds the None
        return numbers[np.maximum(column.codes, -1)], int(wrong[np.maximum(column.codes, -1)].sum())
    numbers, wrong = _numbers_of(column.tolist() if isinstance(column, np.ndarray) else column)
    return numbers, int(wrong.sum())


def _numbers_of(values: Sequence[object]) -> tuple[Numbers, NDArray[np.bool_]]:
    """Return a number for each value, NaN where it has none, and whether it is neither a number nor missing."""
    import numpy as np

    if not any(isinstance(value, bytes) or (isinstance(value, str) and "_" in value) for value in values):
        try:
            return np.array(values, dtype=object).astype(np.float64), np.zeros(len(values), dtype=bool)
        except (TypeError, ValueError, OverflowError):  # a word for "missing", or no number: find out which
            pass
    numbers, wrong = np.full(len(values), np.nan), np.zeros(len(values), dtype=bool)
    for place, value in enumerate(values):
        try:
            number = number_of(value)
        except ValueError:
            wrong[place] = True
        else:
            numbers[place] = np.nan if number is None else number
    return numbers, wrong


def distinct(column: Column) -> Iterable[tuple[object, int]]:
    """Return the values that occur in a column, each with how often; the same one may come more than once."""
    import numpy as np

    if isinstance(column, Coded):
        codes, counted = np.unique(column.codes, return_counts=True)
        pairs = zip(codes.tolist(), counted.tolist(), strict=True)
        return [(None if code < 0 else column.values[code], count) for code, count in pairs]
    if isinstance(column, np.ndarray) and column.dtype.kind in "fiubU":
        values, counted = np.unique(column, return_counts=True)
        return zip(values.tolist(), counted.tolist(), strict=True)
    items = column.tolist() if isinstance(column, np.ndarray) else column
    try:
        # With its type, for 1, 1.0 and True are equal and are different categories.
        return [(value, count) for (_, value), count in Counter(zip(map(type, items), items, strict=True)).items()]
    except TypeError:  # a list or an object out of JSON has no hash
        return [(value, 1) for value in items]


def vectors(output: Any, dimension: int) -> NDArray[Any]:
    """Return n x d numbers; a row is NaN where the vector has another length, or is none.

    :param output: a numpy array of n x d, or n items that should be lists of d numbers.
    """
    import numpy as np

    if isinstance(output, np.ndarray) and output.ndim == 2 and output.dtype.kind in "fiu":
        return output if output.shape[1] == dimension else np.full((len(output), dimension), np.nan, dtype=np.float32)
    table = np.full((len(output), dimension), np.nan)
    for place, item in enumerate(output):
        if isinstance(item, (list, tuple, np.ndarray)) and len(item) == dimension:
            table[place] = _numbers_of(list(item))[0]
    return table
