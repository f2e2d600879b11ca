"""npy, npz and .pth: arrays that are mapped where they are stored as they are; zip archives are checked whole, once."""

import pickle
import re
import tokenize
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from sm_runtime.readers.errors import DataCorrupt, DataRefused
from sm_runtime.readers.fields import Columns
from sm_runtime.readers.shard import BlockCache, BlockShard, MappedShard, Shard

#: What an archive may unpack to; more is taken for a decompression bomb.
UNPACKED_BYTES = 8 << 30


def npy_shards(paths: Iterable[Path]) -> list[MappedShard]:
    """Group FIELD.npy, or FIELD-00000.npy where there are several of a field, into shards."""
    groups: dict[tuple[Path, str], dict[str, Path]] = {}
    for path in paths:
        name, number = re.fullmatch(r"(.*?)(?:-(\d+))?", path.stem).groups()
        groups.setdefault((path.parent, number or ""), {})[name] = path
    return [_mapped(next(iter(files.values())), lambda files=files: _npy(files)) for files in groups.values()]


def npz_shard(path: Path, cache: BlockCache) -> Shard:
    """Read an archive of arrays: stored ones are mapped, compressed ones unpacked. Its CRC-32 are checked first."""
    check_zip(path)
    mapped = _mapped(path, lambda: _npz(path))
    with zipfile.ZipFile(path) as archive:
        stored = all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
    return mapped if stored else UnpackedShard(path, mapped.samples, cache)


class UnpackedShard(BlockShard):
    """A compressed archive: one block, so that no more than a few are unpacked at a time."""

    def __init__(self, path: Path, samples: int, cache: BlockCache) -> None:
        super().__init__(path, np.array([samples], np.int64), cache)

    def load(self, block: int) -> Columns:
        """Unpack all arrays."""
        return _npz(self.path)

    def _open(self) -> None:
        """Nothing: the archive is closed once it is unpacked."""


def pth_shard(path: Path) -> MappedShard:
    """Map the tensors of a file of torch.save: a dict of tensors, or one tensor. Nothing but tensors is unpickled."""
    if not zipfile.is_zipfile(path):
        raise DataCorrupt(path, "no whole zip archive: cut off, or of torch before 1.6 (save it again with torch.save)")
    check_zip(path)
    return _mapped(path, lambda: _pth(path))


def check_zip(path: Path) -> None:
    """Read an archive through once.

    :raises DataCorrupt: a CRC-32 is wrong, or the archive is cut off.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
            if unpacked > max(UNPACKED_BYTES, path.stat().st_size):
                raise DataRefused(f"{path} unpacks to {unpacked} bytes: at most {UNPACKED_BYTES}; cut it into shards")
            broken = archive.testzip()
    except DataRefused:
        raise
    except Exception as error:  # zlib.error, BadZipFile, EOFError, NotImplementedError...: the bytes are wrong
        raise DataCorrupt(path, f"the zip archive is broken: {error}") from error
    if broken:
        raise DataCorrupt(path, f"the checksum of {broken} is wrong (CRC-32)")


def _mapped(path: Path, arrays) -> MappedShard:
    found = arrays()
    lengths = {name: len(array) if array.ndim else None for name, array in found.items()}
    if len(set(lengths.values())) != 1 or None in lengths.values():
        raise DataRefused(f"{path}: each array needs a row for each sample, they have {lengths}")
    return MappedShard(path, next(iter(lengths.values())), arrays)


def _npy(files: dict[str, Path]) -> dict:
    return {key: column for name, path in files.items() for key, column in _columns(name, _load(path)).items()}


def _load(path: Path) -> np.ndarray:
    try:
        # Copy on write: torch wants memory that may be written; nothing reaches the file.
        return np.load(path, mmap_mode="c", allow_pickle=False)
    except ValueError as error:
        if "pickle" in str(error) or "Python objects" in str(error):
            raise DataRefused(f"{path} holds Python objects, which could run code: save numbers") from error
        raise DataCorrupt(path, f"no whole npy file: {error}") from error
    except (EOFError, SyntaxError, tokenize.TokenError) as error:  # numpy reads headers as Python
        raise DataCorrupt(path, f"no whole npy file: {error}") from error


def _npz(path: Path) -> dict:
    found = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            try:
                with archive.open(member) as file:
                    if member.compress_type == zipfile.ZIP_STORED:
                        array = _map_member(path, file, member)
                    else:
                        array = np.lib.format.read_array(file, allow_pickle=False)
            except ValueError as error:
                raise DataRefused(f"{path}, {member.filename}: {error}") from error
            found.update(_columns(name, array))
    return found


def _map_member(path: Path, file, member: zipfile.ZipInfo) -> np.ndarray:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("Python objects, which could run code: save numbers")
    header = file.tell()
    with path.open("rb") as plain:  # the local header's name and extra field may differ from the central directory's
        plain.seek(member.header_offset + 26)
        lengths = plain.read(4)
    start = member.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
    order = "F" if fortran else "C"
    return np.memmap(path, dtype, "c", offset=start + header, shape=shape, order=order)


def _pth(path: Path) -> dict[str, torch.Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise DataRefused(f"{path} holds more than tensors, which could run code: save a dict of tensors") from error
    except RuntimeError as error:
        raise DataCorrupt(path, f"torch cannot load it: {error}") from error
    if isinstance(loaded, torch.Tensor):
        return {"value": loaded}
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise DataRefused(f"{path} holds a {type(loaded).__name__}: save a dict of tensors with a row for each sample")
    return loaded


def _columns(name: str, array: np.ndarray) -> dict[str, torch.Tensor | np.ndarray]:
    if array.dtype.names:
        return {field: array[field] for field in array.dtype.names}
    if array.dtype.isnative and array.flags.c_contiguous:
        return {name: torch.from_numpy(np.asarray(array))}
    return {name: array}
