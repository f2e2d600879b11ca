"""Minutes in which traffic moved to green: its share of the requests was not the same all through them.

A spell of errors that begins in such a minute, after the move, meets more of green's requests than of blue's, though
it hits both fleets alike. So these minutes are judged as if green had had, for each request, the share that is best for
it: the largest of the minute where green has too many, the smallest where it has too few. Which minutes these are is
read off how requests split, never off what was answered.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: A share that is larger than the minute before's by fewer standard deviations, or a smaller ratio of odds, is chance.
_DEVIATIONS = 2.0
_ODDS = 1.1


@dataclass(frozen=True, kw_only=True)
class ShareBounds:
    """Green's smallest and largest share of the traffic within one minute."""

    low: float
    high: float

    @property
    def proves_nothing(self) -> bool:
        """Green may have had all of the traffic: nothing of blue's stands beside it."""
        return self.high >= 1.0


def moved(splits: Iterable[tuple[int, int, int]], shares: Sequence[float]) -> dict[int, ShareBounds]:
    """Return the bounds of the minutes in which traffic moved, by their start.

    :param splits: start, requests of green and requests of blue, in the order of time.
    :param shares: green's share at each step of the plan, increasing; after the last one it has everything.
    """
    found: dict[int, ShareBounds] = {}
    before, served = None, False
    for start, green, blue in splits:
        if green + blue == 0:
            continue
        begins = bool(green) and not served
        if before is not None and (begins or grew(before, (green, blue))):
            share = green / (green + blue)
            low = min(share, before[0] / sum(before))
            found[start] = ShareBounds(low=low, high=max(share, _step_at(share, green + blue, shares)))
        before, served = (green, blue), served or bool(green)
    return found


def grew(before: tuple[int, int], after: tuple[int, int]) -> bool:
    """Tell whether green's part of (green, blue) is larger than before, by more than chance."""
    totals = sum(before), sum(after)
    if not all(totals):
        return False
    pooled = (before[0] + after[0]) / sum(totals)
    spread = math.sqrt(pooled * (1 - pooled) * sum(1 / total for total in totals))
    odds = [(green + 0.5) / (blue + 0.5) for green, blue in (before, after)]
    return after[0] / totals[1] - before[0] / totals[0] > _DEVIATIONS * spread and odds[1] > _ODDS * odds[0]


def _step_at(share: float, requests: int, shares: Sequence[float]) -> float:
    """Return the lowest step that a minute with this share may have ended on."""
    for step in shares:
        if share <= step * _ODDS + _DEVIATIONS * math.sqrt(step * (1 - step) / requests):
            return step
    return 1.0
