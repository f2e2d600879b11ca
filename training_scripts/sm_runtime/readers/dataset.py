"""Samples by number over many files: what every format looks like to a training loop."""

import hashlib
import os
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sm_runtime.readers.errors import DataRefused
from sm_runtime.readers.fields import Batch, Columns, Field, finish, merge
from sm_runtime.readers.order import Order, shuffled_windows
from sm_runtime.readers.shard import BlockCache, Shard
from sm_runtime.sampler import shuffled

#: Files held open at a time; a process may usually hold 1,024 (ulimit -n).
MAX_OPEN = 256


@dataclass(frozen=True)
class ShardInfo:
    """A line of the index: a file, its samples, its size in bytes."""

    path: Path
    samples: int
    bytes: int


class Dataset:
    """Answers `sm_runtime.Data`: a length, and batches by index, in the order asked for.

    Nothing but the index, the open files and a bounded number of blocks stays in memory.

    :param fields: what the format does not say about fields.
    :param columns: fields to return; None: all.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        *,
        cache: BlockCache,
        fields: Mapping[str, Field] | None = None,
        columns: Collection[str] | None = None,
    ) -> None:
        self._shards, self._cache = list(shards), cache
        self._starts = np.concatenate([[0], np.cumsum([shard.samples for shard in shards])]).astype(np.int64)
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._process = os.getpid()
        self._fields = {**(fields or {})}
        self._columns = None if columns is None else tuple(columns)
        if len(self) == 0:
            raise DataRefused(f"{len(shards)} files hold no sample: {[str(shard.path) for shard in shards[:3]]}")
        self.fields: dict[str, tuple[Any, tuple[int, ...] | None]] = {}
        first = self._finish(self._rows(np.zeros(1, np.int64)))
        ragged = {name for name, field in self._fields.items() if field.ragged}
        #: Name, dtype and shape of a sample; ragged fields have no fixed shape.
        self.fields = {
            name: (tensor.dtype, None if name in ragged else tuple(tensor.shape[1:])) for name, tensor in first.items()
        }

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def shards(self) -> tuple[ShardInfo, ...]:
        """The index."""
        return tuple(ShardInfo(shard.path, shard.samples, size(shard.path)) for shard in self._shards)

    @property
    def digest(self) -> str:
        """SHA-256 of the files' names and numbers of samples: the same wherever the whole channel is."""
        index = [(shard.path.name, shard.samples) for shard in self._shards]
        return hashlib.sha256(repr(index).encode()).hexdigest()

    def batch(self, indices: np.ndarray) -> Batch:
        """Return samples by number (int64[n]), in that order; each tensor has n rows.

        :raises DataCorrupt: a checksum, a length or a structure is wrong.
        :raises DataRefused: a sample does not have the type and shape of sample 0.
        """
        indices = np.asarray(indices, np.int64)
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(f"samples {indices.min()} to {indices.max()} were asked for, there are {len(self)}")
        batch = self._finish(self._rows(indices))
        if lacking := self.fields.keys() - batch.keys():
            where = self._shards[self._place(indices[0])].path
            raise DataRefused(f"a batch from {where} lacks the fields {sorted(lacking)}, which sample 0 has")
        for name, tensor in batch.items():
            dtype, shape = self.fields.get(name, (None, None))
            if tensor.dtype != dtype or (shape is not None and tuple(tensor.shape[1:]) != shape):
                raise DataRefused(
                    f"field {name!r} is {tensor.dtype} {list(tensor.shape[1:])} in a batch from sample {indices[0]} of "
                    f"{self._shards[self._place(indices[0])].path}, and {dtype} {shape} in sample 0: "
                    "give its type or shape with fields={...: Field(...)}, or declare it ragged"
                )
        return batch

    def order(self, seed: int, *, window: int = 8) -> Order:
        """Return a shuffled order for the sampler: of all samples where each is cheap to read alone, else in windows.

        :param window: blocks that are mixed, and held in memory, at a time.
        """
        if all(shard.blocks is None for shard in self._shards):
            return shuffled(len(self), seed)
        # Around a seam a batch needs blocks of two windows; then the older ones are not needed again.
        self._cache.capacity = 2 * window
        sizes = [shard.blocks if shard.blocks is not None else np.ones(shard.samples, int) for shard in self._shards]
        return shuffled_windows(np.concatenate(sizes), seed, window)

    def close(self) -> None:
        """Close all files; the next batch opens what it needs."""
        for shard in self._open.values():
            shard.close()
        self._open.clear()

    def _place(self, index: int) -> int:
        return int(np.searchsorted(self._starts, index, side="right")) - 1

    def _rows(self, indices: np.ndarray) -> Columns:
        if os.getpid() != self._process:  # handles of LMDB and HDF5 must not be used after a fork
            self.close()
            self._process = os.getpid()
        of = np.searchsorted(self._starts, indices, side="right") - 1
        pieces = []
        for number in np.unique(of).tolist():
            places = np.flatnonzero(of == number)
            pieces.append((places, self._used(number).rows(indices[places] - self._starts[number])))
        return merge(pieces, len(indices))

    def _used(self, number: int) -> Shard:
        shard = self._shards[number]
        self._open[number] = shard
        self._open.move_to_end(number)
        if len(self._open) * len(self.fields) > MAX_OPEN:  # every array that is mapped holds its file open
            self._open.popitem(last=False)[1].close()
        return shard

    def _finish(self, columns: Columns) -> Batch:
        if self._columns is not None:
            missing = set(self._columns) - set(columns)
            if missing:
                raise DataRefused(f"there is no field {sorted(missing)}, but {sorted(columns)}")
            columns = {name: columns[name] for name in self._columns}
        unknown = set(self._fields) - set(columns)
        if unknown and self._columns is None:
            raise DataRefused(f"fields={sorted(unknown)} are not in the data, which has {sorted(columns)}")
        return finish(columns, self._fields)


def size(path: Path) -> int:
    """Return the bytes of a file, or of all files of a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
