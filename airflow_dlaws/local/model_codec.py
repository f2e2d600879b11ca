"""Requests from JSON and answers to JSON, by botocore's service model.

An answer is checked on its way out: what the model does not know is a fault of ours, and must not pass for AWS's word.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from airflow_dlaws.local.errors import ServiceError, internal_failure
from airflow_dlaws.local.service_model import Shape


def decode(shape: Shape, value: Any) -> Any:
    """Turn JSON into Python values by the model: timestamps into datetimes, blobs into bytes.

    :raises ServiceError: SerializationException where a value has the wrong JSON type.
    """
    return None if shape is None else _DECODERS.get(shape.type_name, _decode_plain)(shape, value)


def encode(shape: Shape, value: Any, path: str = "") -> Any:
    """Turn an answer into JSON by the model.

    :raises ServiceError: InternalFailure where the answer has a member the model does not know or a value of another
        type: a fault of ours that must not pass for an answer of AWS's.
    """
    if shape is None:
        return {}
    if shape.type_name == "structure":
        unknown = sorted(set(value) - set(shape.members))
        if unknown:
            raise internal_failure(
                f"the local AWS made members {unknown} of {shape.name} ({path}), which has none such"
            )
        return {
            name: encode(shape.members[name], item, f"{path}.{name}")
            for name, item in value.items()
            if item is not None
        }
    if shape.type_name == "list":
        return [encode(shape.member, item, path) for item in value]
    if shape.type_name == "map":
        return {str(key): encode(shape.value, item, path) for key, item in value.items()}
    return _encode_plain(shape, value, path)


def _encode_plain(shape: Shape, value: Any, path: str) -> Any:
    if not isinstance(value, _PYTHON_TYPES[shape.type_name]):
        raise internal_failure(f"the local AWS made {value!r} of {path}, which is a {shape.type_name}")
    if shape.type_name == "timestamp":
        return round(value.timestamp(), 3)
    if shape.type_name == "blob":
        return base64.b64encode(value).decode()
    return value


_PYTHON_TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "long": int,
    "float": (int, float),
    "double": (int, float),
    "boolean": bool,
    "timestamp": datetime,
    "blob": bytes,
}


def _decode_structure(shape: Shape, value: Any) -> dict[str, Any]:
    _expect(shape, value, dict)
    return {
        name: decode(shape.members[name], item) if name in shape.members else item
        for name, item in value.items()
        if item is not None
    }


def _decode_list(shape: Shape, value: Any) -> list[Any]:
    _expect(shape, value, list)
    return [decode(shape.member, item) for item in value]


def _decode_map(shape: Shape, value: Any) -> dict[str, Any]:
    _expect(shape, value, dict)
    return {key: decode(shape.value, item) for key, item in value.items()}


def _decode_timestamp(shape: Shape, value: Any) -> datetime:
    _expect(shape, value, (int, float, str))
    try:
        if isinstance(value, str):
            return datetime.fromisoformat(value)
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError) as error:
        raise _serialization(shape, value) from error


def _decode_blob(shape: Shape, value: Any) -> bytes:
    return value if isinstance(value, bytes) else base64.b64decode(value)


def _decode_plain(shape: Shape, value: Any) -> Any:
    wanted = _PYTHON_TYPES[shape.type_name]
    if isinstance(value, bool) and shape.type_name != "boolean":
        raise _serialization(shape, value)
    _expect(shape, value, wanted)
    return value


_DECODERS: dict[str, Callable[[Shape, Any], Any]] = {
    "structure": _decode_structure,
    "list": _decode_list,
    "map": _decode_map,
    "timestamp": _decode_timestamp,
    "blob": _decode_blob,
}


def _expect(shape: Shape, value: Any, types: Any) -> None:
    if not isinstance(value, types):
        raise _serialization(shape, value)


def _serialization(shape: Shape, value: Any) -> ServiceError:
    return ServiceError(
        "SerializationException", f"{type(value).__name__} {value!r} can not be converted to {shape.name}"
    )
