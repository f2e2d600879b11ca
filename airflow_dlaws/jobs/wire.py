"""One JSON codec for every frozen dataclass that crosses a process boundary (XCom, trigger, report, manifest).

Field types may be: str, int, float, bool, None, Any, enums, datetimes (ISO 8601, UTC offset kept), nested dataclasses,
`tuple[X, ...]`, `dict[str, X]` / `Mapping[str, X]`, and unions of one such type with None, or of plain types.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

from airflow_dlaws.errors import SpecificationError

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """Return `value` (a dataclass instance or one of its field values) as plain JSON types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return value


def from_json(cls: type[T], document: Mapping[str, Any]) -> T:
    """Build `cls` from what `to_json` gave.

    Unknown keys are refused, missing ones take the field's default.

    :raises SpecificationError: a key is unknown, or a required one is missing.
    """
    hints = typing.get_type_hints(cls)
    known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(document) - known)
    if unknown:
        raise SpecificationError(f"{cls.__name__} has no field {unknown}; its fields are {sorted(known)}")
    try:
        return cls(**{key: _decode(hints[key], item) for key, item in document.items()})
    except TypeError as error:
        raise SpecificationError(f"cannot read {cls.__name__} from keys {sorted(document)}: {error}") from error


def _decode(hint: Any, item: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if item is None or hint is Any:
        return item
    if origin in (typing.Union, types.UnionType):
        inner = [argument for argument in arguments if argument is not type(None)]
        return _decode(inner[0], item) if len(inner) == 1 else item
    if origin is tuple:
        return tuple(_decode(arguments[0], element) for element in item)
    if origin in (dict, Mapping):
        return {key: _decode(arguments[1], element) for key, element in item.items()}
    if isinstance(hint, type):
        return _decode_plain(hint, item)
    return item


def _decode_plain(hint: type, item: Any) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_json(hint, item)
    if issubclass(hint, enum.Enum):
        return hint(item)
    if hint is datetime:
        return datetime.fromisoformat(item)
    if hint is float:
        return float(item)
    return item
