"""What is expected of the data: a list of expectations, each critical or only a warning. Structure only.

Whether an expectation exists and takes these arguments is known to Great Expectations alone (`gx.py`), which a DAG file
must not import; it is asked before any data are read.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_dlaws.errors import SpecificationError

_KEYS = frozenset({"type", "kwargs", "severity", "notes", "meta", "id", "description", "rendered_content"})


class Severity(enum.StrEnum):
    """What an expectation that is not met does to the task."""

    CRITICAL = "critical"
    WARNING = "warning"


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """One expectation, by its Great Expectations name."""

    type: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    severity: Severity = Severity.CRITICAL
    notes: str | None = None

    @property
    def column(self) -> str:
        """The column or columns it looks at; empty for the table as a whole."""
        names = self.kwargs.get("column") or self.kwargs.get("column_list") or ""
        if not names and "column_A" in self.kwargs:
            names = [self.kwargs["column_A"], self.kwargs.get("column_B")]
        return ", ".join(map(str, names)) if isinstance(names, (list, tuple)) else str(names)

    def __str__(self) -> str:
        return f"{self.type}({self.column})"


def parse_suite(document: Any) -> tuple[Expectation, ...]:
    """Read a list of expectations, or a Great Expectations suite document with an `expectations` list.

    :raises SpecificationError: it is neither, it is empty, or an entry is malformed.
    """
    if isinstance(document, Mapping) and "expectations" in document:
        document = document["expectations"]
    if not isinstance(document, Sequence) or isinstance(document, str):
        raise SpecificationError(
            f"a suite is a list of {{'type': ..., 'kwargs': {{...}}, 'severity': ...}}, or a document with such a list "
            f"under 'expectations'; this one is a {type(document).__name__}"
        )
    if not document:
        raise SpecificationError("the suite has no expectations: data that nothing is expected of cannot be validated")
    return tuple(_parse_entry(number, entry) for number, entry in enumerate(document, start=1))


def parse_suite_text(text: str, *, origin: str) -> tuple[Expectation, ...]:
    """Read a suite from JSON or, where `origin` ends in .yaml or .yml, from YAML.

    :param origin: where the text comes from, for the error message.
    """
    try:
        document = _load_yaml(text) if origin.endswith((".yaml", ".yml")) else json.loads(text)
    except ValueError as error:
        raise SpecificationError(f"cannot read the suite {origin}: {error}") from error
    try:
        return parse_suite(document)
    except SpecificationError as error:
        raise SpecificationError(f"suite {origin}: {error}") from error


def _load_yaml(text: str) -> Any:
    import yaml  # type: ignore[import-untyped]

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"no valid YAML: {error}") from error


def _parse_entry(number: int, entry: Any) -> Expectation:
    where = f"expectation {number}"
    if not isinstance(entry, Mapping):
        raise SpecificationError(f"{where} is {entry!r}: write {{'type': 'expect_...', 'kwargs': {{...}}}}")
    unknown = sorted(set(entry) - _KEYS)
    if unknown:
        raise SpecificationError(f"{where} has unknown keys {unknown}; known are {sorted(_KEYS)}")
    name, kwargs = entry.get("type"), entry.get("kwargs", {})
    if not isinstance(name, str) or not name:
        raise SpecificationError(
            f"{where} has type={name!r}: give the name of an expectation, as expect_column_to_exist"
        )
    if not isinstance(kwargs, Mapping):
        raise SpecificationError(f"{where} ({name}) has kwargs={kwargs!r}: they must be a mapping")
    severity = entry.get("severity", Severity.CRITICAL)
    if severity not in list(Severity):
        raise SpecificationError(f"{where} ({name}) has severity={severity!r}: it must be one of {_names(Severity)}")
    notes = str(entry["notes"]) if entry.get("notes") else None
    return Expectation(type=name, kwargs=dict(kwargs), severity=Severity(severity), notes=notes)


def _names(kind: type[enum.StrEnum]) -> list[str]:
    return [str(member) for member in kind]
