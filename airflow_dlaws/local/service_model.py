"""Requests against botocore's own service model: types, required members, lengths, ranges, patterns and enums.

botocore checks only part of that before it sends; AWS checks the rest, and so does this. Texts are AWS's:
`1 validation error detected: Value 'my_job' at 'trainingJobName' failed to satisfy constraint: Member must satisfy
regular expression pattern: ...`. Members that the model does not know are refused.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from typing import Any, TypeAlias

import regex
from botocore.loaders import Loader
from botocore.model import ServiceModel

from airflow_dlaws.local.errors import validation_error

#: botocore's shapes are of five classes, told apart by `type_name`.
Shape: TypeAlias = Any
#: Java writes characters beyond the basic plane as surrogate pairs; Python writes the characters.
_JAVA_SUPPLEMENTARY = (r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF")


#: The first calls often come by hundreds at once, and one model takes megabytes and most of a second to read.
_LOCK = threading.Lock()


def load(service: str) -> ServiceModel:
    """Return botocore's model of a service ("sagemaker", "sagemaker-runtime")."""
    with _LOCK:
        return _read(service)


@functools.cache
def _read(service: str) -> ServiceModel:
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
