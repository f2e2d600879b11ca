"""The values of an operator's parameters as TrainingSpec takes them: read from templates, texts, mappings, lists."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.channel import Channel
from airflow_dlaws.jobs.limits import is_template
from airflow_dlaws.jobs.queue import BatchQueue
from airflow_dlaws.jobs.spec import CapacityPreference, InstanceGroup, MlflowTracking, ModelPackageOutput

T = TypeVar("T")

#: Numbers, which may come from templates as text.
INTEGERS = (
    "instance_count",
    "processes_per_instance",
    "volume_size_gb",
    "max_runtime_s",
    "max_wait_s",
    "keep_alive_s",
    "max_pending_s",
    "max_retry_attempts",
)
_MAPPINGS = ("hyperparameters", "environment", "tags", "extra_request")
_LISTS = ("arguments", "metrics", "subnets", "security_group_ids")


def read(name: str, value: Any) -> Any:
    """Return the value of a parameter as TrainingSpec takes it.

    :raises SpecificationError: it is none of what the parameter may be.
    """
    if name in INTEGERS:
        return integer(name, value)
    if name in _MAPPINGS:
        return {} if value is None else value
    if name in _LISTS:
        return value if isinstance(value, str) else tuple(value or ())
    if name == "dependencies":
        return value if isinstance(value, str) else tuple(str(folder) for folder in value)
    if name in _STRUCTURES:
        return _STRUCTURES[name](name, value)
    return str(value) if name == "source" else value


def integer(name: str, value: Any) -> int | None:
    """Read a number that may have come from a template as text."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, str) and value.strip().isdigit():
        return int(value)
    raise SpecificationError(f"{name}={value!r} must be an integer")


def dollars(name: str, value: Any) -> float | None:
    """Read a price that may have come from a template as text; an empty one is none."""
    if value is None or value == "":
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not 0 <= found < math.inf:
        raise SpecificationError(f"{name}={value!r} must be a number of US dollars, or be left out")
    return found


def channel(name: str, value: Any) -> Channel:
    """Read a channel given as a location, as a Channel, or as the fields of one."""
    if isinstance(value, Channel):
        return value
    if isinstance(value, Mapping):
        return _made(f"channel {name!r}", Channel, {"name": name, **value})
    return Channel(name=name, uri=value)


def channels(_: str, value: Any) -> tuple[Channel, ...]:
    """Read a mapping of names to channels."""
    if not isinstance(value or {}, Mapping):
        raise SpecificationError(f"channels={value!r} must map names to s3://bucket/prefix")
    return tuple(channel(name, item) for name, item in (value or {}).items())


def known_channels(value: Any) -> Any:
    """Return the channels that hold no template."""
    if isinstance(value, Mapping):
        return {name: item for name, item in value.items() if not is_template(item)}
    return None if is_template(value) else value


def _groups(name: str, value: Any) -> tuple[InstanceGroup, ...]:
    return tuple(_structure(f"{name} item", InstanceGroup, item) for item in _items(name, value))


def _preferences(name: str, value: Any) -> tuple[CapacityPreference, ...]:
    return tuple(
        CapacityPreference(instance_type=item)
        if isinstance(item, str)
        else _structure(f"{name} item", CapacityPreference, item)
        for item in _items(name, value)
    )


def _items(name: str, value: Any) -> list[Any]:
    """Return the items of a list, which a template may have given as JSON."""
    found = _json(name, value) if isinstance(value, str) else value
    if not isinstance(found or [], (list, tuple)):
        raise SpecificationError(f"{name}={value!r} must be a list")
    return list(found or [])


def _one(kind: type[T]) -> Callable[[str, Any], T | None]:
    def reader(name: str, value: Any) -> T | None:
        found = _json(name, value) if isinstance(value, str) else value
        return None if found is None else _structure(name, kind, found)

    return reader


def _structure(where: str, kind: type[T], value: Any) -> T:
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise SpecificationError(f"{where}={value!r} must be a {kind.__name__}, or its fields as a mapping")
    numbers = {key: integer(f"{where}: {key}", value[key]) for key in ("instance_count", "processes") if key in value}
    return _made(where, kind, {**value, **numbers})


def _made(where: str, kind: type[T], fields: Mapping[str, Any]) -> T:
    try:
        return kind(**fields)
    except TypeError as error:
        raise SpecificationError(f"{where}={dict(fields)!r}: {error}") from error


def _json(name: str, value: str) -> Any:
    try:
        return json.loads(value) if value.strip() else None
    except ValueError as error:
        raise SpecificationError(f"{name}={value!r} is no JSON: {error}") from error


def _queue(name: str, value: Any) -> BatchQueue | None:
    """Read a queue given by its name, as a BatchQueue, or as the fields of one."""
    if not value or isinstance(value, BatchQueue):
        return value or None
    if isinstance(value, Mapping):
        return _made(name, BatchQueue, value)
    return BatchQueue(name=value)


_STRUCTURES: dict[str, Callable[[str, Any], Any]] = {
    "channels": channels,
    "instance_groups": _groups,
    "capacity_preferences": _preferences,
    "job_queue": _queue,
    "mlflow": _one(MlflowTracking),
    "model_package": _one(ModelPackageOutput),
}
