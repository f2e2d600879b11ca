"""What the bytes of one record mean: tf.train.Example, SageMaker's Record, MXNet's image record, a layout, bytes."""

import struct
from collections.abc import Callable, Mapping

import numpy as np

from sm_runtime.readers.fields import Columns, merge
from sm_runtime.readers.wire import LENGTH, Values, WireError, decode, message

#: A name of a codec, a structured dtype (a fixed layout), or a function from the bytes of one record to arrays by name.
Codec = str | np.dtype | Callable[[bytes], Mapping[str, np.ndarray]]
#: MXNet's IRHeader (mxnet/recordio.py): flag, label, id, id2. With flag > 0, so many labels follow as float32.
IR_HEADER = struct.Struct("<IfQQ")


def decoder(codec: Codec) -> Callable[[list[bytes]], Columns]:
    """Return the function from records to columns.

    :raises ValueError: there is no such codec.
    """
    if isinstance(codec, np.dtype):
        return lambda records: _fixed(records, codec)
    if callable(codec):
        return lambda records: _by_function(records, codec)
    if codec not in _CODECS:
        raise ValueError(f"codec={codec!r}: allowed are {sorted(_CODECS)}, a structured numpy dtype, or a function")
    return _CODECS[codec]


def parse_example(data: bytes) -> dict[str, Values]:
    """Find the values of a tf.train.Example (tensorflow/core/example/feature.proto)."""
    found: dict[str, Values] = {}
    for number, kind, start, end in message(data, 0, len(data)):
        if (number, kind) != (1, LENGTH):
            continue
        for entry, entry_kind, entry_start, entry_end in message(data, start, end):
            if (entry, entry_kind) == (1, LENGTH):
                name, at = _entry(data, entry_start, entry_end)
                found[name] = _feature(data, *at)
    if not found:
        raise WireError("a record is no tf.train.Example with features")
    return found


def _entry(data: bytes, start: int, end: int) -> tuple[str, tuple[int, int]]:
    key, value = "", (end, end)
    for number, kind, begin, after in message(data, start, end):
        if (number, kind) == (1, LENGTH):
            key = data[begin:after].decode()
        elif (number, kind) == (2, LENGTH):
            value = begin, after
    return key, value


def _feature(data: bytes, start: int, end: int) -> Values:
    for number, kind, begin, after in message(data, start, end):
        if kind != LENGTH or number not in (1, 2, 3):
            raise WireError(f"field {number} in a feature")
        spans = [(first, last) for inner, _, first, last in message(data, begin, after) if inner == 1]
        return Values({1: "bytes", 2: "<f4", 3: "varint"}[number], spans)
    return Values("bytes")


def parse_record(data: bytes) -> dict[str, Values]:
    """Find the values of SageMaker's aialgs.data.Record (docs.aws.amazon.com/sagemaker, common data formats)."""
    found: dict[str, Values] = {}
    for number, kind, start, end in message(data, 0, len(data)):
        if kind == LENGTH and number in (1, 2):
            key, at = _entry(data, start, end)
            name = key if number == 1 else "label" if key == "values" else f"label.{key}"
            found.update(_value(data, name, *at))
    if not found:
        raise WireError("a record is no aialgs.data.Record with features")
    return found


def _value(data: bytes, name: str, start: int, end: int) -> dict[str, Values]:
    kinds = {2: "<f4", 3: "<f8", 7: "varint", 9: "bytes"}
    found: dict[str, Values] = {}
    for number, kind, begin, after in message(data, start, end):
        if kind != LENGTH or number not in kinds:
            raise WireError(f"field {number} in the value of {name!r}")
        names = {1: name} if number == 9 else {1: name, 2: f"{name}.keys", 3: f"{name}.shape"}
        for inner, _, first, last in message(data, begin, after):
            if inner in names:
                of = kinds[number] if inner == 1 else "varint"
                found.setdefault(names[inner], Values(of)).spans.append((first, last))
    return found


def _mxnet(records: list[bytes]) -> Columns:
    groups: dict[tuple[int, int], list[int]] = {}
    for number, record in enumerate(records):
        if len(record) < IR_HEADER.size:
            raise WireError(f"{len(record)} bytes are too few for an image record")
        labels = IR_HEADER.unpack_from(record)[0]
        if IR_HEADER.size + 4 * labels > len(record):
            raise WireError(f"{labels} labels do not fit into {len(record)} bytes")
        groups.setdefault((len(record), labels), []).append(number)
    pieces = []
    for (length, labels), numbers in groups.items():
        matrix = np.frombuffer(b"".join([records[number] for number in numbers]), np.uint8).reshape(-1, length)
        data = IR_HEADER.size + 4 * labels
        label = matrix[:, IR_HEADER.size : data] if labels else matrix[:, 4:8]
        columns = {
            "label": np.ascontiguousarray(label).view("<f4"),
            "id": np.ascontiguousarray(matrix[:, 8:16]).view("<i8"),
            "data": np.ascontiguousarray(matrix[:, data:]),
        }
        pieces.append((np.array(numbers), columns))
    return merge(pieces, len(records))


def _bytes(records: list[bytes]) -> Columns:
    if len({len(record) for record in records}) == 1:
        return {"data": np.frombuffer(b"".join(records), np.uint8).reshape(len(records), -1)}
    return {"data": [np.frombuffer(record, np.uint8) for record in records]}


def _fixed(records: list[bytes], layout: np.dtype) -> Columns:
    for record in records:
        if len(record) != layout.itemsize:
            raise WireError(f"{len(record)} bytes, the layout {layout} has {layout.itemsize}")
    table = np.frombuffer(b"".join(records), layout)
    return {name: table[name] for name in layout.names or ()} or {"value": table}


def _by_function(records: list[bytes], function: Callable[[bytes], Mapping[str, np.ndarray]]) -> Columns:
    rows = [function(record) for record in records]
    return {name: [np.asarray(row[name]) for row in rows] for name in rows[0]}


_CODECS: dict[str, Callable[[list[bytes]], Columns]] = {
    "example": lambda records: decode(records, parse_example),
    "record": lambda records: decode(records, parse_record),
    "mxnet": _mxnet,
    "bytes": _bytes,
}
