"""Read docker-compose.yaml as `docker compose` does: variables, merged anchors, health checks, the order of starting.

What the file does not use is not here: an unknown way to write something is an error and never passed over.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
COMPOSE_FILE = ROOT / "docker-compose.yaml"

#: $$, ${NAME}, ${NAME:-default}, ${NAME-default}, ${NAME:?message} (Compose specification, "Interpolation").
_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>\w+)(?:(?P<operator>:-|-|:\?)(?P<operand>[^}]*))?\})")
_DURATION = re.compile(r"(?:(?P<m>\d+)m)?(?:(?P<s>\d+)s)?")


class MissingVariable(Exception):
    """The file requires a variable that has no value."""


@dataclass(frozen=True, kw_only=True)
class HealthCheck:
    """A command that succeeds while its service is healthy, and the seconds it may take."""

    argv: tuple[str, ...]
    timeout_s: float


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A folder or a named volume inside a container. `source` is a name unless it begins with a dot."""

    source: str
    target: str
    read_only: bool

    @property
    def named(self) -> bool:
        """Whether Docker keeps it as a volume."""
        return not self.source.startswith(".")


@dataclass(frozen=True, kw_only=True)
class Service:
    """One service, all variables replaced."""

    name: str
    image: str
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    environment: Mapping[str, str]
    health: HealthCheck | None
    #: Service name: condition.
    depends_on: Mapping[str, str]
    mounts: tuple[Mount, ...]
    stop_signal: str
    network_mode: str
    profiles: tuple[str, ...]


def read_variables(text: str) -> dict[str, str]:
    """Return the variables of an .env file."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Replace the variables of one string.

    :raises MissingVariable: one that is required is unset or empty; the message is the file's own.
    """

    def value(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        name, operator, operand = match["name"], match["operator"], match["operand"]
        found = variables.get(name)
        if operator == ":?" and not found:
            raise MissingVariable(f"required variable {name} is missing a value: {operand}")
        if operator == "-":
            return operand if found is None else found
        return found or operand or ""

    return _VARIABLE.sub(value, text)


def read_document(path: Path = COMPOSE_FILE) -> dict[str, Any]:
    """Return the file as YAML gives it: anchors merged, variables as they are written."""
    return dict(yaml.safe_load(path.read_text()))


def read_services(variables: Mapping[str, str], path: Path = COMPOSE_FILE) -> dict[str, Service]:
    """Return the services that `docker compose up` would start with these variables.

    :raises MissingVariable: a required variable has no value.
    """
    document = _replaced(read_document(path), variables)
    chosen = set(filter(None, variables.get("COMPOSE_PROFILES", "").split(",")))
    services = [_service(name, row) for name, row in document["services"].items()]
    return {each.name: each for each in services if not each.profiles or chosen & set(each.profiles)}


def _replaced(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return interpolate(value, variables)
    if isinstance(value, list):
        return [_replaced(each, variables) for each in value]
    if isinstance(value, dict):
        return {key: _replaced(each, variables) for key, each in value.items()}
    return value


def _service(name: str, row: dict[str, Any]) -> Service:
    return Service(
        name=name,
        image=row["image"],
        entrypoint=_words(row.get("entrypoint", [])),
        command=_words(row.get("command", [])),
        environment=dict(row.get("environment", {})),
        health=_health(row["healthcheck"]) if "healthcheck" in row else None,
        depends_on={other: rule["condition"] for other, rule in row.get("depends_on", {}).items()},
        mounts=tuple(_mount(text) for text in row.get("volumes", [])),
        stop_signal=row.get("stop_signal", "SIGTERM"),
        network_mode=row.get("network_mode", ""),
        profiles=tuple(row.get("profiles", [])),
    )


def _words(value: str | list[str]) -> tuple[str, ...]:
    """A command written as one string is split as a shell would, but not run by one."""
    return tuple(shlex.split(value) if isinstance(value, str) else value)


def _health(row: dict[str, Any]) -> HealthCheck:
    kind, *rest = row["test"]
    argv = {"CMD": tuple(rest), "CMD-SHELL": ("/bin/sh", "-c", *rest)}[kind]
    return HealthCheck(argv=argv, timeout_s=_seconds(row["timeout"]))


def _mount(text: str) -> Mount:
    source, target, *mode = text.split(":")
    return Mount(source=source, target=target, read_only={(): False, ("ro",): True}[tuple(mode)])


def _seconds(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if not match or not text:
        raise ValueError(f"{text!r} is no duration such as 2m or 30s")
    return 60.0 * int(match["m"] or 0) + int(match["s"] or 0)
