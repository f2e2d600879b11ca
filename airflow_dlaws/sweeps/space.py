"""What may be tried: the search space of a sweep, one dimension a hyperparameter."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.limits import HYPERPARAMETER_KEY_LENGTH
from airflow_dlaws.jobs.wire import from_json

#: A choice is a hyperparameter's value: what a script's command line can carry.
Value = str | int | float | bool

_WAY_OUT = (
    'write {"low": 1e-4, "high": 0.1, "log": True} for a number, {"low": 1, "high": 8, "integer": True} for an '
    "integer, or a list of values to choose from"
)


class DimensionKind(enum.StrEnum):
    """What kind of values a hyperparameter takes."""

    NUMBER = "number"
    INTEGER = "integer"
    CHOICE = "choice"


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One hyperparameter: a range of numbers or integers (both ends are in it), or a list of choices.

    :param log: search evenly in the logarithm, as fits learning rates.
    """

    name: str
    kind: DimensionKind
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[Value, ...] = ()

    def __post_init__(self) -> None:
        if not self.name or len(self.name) > HYPERPARAMETER_KEY_LENGTH:
            raise SpecificationError(f"space: {self.name!r} is no hyperparameter's name (1 to 256 characters)")
        check = self._check_choices if self.kind is DimensionKind.CHOICE else self._check_range
        check()

    @property
    def size(self) -> float:
        """How many values there are; infinite for a range of numbers."""
        if self.kind is DimensionKind.CHOICE:
            return len(self.choices)
        if self.kind is DimensionKind.INTEGER:
            return int(self.high) - int(self.low) + 1
        return 1 if self.low == self.high else math.inf

    def holds(self, value: Any) -> bool:
        """Tell whether `value` lies in this dimension."""
        if self.kind is DimensionKind.CHOICE:
            return value in self.choices
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        return self.low <= value <= self.high and (self.kind is DimensionKind.NUMBER or float(value).is_integer())

    def _check_choices(self) -> None:
        wrong = [choice for choice in self.choices if not isinstance(choice, (str, int, float, bool))]
        if len(self.choices) < 1 or wrong:
            raise SpecificationError(
                f"space[{self.name!r}]={list(self.choices)!r} needs at least one choice, each a text, number or boolean"
            )
        if len(set(map(repr, self.choices))) < len(self.choices):
            raise SpecificationError(f"space[{self.name!r}]={list(self.choices)!r} names a choice twice")

    def _check_range(self) -> None:
        where = f"space[{self.name!r}]: low={self.low!r}, high={self.high!r}"
        if not all(_is_number(bound) for bound in (self.low, self.high)) or self.low > self.high:
            raise SpecificationError(f"{where} must be two finite numbers, the lower one first; {_WAY_OUT}")
        if self.log and self.low <= 0:
            raise SpecificationError(f"{where} with log=True: a logarithmic range starts above 0")
        if self.kind is DimensionKind.INTEGER and not (float(self.low).is_integer() and float(self.high).is_integer()):
            raise SpecificationError(f"{where}: the ends of an integer range are integers")


def parse_space(space: Any) -> tuple[Dimension, ...]:
    """Read a search space as users write it: hyperparameter -> range, choices, or a :class:`Dimension`.

    :raises SpecificationError: it is empty, or one of its dimensions cannot be read.
    """
    if not isinstance(space, Mapping) or not space:
        raise SpecificationError(f"space={space!r} must map at least one hyperparameter to what it may be: {_WAY_OUT}")
    return tuple(_dimension(str(name), what) for name, what in space.items())


def check_parameters(field: str, parameters: Mapping[str, Any], space: Sequence[Dimension]) -> None:
    """Refuse parameters that are not one point of the space.

    :raises SpecificationError: names the hyperparameter.
    """
    names = {dimension.name for dimension in space}
    if set(parameters) != names:
        raise SpecificationError(f"{field}={dict(parameters)!r} must name just the space's {sorted(names)}")
    for dimension in space:
        if not dimension.holds(parameters[dimension.name]):
            raise SpecificationError(f"{field}: {dimension.name}={parameters[dimension.name]!r} is not in {dimension}")


def space_size(space: Sequence[Dimension]) -> float:
    """Return how many different points there are; infinite with any range of numbers."""
    return math.prod(dimension.size for dimension in space)


def _dimension(name: str, what: Any) -> Dimension:
    if isinstance(what, Dimension):
        return what
    if isinstance(what, Sequence) and not isinstance(what, str):
        return Dimension(name=name, kind=DimensionKind.CHOICE, choices=tuple(what))
    if not isinstance(what, Mapping):
        raise SpecificationError(f"space[{name!r}]={what!r}: {_WAY_OUT}")
    if "choices" in what:
        return from_json(Dimension, {"name": name, "kind": DimensionKind.CHOICE, **what})
    unknown = sorted(set(what) - {"low", "high", "log", "integer"})
    if unknown or "low" not in what or "high" not in what:
        raise SpecificationError(f"space[{name!r}]={dict(what)!r}: {_WAY_OUT}")
    kind = DimensionKind.INTEGER if what.get("integer") else DimensionKind.NUMBER
    return Dimension(name=name, kind=kind, low=what["low"], high=what["high"], log=bool(what.get("log", False)))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
