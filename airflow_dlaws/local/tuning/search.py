"""What a tuning job tries next: at random, or all there is. No I/O, no clock; the seed is an argument.

A combination is proposed once: AWS refuses spaces with fewer combinations than jobs, so it does not repeat any either.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Protocol

from airflow_dlaws.local.tuning.space import CategoricalRange, SearchSpace

Values = Mapping[str, str]

#: Draws after which a space is taken to be nearly used up; then what is left is listed.
DRAWS = 200


class Search(Protocol):
    """Proposes values, and is told what came of them."""

    def ask(self) -> Values | None:
        """Return values that were not proposed before, or None where there are none."""

    def tell(self, values: Values, objective: float | None) -> None:
        """Take note of the objective of a job that has ended (None where it has none)."""


class GridSearch:
    """All combinations, one after the other."""

    def __init__(self, space: SearchSpace) -> None:
        self._rest = space.grid()

    def ask(self) -> Values | None:
        """See `Search`."""
        return next(self._rest, None)

    def tell(self, values: Values, objective: float | None) -> None:
        """See `Search`."""


class RandomSearch:
    """Independent draws on the scale of each range."""

    def __init__(self, space: SearchSpace, *, seed: int | None) -> None:
        self._space, self._random, self._seen = space, random.Random(seed), set[tuple[str, ...]]()

    def ask(self) -> Values | None:
        """See `Search`."""
        for _ in range(DRAWS):
            values = self._draw()
            if self.claim(values):
                return values
        return self._one_of_the_rest()

    def tell(self, values: Values, objective: float | None) -> None:
        """See `Search`."""

    def claim(self, values: Values) -> bool:
        """Mark values as proposed; return False where they were already."""
        key = tuple(values[part.name] for part in self._space.ranges)
        fresh = key not in self._seen
        self._seen.add(key)
        return fresh

    def _draw(self) -> dict[str, str]:
        return {
            part.name: (
                self._random.choice(part.values)
                if isinstance(part, CategoricalRange)
                else part.spell(self._random.random())
            )
            for part in self._space.ranges
        }

    def _one_of_the_rest(self) -> Values | None:
        if len(self._seen) >= self._space.combinations:
            return None
        return next(values for values in self._space.grid() if self.claim(values))
