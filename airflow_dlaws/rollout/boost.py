"""Evidence beyond what decides is of no use, so a step may count for more before it: sequential boosting.

A test that ends once its evidence reaches a bar mostly ends above it, the more so the larger the steps are, and its
chance of a false alarm stays below what was allowed. Let a step multiply the evidence by `factor` with an expectation
of at most 1, and let `spare` be what is missing to the bar. Then min(boost * factor, exp(spare)) has an expectation of
1 for one largest `boost`, never below 1, and the test with the boosted steps keeps its promise: what exceeds the bar is
cut off in the proof and changes no verdict. Fischer and Ramdas, "Improving Wald's (approximate) sequential probability
ratio test by avoiding overshoot" (arXiv 2410.16076).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator


def log_boost(outcomes: Iterable[tuple[float, float]], spare: float) -> float:
    """Return the natural logarithm of the boost of one step.

    :param outcomes: all that the step may come to if there is no harm: the logarithm of its factor, and its chance.
        The chances sum to 1, and the factors have an expectation of at most 1.
    :param spare: the logarithm of what is missing to the bar, above 0.
    """
    rising = sorted(outcomes)
    below = [0.0]
    for factor, chance in rising:
        below.append(below[-1] + chance * math.exp(factor))
    index, cut = len(rising) - 1, 0.0  # the chance of the outcomes above `index`, which reach the bar
    while rising[index][0] + (boost := math.log((1 - math.exp(spare) * cut) / below[index + 1])) > spare:
        cut += rising[index][1]
        index -= 1
    return boost


def draws(drawn: int, green: int, blue: int) -> Iterator[tuple[int, float]]:
    """Yield how many of `drawn` requests are green's, drawn from `green` and `blue` ones, and the chance of it.

    The hypergeometric distribution, in logarithms: a minute may have millions of requests.
    """
    ways = _log_choose(green + blue, drawn)
    for greens in range(max(0, drawn - blue), min(drawn, green) + 1):
        yield greens, math.exp(_log_choose(green, greens) + _log_choose(blue, drawn - greens) - ways)


def _log_choose(among: int, chosen: int) -> float:
    return math.lgamma(among + 1) - math.lgamma(chosen + 1) - math.lgamma(among - chosen + 1)
