"""What a tuning job searches: ranges, their scales, and the way from a point in the unit cube to values. Pure."""

from __future__ import annotations

import enum
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass


class Scaling(enum.StrEnum):
    """HyperParameterScalingType."""

    AUTO = "Auto"
    LINEAR = "Linear"
    LOGARITHMIC = "Logarithmic"
    REVERSE_LOGARITHMIC = "ReverseLogarithmic"


@dataclass(frozen=True, kw_only=True)
class NumericRange:
    """Numbers from `low` to `high`, both included."""

    name: str
    low: float
    high: float
    integer: bool
    scaling: Scaling

    @property
    def count(self) -> float:
        """How many values it has."""
        if self.integer:
            return int(self.high) - int(self.low) + 1
        return 1 if self.low == self.high else math.inf

    def spell(self, unit: float) -> str:
        """Return the value at `unit` (0 to 1) of the range on its scale, as the job gets it."""
        if not self.integer:
            return repr(min(self.high, max(self.low, self._scaled(unit, self.low, self.high))))
        # Half a step more at both ends gives every integer its share.
        value = math.floor(self._scaled(unit, self.low - 0.5, self.high + 0.5) + 0.5)
        return str(min(int(self.high), max(int(self.low), value)))

    def _scaled(self, unit: float, low: float, high: float) -> float:
        if self.scaling is Scaling.LOGARITHMIC:
            return math.exp(math.log(low) + unit * (math.log(high) - math.log(low)))
        if self.scaling is Scaling.REVERSE_LOGARITHMIC:
            least, most = math.log(1 - high), math.log(1 - low)
            return 1 - math.exp(most + unit * (least - most))
        return low + unit * (high - low)


@dataclass(frozen=True, kw_only=True)
class CategoricalRange:
    """Some texts."""

    name: str
    values: tuple[str, ...]

    @property
    def count(self) -> float:
        """How many values it has."""
        return len(self.values)


Range = NumericRange | CategoricalRange


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """All ranges of a tuning job."""

    ranges: tuple[Range, ...]

    @property
    def combinations(self) -> float:
        """How many combinations there are; infinite with a continuous range."""
        return math.prod(part.count for part in self.ranges)

    def grid(self) -> Iterator[dict[str, str]]:
        """Go through all combinations of a finite space in a fixed order, the last range fastest."""
        names = [part.name for part in self.ranges]
        for values in itertools.product(*(_all_values(part) for part in self.ranges)):
            yield dict(zip(names, values, strict=True))


def _all_values(part: Range) -> list[str]:
    if isinstance(part, CategoricalRange):
        return list(part.values)
    if part.integer:
        return [str(value) for value in range(int(part.low), int(part.high) + 1)]
    return [repr(part.low)]
