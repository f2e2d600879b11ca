"""Protocol buffers' wire format (protobuf.dev/programming-guides/encoding), as far as records of training data need it.

Records of one data set mostly differ in their values alone. So one record is parsed into the places of its values; all
others of the same length whose remaining bytes are equal are cut at those places at once, by numpy.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from sm_runtime.readers.fields import Column, Columns, merge

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
#: A varint of 64 bits takes 10 bytes.
VARINT_BYTES = 10


class WireError(ValueError):
    """The bytes are no message."""


@dataclass
class Values:
    """Where the values of one feature lie in a record.

    :param kind: "bytes" (a span is one value), "varint", or numpy's name of a number of fixed size.
    """

    kind: str
    spans: list[tuple[int, int]] = field(default_factory=list)


#: From one record to the places of its values by name.
Parser = Callable[[bytes], dict[str, Values]]


def varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Return a number and where it ends."""
    value = 0
    for count in range(VARINT_BYTES):
        if at + count >= end:
            raise WireError(f"a number at byte {at} runs over the end")
        byte = data[at + count]
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return value & (1 << 64) - 1, at + count + 1
    raise WireError(f"a number at byte {at} is longer than {VARINT_BYTES} bytes")


def message(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (field number, wire type, start, end) of each field between two places."""
    at = start
    while at < end:
        tag, at = varint(data, at, end)
        number, kind = tag >> 3, tag & 7
        begin = at
        if kind == LENGTH:
            length, begin = varint(data, at, end)
            at = begin + length
        elif kind in (FIXED64, FIXED32):
            at += 8 if kind == FIXED64 else 4
        elif kind == VARINT:
            _, at = varint(data, at, end)
        else:
            raise WireError(f"wire type {kind} at byte {begin}")
        if number == 0 or at > end:
            raise WireError(f"field {number} at byte {begin} runs over the end of its message")
        yield number, kind, begin, at


def decode(records: list[bytes], parse: Parser) -> Columns:
    """Return the values of records by name; each column has a row a record."""
    by_length: dict[int, list[int]] = {}
    for number, record in enumerate(records):
        by_length.setdefault(len(record), []).append(number)
    pieces = []
    for length, numbers in by_length.items():
        matrix = np.frombuffer(b"".join([records[number] for number in numbers]), np.uint8).reshape(-1, length)
        left = np.array(numbers)
        while len(left):
            layout = parse(records[left[0]])
            alike = _alike(matrix, layout)
            if alike.all():  # as nearly always: no copy of all bytes to sort them out
                pieces.append((left, {name: _column(matrix, values) for name, values in layout.items()}))
                break
            pieces.append((left[alike], {name: _column(matrix[alike], values) for name, values in layout.items()}))
            matrix, left = matrix[~alike], left[~alike]
    return merge(pieces, len(records))


def _alike(matrix: np.ndarray, layout: dict[str, Values]) -> np.ndarray:
    fixed = np.ones(matrix.shape[1], bool)
    for values in layout.values():
        for start, end in values.spans:
            # The last byte of every varint stays part of the frame: counts of numbers must agree too.
            fixed[start:end] = False
    places = np.flatnonzero(fixed)
    alike = (matrix[:, places] == matrix[0, places]).all(1)
    for values in layout.values():
        if values.kind == "varint":
            for start, end in values.spans:
                more = matrix[:, start:end] >= 0x80
                alike &= (more == more[0]).all(1)
    return alike


def _column(matrix: np.ndarray, values: Values) -> Column:
    parts = [matrix[:, start:end] for start, end in values.spans]
    if values.kind == "bytes":
        if len(parts) == 1:
            return np.ascontiguousarray(parts[0])
        if len({part.shape[1] for part in parts}) > 1:
            raise WireError(f"{len(parts)} values of unequal lengths in one feature of bytes are not read")
        return np.stack(parts, 1) if parts else np.empty((len(matrix), 0), np.uint8)
    joined = np.ascontiguousarray(np.concatenate(parts, 1)) if parts else np.empty((len(matrix), 0), np.uint8)
    if values.kind != "varint":
        kind = np.dtype(values.kind)
        if joined.shape[1] % kind.itemsize:
            raise WireError(f"{joined.shape[1]} bytes are no whole number of {kind}")
        return joined.view(kind)
    return varints(joined)


def varints(matrix: np.ndarray) -> np.ndarray:
    """Return the numbers (int64[n, k]) in rows of packed varints (uint8[n, m]) whose lengths agree over the rows."""
    if not matrix.size:
        return np.empty((len(matrix), 0), np.int64)
    ends = np.flatnonzero(matrix[0] < 0x80) + 1
    if not len(ends) or ends[-1] != matrix.shape[1]:
        raise WireError("the last number is cut off")
    starts = np.concatenate([[0], ends[:-1]])
    if (ends - starts).max() > VARINT_BYTES:
        raise WireError(f"a number is longer than {VARINT_BYTES} bytes")
    out = np.zeros((len(matrix), len(ends)), np.uint64)
    for count in range(int((ends - starts).max())):
        here = np.flatnonzero(ends - starts > count)
        bits = (matrix[:, starts[here] + count] & 0x7F).astype(np.uint64)
        out[:, here] |= bits << np.uint64(7 * count)
    return out.view(np.int64)
