"""Two-sample tests of counts against counts, and effect sizes. The reference is a finite sample, and is treated as one.

Sources. Chi-square test of two binned samples: W. H. Press et al., Numerical Recipes (3rd ed.), 14.3; it is Pearson's
test of homogeneity of a 2 x k table. Its tail: the regularised incomplete gamma function, NIST DLMF 8.7.1 (series) and
8.9.2 (continued fraction, by Lentz's method). Exact test of a 2 x 2 table: R. A. Fisher 1935; hypergeometric tail.
Pooling of small cells: W. G. Cochran, Biometrics 10 (1954). Population stability index: B. Yurdakul, "Statistical
properties of population stability index" (2018), which shows it is the symmetrised Kullback-Leibler divergence.
Kolmogorov-Smirnov test: N. V. Smirnov 1939; its limit distribution is no smaller than the true chance in the tail that
matters here, for two samples of unequal size too (F. Wei and R. M. Dudley, Statistics & Probability Letters 82, 2012),
and on cells, or with ties, the statistic can only be smaller.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Cochran's rule: below five expected, the chi-square distribution is a poor picture of a cell.
MIN_EXPECTED = 5.0

#: Half a row in each cell (Jeffreys' prior): an empty cell gives a large index, not an infinite one.
PSI_SMOOTHING = 0.5

_RELATIVE_PRECISION = 1e-15
_MAX_TERMS = 100_000
_TINY = 1e-300

#: Below it a Kolmogorov distance is all but sure (0.99999), and the series would need more than eight terms.
_ALL_BUT_SURE = 0.3


def chi_square_tail(statistic: float, degrees_of_freedom: int) -> float:
    """Return the probability that a chi-square variable is at least `statistic`.

    :raises ValueError: fewer than one degree of freedom, or a negative statistic.
    """
    if degrees_of_freedom < 1 or statistic < 0:
        raise ValueError(f"need degrees of freedom >= 1 and statistic >= 0, not {degrees_of_freedom} and {statistic}")
    return upper_gamma(degrees_of_freedom / 2, statistic / 2)


def upper_gamma(shape: float, x: float) -> float:
    """Return Q(shape, x), the regularised upper incomplete gamma function."""
    if x == 0:
        return 1.0
    log_front = -x + shape * math.log(x) - math.lgamma(shape)
    front = math.exp(log_front) if log_front > -745 else 0.0  # exp() reaches zero there
    if x < shape + 1:
        return max(0.0, 1.0 - front * _lower_series(shape, x))
    return min(1.0, front * _upper_fraction(shape, x))


def _lower_series(shape: float, x: float) -> float:
    term = total = 1 / shape
    for step in range(1, _MAX_TERMS):
        term *= x / (shape + step)
        total += term
        if term < total * _RELATIVE_PRECISION:
            break
    return total


def _upper_fraction(shape: float, x: float) -> float:
    b = x + 1 - shape
    c = 1 / _TINY
    d = 1 / b
    fraction = d
    for step in range(1, _MAX_TERMS):
        a = -step * (step - shape)
        b += 2
        d = 1 / _away_from_zero(a * d + b)
        c = _away_from_zero(b + a / c)
        fraction *= c * d
        if abs(c * d - 1) < _RELATIVE_PRECISION:
            break
    return fraction


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def homogeneity_test(reference: Sequence[int], current: Sequence[int], *, ordered: bool) -> tuple[float, int, float]:
    """Test whether two rows of counts come from one distribution.

    :param ordered: cells are neighbours on a line (bins), so a small one is pooled with the next; otherwise the small
        ones are pooled together.
    :return: statistic, degrees of freedom and p-value; (0, 0, 1) where the samples are too small to tell anything.
    """
    cells = _pool(list(zip(reference, current, strict=True)), ordered=ordered)
    rows_reference, rows_current = sum(r for r, _ in cells), sum(c for _, c in cells)
    if len(cells) < 2 or not rows_reference or not rows_current:
        return 0.0, 0, 1.0
    to_current = math.sqrt(rows_current / rows_reference)
    statistic = sum((to_current * r - c / to_current) ** 2 / (r + c) for r, c in cells)
    return statistic, len(cells) - 1, chi_square_tail(statistic, len(cells) - 1)


def _pool(cells: list[tuple[int, int]], *, ordered: bool) -> list[tuple[int, int]]:
    """Merge cells until each expects enough in both samples.

    Looks at the column totals alone, so the test stays valid.
    """
    rows_reference, rows_current = sum(r for r, _ in cells), sum(c for _, c in cells)
    smaller_share = min(rows_reference, rows_current) / max(1, rows_reference + rows_current)

    def expects_enough(cell: tuple[int, int]) -> bool:
        return (cell[0] + cell[1]) * smaller_share >= MIN_EXPECTED

    if not ordered:
        cells = sorted(cells, key=sum)
    pooled: list[tuple[int, int]] = []
    for r, c in cells:
        if pooled and not expects_enough(pooled[-1]):
            r, c = r + pooled[-1][0], c + pooled.pop()[1]
        pooled.append((r, c))
    if len(pooled) > 1 and not expects_enough(pooled[-1]):
        (r, c), (s, d) = pooled[-2:]
        pooled[-2:] = [(r + s, c + d)]
    return pooled


def kolmogorov_tail(z: NDArray[Any]) -> NDArray[Any]:
    """Return the chance that the scaled distance of two distribution functions is at least `z`, in the limit.

    :param z: any shape; the result has the same.
    """
    import numpy as np

    steps = np.arange(1, 9)
    terms = np.exp(-2 * (steps * np.expand_dims(z, -1)) ** 2) * np.where(steps % 2, 2.0, -2.0)
    return np.where(np.asarray(z) < _ALL_BUT_SURE, 1.0, terms.sum(-1).clip(0, 1))


def exact_upper_tail(hits: int, current: int, reference_hits: int, reference: int) -> float:
    """Return the probability of at least `hits` among `current` rows where both samples share one rate (Fisher)."""
    total_hits = hits + reference_hits
    if hits <= total_hits * current / max(1, current + reference):
        return 1.0 - _outward_sum(hits - 1, -1, current, total_hits, current + reference)
    return _outward_sum(hits, +1, current, total_hits, current + reference)


def exact_two_sided(hits: int, current: int, reference_hits: int, reference: int) -> float:
    """Return twice the smaller tail of Fisher's test, at most 1."""
    more = exact_upper_tail(hits, current, reference_hits, reference)
    fewer = exact_upper_tail(current - hits, current, reference - reference_hits, reference)
    return min(1.0, 2 * min(more, fewer))


