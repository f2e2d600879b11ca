"""Files of records one behind the other: TFRecord and RecordIO. An index of their places makes them random access.

TFRecord (tensorflow/core/lib/io/record_writer.h): uint64 length, masked CRC-32C of it, data, masked CRC-32C of that.
RecordIO (dmlc-core, include/dmlc/recordio.h): magic, flag (3 bits) and length (29 bits), data, padding to 4; a record
whose data holds the magic number is split there. It has no checksum: only magic, lengths and flags can be checked.
"""

import hashlib
import os
import struct
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sm_runtime.readers.crc import crc32c, masked
from sm_runtime.readers.errors import DataCorrupt, DataRefused
from sm_runtime.readers.fields import Columns
from sm_runtime.readers.shard import Shard
from sm_runtime.readers.wire import WireError

#: Neighbouring records are read with one call, up to so many bytes.
READ_BYTES = 8 << 20
MAGIC = struct.pack("<I", 0xCED7230A)


class FrameError(ValueError):
    """A frame or a checksum is wrong.

    :param place: which one of the frames.
    """

    def __init__(self, place: int, what: str) -> None:
        super().__init__(what)
        self.place = place


#: From framed records to their data, all at once; raises FrameError.
Unpack = Callable[[list[bytes]], list[bytes]]


class RecordShard(Shard):
    """A file of framed records.

    :param index: start and size of every framed record, int64[n, 2].
    """

    def __init__(self, path: Path, index: np.ndarray, unpack: Unpack, decode: Callable[[list[bytes]], Columns]) -> None:
        super().__init__(path, len(index))
        self._index, self._unpack, self._decode = index, unpack, decode

    def rows(self, local: np.ndarray) -> Columns:
        sequence = np.argsort(local, kind="stable")
        numbers = local[sequence]
        frames = self._frames(numbers)
        try:
            unpacked = self._unpack(frames)
        except FrameError as error:
            number = int(numbers[error.place])
            raise DataCorrupt(self.path, str(error), record=number, offset=int(self._index[number, 0])) from error
        records: list[bytes] = [b""] * len(local)
        for place, record in zip(sequence.tolist(), unpacked, strict=True):
            records[place] = record
        try:
            return self._decode(records)
        except (WireError, UnicodeDecodeError):
            self._blame(local, records)
            raise

    def _frames(self, numbers: np.ndarray) -> list[bytes]:
        """Read framed records by ascending number. Shuffled ones are a call each, so that little is done around it."""
        starts, sizes = self._index[numbers].T.tolist()
        handle, frames = self.handle.fileno(), []
        for begin, end in self._runs(numbers):
            first, size = starts[begin], starts[end - 1] + sizes[end - 1] - starts[begin]
            data = os.pread(handle, size, first)
            if len(data) < size:
                data = self._rest(data, first, size, int(numbers[begin]))
            if end - begin == 1:
                frames.append(data)
            else:
                frames += [data[starts[at] - first : starts[at] - first + sizes[at]] for at in range(begin, end)]
        return frames

    def _runs(self, numbers: np.ndarray) -> list[tuple[int, int]]:
        """Cut sorted numbers where records are no neighbours, and where a read would be too long."""
        far = self._index[numbers, 0] // READ_BYTES
        cuts = np.flatnonzero((np.diff(numbers) > 1) | (np.diff(far) > 0)) + 1
        return [(begin, end) for begin, end in pairwise([0, *cuts.tolist(), len(numbers)]) if end > begin]

    def _rest(self, data: bytes, offset: int, size: int, record: int) -> bytes:
        """Read on: a call may return less than was asked for."""
        while len(data) < size:
            more = os.pread(self.handle.fileno(), size - len(data), offset + len(data))
            if not more:
                raise DataCorrupt(self.path, "the file became shorter", record=record, offset=offset)
            data += more
        return data

    def _blame(self, local: np.ndarray, records: list[bytes]) -> None:
        for number, record in zip(local.tolist(), records, strict=True):
            try:
                self._decode([record])
            except (WireError, UnicodeDecodeError) as error:
                start = int(self._index[number, 0])
                raise DataCorrupt(self.path, str(error), record=number, offset=start) from error

    def _open(self) -> Any:
        return self.path.open("rb", buffering=0)


def tfrecord_index(path: Path) -> np.ndarray:
    """Find the records of a TFRecord file; the checksums of all lengths are checked."""
    header = _tfrecord_header()
    found, at, end = [], 0, path.stat().st_size
    with path.open("rb") as file:
        while at < end:
            frame = _at(file, path, at, 12, len(found))
            (length,) = struct.unpack_from("<Q", frame)
            if frame != header(length):
                hint = "; it is compressed with gzip: decompress it first" if frame[:2] == b"\x1f\x8b" else ""
                raise DataCorrupt(path, f"the checksum of the length is wrong{hint}", record=len(found), offset=at)
            if at + 16 + length > end:
                what = f"the file ends after {end - at} of {16 + length} bytes of the record"
                raise DataCorrupt(path, what, record=len(found), offset=at)
            found.append((at, 16 + length))
            at += 16 + length
    return np.array(found, np.int64).reshape(-1, 2)


