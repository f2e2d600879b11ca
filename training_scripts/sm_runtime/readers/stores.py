"""HDF5, LMDB and N5."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from sm_runtime.readers.codecs import Codec, decoder
from sm_runtime.readers.errors import DataCorrupt, DataRefused, library
from sm_runtime.readers.fields import Columns
from sm_runtime.readers.shard import BlockCache, BlockShard, Shard, even_blocks
from sm_runtime.readers.wire import WireError

#: Samples that a block has at least, where chunks are smaller.
BLOCK_ROWS = 256
#: What h5py raises where the library finds bytes wrong.
H5_ERRORS = (OSError, KeyError, RuntimeError, ValueError)


class Hdf5Shard(BlockShard):
    """Datasets of the root and its groups, with a row a sample. The library checks Fletcher-32 where it is set."""

    def __init__(self, path: Path, cache: BlockCache) -> None:
        self.path, self._handle = path, None
        h5py = library("h5py", "h5py", "HDF5")
        found: dict[str, Any] = {}
        try:
            self.handle.visititems(
                lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None
            )
        except H5_ERRORS as error:
            raise DataCorrupt(path, f"its groups cannot be read: {error}") from error
        samples = _samples(path, {name: item.shape for name, item in found.items()})
        self._names = sorted(found)
        chunk = max([item.chunks[0] if item.chunks else 1 for item in found.values()])
        super().__init__(path, even_blocks(samples, chunk * -(-BLOCK_ROWS // chunk)), cache)

    def load(self, block: int) -> Columns:
        """Read one run of chunks."""
        start, end = self.span(block)
        try:
            columns = {name: self.handle[name][start:end] for name in self._names}
        except H5_ERRORS as error:
            raise DataCorrupt(self.path, f"cannot be read: {error}", record=start) from error
        return {name: _bytes(column) if column.dtype == object else column for name, column in columns.items()}

    def _open(self) -> Any:
        h5py = library("h5py", "h5py", "HDF5")
        try:
            return h5py.File(self.path, "r")
        except OSError as error:
            raise DataCorrupt(self.path, f"no whole HDF5 file: {error}") from error


def _bytes(column: np.ndarray) -> list[np.ndarray]:
    return [np.frombuffer(row, np.uint8) if isinstance(row, bytes) else np.asarray(row) for row in column]


class LmdbShard(Shard):
    """Values in the order of their keys. LMDB has no checksum.

    :param skip: keys that are not samples.
    """

    def __init__(self, path: Path, codec: Codec, skip: frozenset[bytes]) -> None:
        super().__init__(path, 0)
        self._decode = decoder(codec)
        with self.handle.begin() as transaction:
            self._keys = [bytes(key) for key in transaction.cursor().iternext(values=False) if bytes(key) not in skip]
        self.samples = len(self._keys)

    def rows(self, local: np.ndarray) -> Columns:
        lmdb = library("lmdb", "lmdb", "LMDB")
        try:
            with self.handle.begin() as transaction:
                records = [transaction.get(self._keys[number]) for number in local.tolist()]
        except lmdb.Error as error:
            raise DataCorrupt(self.path, f"cannot be read: {error}", record=int(local[0])) from error
        if None in records:
            raise DataCorrupt(self.path, "a key is gone", record=int(local[records.index(None)]))
        try:
            return self._decode(records)
        except (WireError, UnicodeDecodeError) as error:
            raise DataCorrupt(self.path, f"values do not fit the codec: {error}", record=int(local[0])) from error

    def _open(self) -> Any:
        lmdb = library("lmdb", "lmdb", "LMDB")
        try:
            return lmdb.open(str(self.path), readonly=True, lock=False, subdir=self.path.is_dir(), max_readers=1024)
        except lmdb.Error as error:
            if "already open" in str(error):  # no second handle in a process: its locks would not hold
                raise DataRefused(f"{self.path} is open in this process already: use one Dataset of it") from error
            raise DataCorrupt(self.path, f"no whole LMDB: {error}") from error


class N5Shard(BlockShard):
    """Datasets of an N5 container, read by tensorstore. The samples lie along the slowest axis, N5's last one.

    N5 has no checksum of its own (gzip and bzip2 blocks have theirs). A missing block is an error, not zeros.
    """

    def __init__(self, path: Path, cache: BlockCache) -> None:
        self.path, self._handle = path, None
        shapes = {name: array.shape[::-1] for name, array in self.handle.items()}
        chunk = max(array.chunk_layout.read_chunk.shape[-1] for array in self.handle.values())
        super().__init__(path, even_blocks(_samples(path, shapes), chunk * -(-BLOCK_ROWS // chunk)), cache)

    def load(self, block: int) -> Columns:
        """Read one run of N5 blocks."""
        start, end = self.span(block)
        try:
            reads = {name: array[..., start:end].read() for name, array in self.handle.items()}
            return {name: np.ascontiguousarray(read.result().T) for name, read in reads.items()}
        except ValueError as error:
            raise DataCorrupt(self.path, f"a block cannot be read: {error}", record=start) from error

    def _open(self) -> dict[str, Any]:
        tensorstore = library("tensorstore", "tensorstore", "N5")
        found = {}
        for attributes in sorted(self.path.rglob("attributes.json")):
            try:
                is_array = "dimensions" in json.loads(attributes.read_text())
            except ValueError as error:
                raise DataCorrupt(attributes, f"no JSON: {error}") from error
            if is_array:
                store = {"driver": "file", "path": f"{attributes.parent}/"}
                spec = {"driver": "n5", "kvstore": store, "fill_missing_data_reads": False}
                try:
                    array = tensorstore.open(spec, read=True).result()
                except ValueError as error:
                    raise DataCorrupt(attributes, f"no N5 dataset: {error}") from error
                found[attributes.parent.relative_to(self.path).as_posix()] = array
        if not found:
            raise DataRefused(f"{self.path} has no N5 dataset: an attributes.json with dimensions")
        return found

    def _close(self, handle: Any) -> None:
        """Nothing: tensorstore holds no file open."""


def _samples(path: Path, shapes: dict[str, tuple[int, ...]]) -> int:
    lengths = {shape[0] if shape else None for shape in shapes.values()}
    if len(lengths) != 1 or None in lengths:
        raise DataRefused(f"{path}: each dataset needs a row for each sample, they have the shapes {shapes}")
    return int(lengths.pop())
