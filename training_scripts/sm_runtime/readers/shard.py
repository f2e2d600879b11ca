"""One file (or folder) of samples, and the two ways to read one: mapped into memory, and in blocks through a cache."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sm_runtime.readers.fields import Column, Columns, merge


class Shard:
    """Samples of one file. The index is kept; what the operating system holds open may be closed at any time.

    :ivar samples: how many there are.
    :ivar blocks: sizes of the runs of samples that cost as much to read as one of them; None: each is cheap alone.
    """

    blocks: np.ndarray | None = None

    def __init__(self, path: Path, samples: int) -> None:
        self.path, self.samples = path, samples
        self._handle: Any = None

    def rows(self, local: np.ndarray) -> Columns:
        """Return samples by their number in this shard (int64[n]), in that order."""
        raise NotImplementedError

    @property
    def handle(self) -> Any:
        """What the library opened; opened again where it was closed."""
        if self._handle is None:
            self._handle = self._open()
        return self._handle

    def close(self) -> None:
        """Give back what the operating system holds."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            self._close(handle)

    def _open(self) -> Any:
        raise NotImplementedError

    def _close(self, handle: Any) -> None:
        handle.close()


class MappedShard(Shard):
    """Arrays that lie in a file as they lie in memory: a batch is one gather, and the page cache is the only cache."""

    def __init__(self, path: Path, samples: int, arrays: Callable[[], dict[str, torch.Tensor | np.ndarray]]) -> None:
        super().__init__(path, samples)
        self._arrays = arrays

    def rows(self, local: np.ndarray) -> Columns:
        return {name: take(array, local) for name, array in self.handle.items()}

    def _open(self) -> dict[str, torch.Tensor | np.ndarray]:
        return self._arrays()

    def _close(self, handle: Any) -> None:
        """Nothing: the mapping ends with the last array that uses it."""


class BlockCache:
    """The blocks used last, so many of them: memory stays bounded whatever the size of the data."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._blocks: OrderedDict[Any, Columns] = OrderedDict()

    def get(self, key: Any, load: Callable[[], Columns]) -> Columns:
        """Return a block, loading it where it is not at hand."""
        if key not in self._blocks:
            while len(self._blocks) >= self.capacity:
                self._blocks.popitem(last=False)
            self._blocks[key] = load()
        self._blocks.move_to_end(key)
        return self._blocks[key]


class BlockShard(Shard):
    """Samples that are compressed or parsed together: a block is loaded whole, and kept for its other samples."""

    def __init__(self, path: Path, sizes: np.ndarray, cache: BlockCache) -> None:
        super().__init__(path, int(sizes.sum()))
        self.blocks = sizes
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._cache = cache

    def rows(self, local: np.ndarray) -> Columns:
        of = np.searchsorted(self._starts, local, side="right") - 1
        pieces = []
        for block in np.unique(of):
            places = np.flatnonzero(of == block)
            columns = self._cache.get((self.path, int(block)), lambda block=block: self.load(int(block)))
            within = local[places] - self._starts[block]
            pieces.append((places, {name: take(column, within) for name, column in columns.items()}))
        return merge(pieces, len(local))

    def span(self, block: int) -> tuple[int, int]:
        """Return the first sample of a block and the one after its last."""
        return int(self._starts[block]), int(self._starts[block + 1])

    def load(self, block: int) -> Columns:
        """Read one block."""
        raise NotImplementedError


def even_blocks(samples: int, size: int) -> np.ndarray:
    """Return the sizes of blocks of `size` samples, the last one smaller."""
    sizes = np.full(-(-samples // size), size, np.int64)
    if samples % size:
        sizes[-1] = samples % size
    return sizes


def take(column: Column, local: np.ndarray) -> Column:
    """Return a copy of rows; neighbours in order are one copy instead of a gather."""
    if isinstance(column, list):
        return [column[place] for place in local.tolist()]
    first = int(local[0]) if len(local) else 0
    run = bool(len(local)) and local[-1] - first == len(local) - 1 and bool((np.diff(local) == 1).all())
    if isinstance(column, torch.Tensor):
        return column[first : first + len(local)].clone() if run else column[torch.from_numpy(local)]
    return column[first : first + len(local)].copy() if run else column[local]
