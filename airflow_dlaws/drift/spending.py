"""How the alpha of a decision is divided: among families of tests, among looks, and among lengths of windows.

Every share is fixed before the data are seen and the shares add up to at most alpha, so by the union bound the chance
of any false alarm, ever, is at most alpha, whatever the tests have in common: the finite reference above all, which is
the same in all looks and never an independent sample. Spending alpha over looks: K. K. G. Lan and D. L. DeMets,
Biometrika 70 (1983).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from airflow_dlaws.drift.comparison import Family

#: Shares of the families relative to one another. Values out of range get half: a handful of new values is significant
#: at any level, so nothing is lost there.
_WEIGHTS = {
    Family.MARGINALS: 1.0,
    Family.RANGE: 0.5,
    Family.OUTPUTS: 1.0,
    Family.LABEL: 1.0,
    Family.REPRESENTATION: 1.0,
    Family.TAIL: 1.0,
    Family.EMBEDDING: 1.0,
}

#: Looks over which the spending hardly falls at first: large enough that the hundredth look still finds something,
#: small enough that the first few can.
_PATIENCE = 20


def family_shares(families: Iterable[Family]) -> dict[Family, float]:
    """Return the share of alpha of each family that takes part; they add up to 1."""
    present = dict.fromkeys(families)
    total = sum(_WEIGHTS[family] for family in present)
    return {family: _WEIGHTS[family] / total for family in present}


def share_of_look(number: int) -> float:
    """Return the share of alpha that the `number`-th look (from 1) may spend.

    It is ln p * (1 / ln(p + number - 1) - 1 / ln(p + number)) with p = 20: the shares telescope, so those of the first
    k looks add up to 1 - ln p / ln(p + k), and all of them, for ever, to 1.

    :raises ValueError: looks are counted from 1.
    """
    if number < 1:
        raise ValueError(f"looks are counted from 1, not {number}")
    before, after = math.log(_PATIENCE + number - 1), math.log(_PATIENCE + number)
    return math.log(_PATIENCE) * (1 / before - 1 / after)


def alpha_of(alpha: float, look: int, length: int, longest: int) -> float:
    """Return what the test of the last `length` windows at this look may spend of `alpha`.

    Lengths are 1, 2, 4, ... `longest`, with an equal share each. 2L windows are judged together after each L looks,
    from the 2L-th look on: about as often as half of what they show is new.

    :param longest: the longest length that is ever judged; a power of two.
    """
    lengths = longest.bit_length()  # 1, 2, 4, ... longest
    number = look if length == 1 else look // (length // 2) - 1
    return alpha / lengths * share_of_look(number)
