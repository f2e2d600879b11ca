"""Is green's rate above blue's by more than a margin? An always-valid test that asks for harm of some size.

Where green may differ somewhat from blue (predictions, business), equal rates are no fair null hypothesis. Here it is a
half-plane: in every window green's rate x and blue's rate y of some event satisfy x <= intercept + slope * y, whatever
they are and however they move from window to window. A bet names two rates outside of it, (x1, y1). A window with g
answers of green and b of blue multiplies the evidence by

    product over green's answers of p(answer; x1) / p(answer; x0)  times the same over blue's with y1 and y0

where (x0, y0) is the point of the half-plane nearest to (x1, y1) in the sum of g and b Kullback-Leibler divergences.
Its expectation is at most 1 for every (x, y) allowed: it is (1 + c (x - x0))^g (1 + d (y - y0))^b, the logarithm of
which is at most g c (x - x0) + b d (y - y0), and that is at most 0 all over a convex set because the nearest point
minimises the divergence. Turner and Gruenwald, "Exact anytime-valid confidence intervals for contingency tables and
beyond" (arXiv 2203.09785), build such tests for general null hypotheses; Ville's inequality does the rest, as
in `harm`.

Events may be fractions: for values within 0 and 1 whose sum is known, the same formula is a lower bound of the product
(the logarithm of a linear function is concave), so evidence from sums is valid, and merely slower.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

#: Rates are kept away from 0 and 1, where one answer would prove everything.
_LEAST_RATE = 1e-6
#: Halvings that bring the nearest point to the last digits of a float.
_HALVINGS = 48


@dataclass(frozen=True, kw_only=True)
class Margin:
    """What is allowed: green's rate of the event is at most `intercept + slope * blue's`."""

    intercept: float
    slope: float

    def allows(self, green: float, blue: float) -> bool:
        """Tell whether these rates are no harm."""
        return green <= self.intercept + self.slope * blue


@dataclass(frozen=True, kw_only=True)
class RateWindow:
    """Counts of one window: how many of the `green` and `blue` answers were the event; hits may be fractions."""

    green: int
    green_hits: float
    blue: int
    blue_hits: float


def log_factor(margin: Margin, green_rate: float, blue_rate: float, window: RateWindow) -> float:
    """Return by how much a window adds to the logarithm of the evidence of a bet on `green_rate` and `blue_rate`.

    0 where the bet is allowed by the margin, or only one fleet answered.
    """
    green_rate, blue_rate = _inside(green_rate), _inside(blue_rate)
    if not (window.green and window.blue) or margin.allows(green_rate, blue_rate):
        return 0.0
    blue = _nearest(margin, green_rate, blue_rate, window.green, window.blue)
    green = margin.intercept + margin.slope * blue
    return _log_ratio(green_rate, green, window.green, window.green_hits) + _log_ratio(
        blue_rate, blue, window.blue, window.blue_hits
    )


def _inside(rate: float) -> float:
    return min(max(rate, _LEAST_RATE), 1 - _LEAST_RATE)


@functools.lru_cache(maxsize=16384)
def _nearest(margin: Margin, green_rate: float, blue_rate: float, green: int, blue: int) -> float:
    """Return blue's rate at the nearest point, which lies on the border; the divergence is convex along it.

    Kept, because each look asks again for all minutes that are still open.
    """
    low = max(1e-12, (1e-12 - margin.intercept) / margin.slope)
    high = min(1 - 1e-12, (1 - 1e-12 - margin.intercept) / margin.slope)
    for _ in range(_HALVINGS):
        rate = (low + high) / 2
        x = margin.intercept + margin.slope * rate
        slope = green * margin.slope * (x - green_rate) / (x * (1 - x)) + blue * (rate - blue_rate) / (
            rate * (1 - rate)
        )
        low, high = (low, rate) if slope > 0 else (rate, high)
    return (low + high) / 2


def _log_ratio(bet: float, null: float, answers: int, hits: float) -> float:
    return hits * math.log(bet / null) + (answers - hits) * math.log((1 - bet) / (1 - null))
