"""From what a shard has read to named tensors: every tensor of a batch has one row a sample.

Rows of one field have one shape, that of sample 0, or the field is declared ragged: then rows are padded with zeros to
the longest of the batch, and `NAME.length` (int64) says how long each one was.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sm_runtime.readers.errors import DataRefused, ReaderError

#: One row a sample, or a list of rows of unequal shapes.
Column = torch.Tensor | np.ndarray | list[np.ndarray]
Columns = dict[str, Column]
Batch = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Field:
    """What a field holds, where the format does not say it.

    :param decode: from the bytes of one sample to an array, e.g. `image_decoder()`.
    :param dtype: numpy's name ("uint8", "<f4"). Bytes (several uint8 a sample) are taken as such numbers, others are
        converted.
    :param shape: shape of one sample.
    :param ragged: samples are one-dimensional and differ in length.
    """

    decode: Callable[[bytes], np.ndarray] | None = None
    dtype: str | None = None
    shape: tuple[int, ...] | None = None
    ragged: bool = False


PLAIN = Field()


def finish(columns: Columns, fields: Mapping[str, Field]) -> Batch:
    """Return the tensors of a batch."""
    batch: Batch = {}
    for name, column in columns.items():
        field = fields.get(name, PLAIN)
        try:
            column = _decoded(column, field)
            batch.update(_padded(name, column) if field.ragged else {name: _even(name, column, field)})
        except ReaderError:
            raise
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataRefused(f"field {name!r} does not fit {field}: {error}") from error
    return batch


def strings(batch: Batch, name: str) -> list[str]:
    """Return the text of a ragged field of bytes."""
    rows = zip(batch[name].numpy(), batch[f"{name}.length"].tolist(), strict=True)
    return [row[:length].tobytes().decode() for row, length in rows]


def merge(pieces: list[tuple[np.ndarray, Columns]], samples: int) -> Columns:
    """Put columns of several shards or blocks together.

    :param pieces: (places of the rows in the result, columns).
    """
    if len(pieces) == 1 and np.array_equal(pieces[0][0], np.arange(samples)):
        return pieces[0][1]
    names = list(pieces[0][1])
    for _, columns in pieces:
        if set(columns) != set(names):
            raise DataRefused(f"fields differ between samples: {sorted(names)} and {sorted(columns)}")
    return {name: _merged([(places, columns[name]) for places, columns in pieces], samples) for name in names}


def _merged(pieces: list[tuple[np.ndarray, Column]], samples: int) -> Column:
    first = pieces[0][1]
    if isinstance(first, list) or any(
        isinstance(column, list) or column.shape[1:] != first.shape[1:] or column.dtype != first.dtype
        for _, column in pieces
    ):
        rows: list[Any] = [None] * samples
        for places, column in pieces:
            for place, row in zip(places.tolist(), column, strict=True):
                rows[place] = np.asarray(row)
        return rows
    if isinstance(first, torch.Tensor):
        merged = first.new_empty((samples, *first.shape[1:]))
        for places, column in pieces:
            merged[torch.from_numpy(places)] = column
        return merged
    out = np.empty((samples, *first.shape[1:]), first.dtype)
    for places, column in pieces:
        out[places] = column
    return out


def _decoded(column: Column, field: Field) -> Column:
    if field.decode is not None:
        return [np.asarray(field.decode(np.asarray(row).tobytes())) for row in column]
    if field.dtype is None:
        return column
    dtype = np.dtype(field.dtype)
    if isinstance(column, list):
        return [_as(np.asarray(row), dtype) for row in column]
    column = np.asarray(column)
    # A single uint8 a sample is a number, not bytes of another.
    return column.astype(dtype, casting="same_kind") if column.ndim == 1 else _as(column, dtype)


def _as(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return (
        np.ascontiguousarray(array).view(dtype) if array.dtype == np.uint8 else array.astype(dtype, casting="same_kind")
    )


def _even(name: str, column: Column, field: Field) -> torch.Tensor:
    if isinstance(column, list):
        shapes = {np.shape(row) for row in column}
        if len(shapes) > 1:
            raise DataRefused(
                f"samples of field {name!r} have the shapes {sorted(shapes)[:4]}: declare it with "
                f"fields={{{name!r}: Field(ragged=True)}}, or give a decode that makes them one shape"
            )
        column = np.stack(column)
    tensor = as_tensor(column)
    if field.shape is not None:
        return tensor.reshape(len(tensor), *field.shape)
    # A list of one number, as TFRecord writes a scalar, is a scalar.
    return tensor.squeeze(1) if tensor.dim() == 2 and tensor.shape[1] == 1 else tensor


def _padded(name: str, column: Column) -> Batch:
    rows = [torch.atleast_1d(as_tensor(np.asarray(row))) for row in column]
    if any(row.dim() != 1 for row in rows):
        raise DataRefused(f"field {name!r} is ragged and has more than one dimension: flatten it, or decode it")
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True) if rows else torch.empty(0, 0)
    return {name: padded, f"{name}.length": lengths}


def as_tensor(column: torch.Tensor | np.ndarray) -> torch.Tensor:
    """Return a tensor in this machine's byte order that owns its memory or may be written."""
    if isinstance(column, torch.Tensor):
        return column
    if not column.dtype.isnative:
        column = column.astype(column.dtype.newbyteorder("="))
    if not (column.flags.writeable and column.flags.c_contiguous):
        column = np.array(column, order="C")
    return torch.from_numpy(column)