def unpack_tfrecord() -> Unpack:
    """Return the function that checks both checksums of framed records, with numpy around the CRC itself."""
    checksum, header = crc32c(), _tfrecord_header()

    def unpack(frames: list[bytes]) -> list[bytes]:
        records = [frame[12:-4] for frame in frames]
        if b"".join([frame[:12] for frame in frames]) != b"".join([header(len(record)) for record in records]):
            wrong = [frame[:12] != header(len(record)) for frame, record in zip(frames, records, strict=True)]
            raise FrameError(wrong.index(True), "the length or its checksum is wrong")
        stored = np.frombuffer(b"".join([frame[-4:] for frame in frames]), "<u4")
        found = masked(np.fromiter(map(checksum, records), np.uint32, len(records)))
        if not np.array_equal(found, stored):
            raise FrameError(int(np.argmax(found != stored)), "the checksum of the data is wrong (CRC-32C)")
        return records

    return unpack


def _tfrecord_header() -> Callable[[int], bytes]:
    checksum = crc32c()

    @lru_cache(maxsize=65536)
    def header(length: int) -> bytes:
        packed = struct.pack("<Q", length)
        return packed + masked(np.array([checksum(packed)], np.uint32)).astype("<u4").tobytes()

    return header


def recordio_index(path: Path) -> np.ndarray:
    """Find the records of a RecordIO file, whole and split ones."""
    found, at, end, start = [], 0, path.stat().st_size, -1
    with path.open("rb") as file:
        while at < end:
            frame = _at(file, path, at, 8, len(found))
            flag, length = _recordio_frame(frame, path, len(found), at)
            after = at + 8 + length + -length % 4
            if after > end:
                what = f"the file ends after {end - at} of {after - at} bytes of the part"
                raise DataCorrupt(path, what, record=len(found), offset=at)
            if (flag in (0, 1)) != (start < 0):
                raise DataCorrupt(path, f"flag {flag} in the wrong place", record=len(found), offset=at)
            start = at if start < 0 else start
            if flag in (0, 3):
                found.append((start, after - start))
                start = -1
            at = after
    if start >= 0:
        raise DataCorrupt(path, "the file ends within a split record", record=len(found), offset=start)
    return np.array(found, np.int64).reshape(-1, 2)


def unpack_recordio(frames: list[bytes]) -> list[bytes]:
    """Return the data of records; the parts of a split one are joined by the magic number that was cut out."""
    return [MAGIC.join(_parts(frame, place)) for place, frame in enumerate(frames)]


def _parts(frame: bytes, place: int) -> list[bytes]:
    parts, at = [], 0
    while at < len(frame):
        magic, word = frame[at : at + 4], int.from_bytes(frame[at + 4 : at + 8], "little")
        length = word & (1 << 29) - 1
        if magic != MAGIC or at + 8 + length > len(frame):
            raise FrameError(place, "the magic number or the length is wrong")
        parts.append(frame[at + 8 : at + 8 + length])
        at += 8 + length + -length % 4
    return parts


def _recordio_frame(frame: bytes, path: Path, record: int, at: int) -> tuple[int, int]:
    if frame[:4] != MAGIC:
        raise DataCorrupt(path, f"no magic number, but {frame[:4].hex()}", record=record, offset=at)
    word = int.from_bytes(frame[4:], "little")
    if word >> 29 > 3:
        raise DataCorrupt(path, f"there is no flag {word >> 29}", record=record, offset=at)
    return word >> 29, word & (1 << 29) - 1


def _at(file: BinaryIO, path: Path, at: int, size: int, record: int) -> bytes:
    file.seek(at)
    frame = file.read(size)
    if len(frame) < size:
        raise DataCorrupt(path, f"the file ends after {len(frame)} bytes of a header", record=record, offset=at)
    return frame


def cached_index(build: Callable[[Path], np.ndarray], path: Path, folder: Path | None) -> np.ndarray:
    """Return the index of a file, kept in `folder` under its place, size and time of change; None: built anew."""
    if folder is None:
        return build(path)
    state = path.stat()
    # The folder counts: files of one name, size and second of writing are common in several of them.
    place = hashlib.sha256(str(path.absolute().parent).encode()).hexdigest()[:16]
    stored = folder / f"{path.name}-{place}-{build.__name__}-{state.st_size}-{state.st_mtime_ns}.npz"
    try:
        with np.load(stored, allow_pickle=False) as archive:
            return archive["index"]
    except FileNotFoundError:
        index = build(path)
    except Exception as error:
        raise DataRefused(f"{stored} is no index: delete it ({error})") from error
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = stored.with_suffix(f".{os.getpid()}.tmp")
    with unfinished.open("wb") as file:
        np.savez(file, index=index)
    unfinished.replace(stored)
    return index
