"""Requests against botocore's own service model: types, required members, lengths, ranges, patterns and enums.

botocore checks only part of that before it sends; AWS checks the rest, and so does this. Texts are AWS's:
`1 validation error detected: Value 'my_job' at 'trainingJobName' failed to satisfy constraint: Member must satisfy
regular expression pattern: ...`. Members that the model does not know are refused.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, TypeAlias

import regex
from botocore.loaders import Loader
from botocore.model import ServiceModel

from airflow_dlaws.local.errors import ServiceError, internal_failure, validation_error

#: botocore's shapes are of five classes, told apart by `type_name`.
Shape: TypeAlias = Any
#: Java writes characters beyond the basic plane as surrogate pairs; Python writes the characters.
_JAVA_SUPPLEMENTARY = (r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF")


@functools.cache
def load(service: str) -> ServiceModel:
    """Return botocore's model of a service ("sagemaker", "sagemaker-runtime")."""
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


@functools.cache
def pattern_of(text: str) -> regex.Pattern[str]:
    """Compile a pattern of the model, which is Java's."""
    return regex.compile(text.replace(*_JAVA_SUPPLEMENTARY), regex.DOTALL)


def check(shape: Shape, value: Any) -> None:
    """Refuse a decoded request that AWS would refuse.

    :raises ServiceError: ValidationException with one sentence for each fault.
    """
    if shape is None:
        return
    faults = list(_faults(shape, value, ""))
    if faults:
        plural = "s" if len(faults) > 1 else ""
        raise validation_error(f"{len(faults)} validation error{plural} detected: {'; '.join(faults)}")


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


def _faults(shape: Shape, value: Any, path: str) -> Iterator[str]:
    if shape.type_name == "structure":
        yield from _structure_faults(shape, value, path)
    elif shape.type_name == "list":
        yield from _say(value, path, _length_constraints(shape, value))
        for index, item in enumerate(value, 1):
            yield from _faults(shape.member, item, f"{path}.{index}.member")
    elif shape.type_name == "map":
        yield from _map_faults(shape, value, path)
    else:
        yield from _say(value, path, _scalar_constraints(shape, value))


def _structure_faults(shape: Shape, value: dict[str, Any], path: str) -> Iterator[str]:
    for name in shape.required_members:
        if name not in value:
            yield f"Value null at '{_join(path, name)}' failed to satisfy constraint: Member must not be null"
    for name, item in value.items():
        if name not in shape.members:
            yield f"Value '{item}' at '{_join(path, name)}' is no member of {shape.name}"
        else:
            yield from _faults(shape.members[name], item, _join(path, name))
    if shape.is_tagged_union and len(value) != 1:
        yield f"Value '{value}' at '{path}' failed to satisfy constraint: exactly one member must be set"


def _map_faults(shape: Shape, value: dict[str, Any], path: str) -> Iterator[str]:
    yield from _say(value, path, _length_constraints(shape, value))
    for what, part, items in (("keys", shape.key, value), ("value", shape.value, value.values())):
        if part.type_name in {"structure", "list", "map"}:
            for key, item in value.items():
                yield from _faults(part, item, f"{path}.{key}")
            continue
        broken = [rule for item in items for rule in _scalar_constraints(part, item)]
        if broken:
            yield (
                f"Value '{_shown(value)}' at '{path}' failed to satisfy constraint: "
                f"Map {what} must satisfy constraint: [{', '.join(dict.fromkeys(broken))}]"
            )


def _say(value: Any, path: str, constraints: Iterator[str]) -> Iterator[str]:
    for constraint in constraints:
        yield f"Value '{_shown(value)}' at '{path}' failed to satisfy constraint: {constraint}"


def _scalar_constraints(shape: Shape, value: Any) -> Iterator[str]:
    rules = shape.metadata
    if shape.type_name == "string":
        if "enum" in rules and value not in rules["enum"]:
            yield f"Member must satisfy enum value set: [{', '.join(rules['enum'])}]"
        if "pattern" in rules and not pattern_of(rules["pattern"]).fullmatch(value):
            yield f"Member must satisfy regular expression pattern: {rules['pattern']}"
    if shape.type_name in {"string", "blob"}:
        yield from _length_constraints(shape, value)
    elif shape.type_name in {"integer", "long", "float", "double"}:
        if "min" in rules and value < rules["min"]:
            yield f"Member must have value greater than or equal to {rules['min']}"
        if "max" in rules and value > rules["max"]:
            yield f"Member must have value less than or equal to {rules['max']}"


def _length_constraints(shape: Shape, value: Any) -> Iterator[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is not None and len(value) < least:
        yield f"Member must have length greater than or equal to {least}"
    if most is not None and len(value) > most:
        yield f"Member must have length less than or equal to {most}"


def _join(path: str, name: str) -> str:
    member = name[0].lower() + name[1:]
    return f"{path}.{member}" if path else member


def _shown(value: Any) -> str:
    """Show a value as AWS (Java) shows it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}={_shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_shown(item) for item in value) + "]"
    return str(value)