def _outward_sum(start: int, step: int, drawn: int, marked: int, total: int) -> float:
    """Sum hypergeometric probabilities from `start` away from the mode; their terms fall, so a few suffice."""
    least, most = max(0, drawn + marked - total), min(drawn, marked)
    if start < least or start > most:
        return 0.0
    log_term = _log_choose(marked, start) + _log_choose(total - marked, drawn - start) - _log_choose(total, drawn)
    term = total_probability = math.exp(log_term) if log_term > -745 else 0.0
    hits = start
    while least <= hits + step <= most and term > total_probability * _RELATIVE_PRECISION:
        term *= _ratio(hits, drawn, marked, total) if step > 0 else 1 / _ratio(hits - 1, drawn, marked, total)
        total_probability += term
        hits += step
    return min(1.0, total_probability)


def _ratio(hits: int, drawn: int, marked: int, total: int) -> float:
    """Return probability(hits + 1) / probability(hits)."""
    return (marked - hits) * (drawn - hits) / ((hits + 1) * (total - marked - drawn + hits + 1))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def stability_index(reference: Sequence[int], current: Sequence[int]) -> float:
    """Return the population stability index of two rows of counts; 0 where they are proportional or one is empty.

    Customary reading: below 0.1 no change worth mention, from 0.2 (some say 0.25) a shift that matters.
    """
    if not sum(reference) or not sum(current):
        return 0.0
    expected, actual = _smoothed(reference), _smoothed(current)
    return sum((a - e) * math.log(a / e) for e, a in zip(expected, actual, strict=True))


def excess_index(reference: Sequence[int], current: Sequence[int]) -> float:
    """Return how much of the stability index is more than two samples of one distribution show; at least 0.

    Two such samples of n and m rows in k cells have an index of (k - 1)(1/n + 1/m) on average (Yurdakul 2018). Left in,
    a threshold would mean less the smaller the sample: more data would find fewer changes.
    """
    rows, others = sum(reference), sum(current)
    if not rows or not others:
        return 0.0
    cells = sum(1 for left, right in zip(reference, current, strict=True) if left or right)
    return max(0.0, stability_index(reference, current) - (cells - 1) * (1 / rows + 1 / others))


def _smoothed(counts: Sequence[int]) -> list[float]:
    total = sum(counts) + PSI_SMOOTHING * len(counts)
    return [(count + PSI_SMOOTHING) / total for count in counts]


def holm(p_values: Sequence[float], tests: int | None = None) -> list[float]:
    """Return p-values adjusted for testing several hypotheses (S. Holm, Scandinavian Journal of Statistics 6, 1979).

    Rejecting those at most alpha keeps the chance of any false rejection at alpha, however the tests depend on one
    another.

    :param tests: how many tests there are; those not given have a p-value of 1.
    """
    tests = len(p_values) if tests is None else tests
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, p_values[index] * (tests - rank)))
        adjusted[index] = largest
    return adjusted
