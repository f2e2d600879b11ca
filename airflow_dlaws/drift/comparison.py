"""One watched column's current values against its reference: each test with an effect size and a direction.

    distribution   numbers: Kolmogorov-Smirnov on the cells; categories: chi-square test of homogeneity
    below, above   numbers beyond the reference's extremes; unseen: categories it has not: Fisher's exact test
    category       the category whose share has changed most: Fisher's exact test, times the number of categories
    missing        the rate of missing values: Fisher's exact test
    tail           rows whose reconstruction error is beyond the reference's 95 % or 99 % quantile: Fisher's exact test
    embedding      maximum mean discrepancy (drift/discrepancy.py)

Each is a test of its own, because a few rows of something new, or one class that is gone, are plain to an exact test
and invisible to one that looks at the whole distribution. Tests are grouped in families that share the alpha of a
decision (drift/verdict.py).

The effect of a distribution is the population stability index (PSI) over about ten cells, as its customary thresholds
assume, less what chance alone gives it; that of a rate is the index of its two cells; that of a tail is the share of
rows that joined it.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from airflow_dlaws.drift.cells import CategoricalProfile, FeatureProfile, NumericProfile, cell_labels, reference_cells
from airflow_dlaws.drift.counts import FeatureCounts
from airflow_dlaws.drift.numbers import NumericMove, NumericReference
from airflow_dlaws.drift.statistics import (
    exact_two_sided,
    exact_upper_tail,
    excess_index,
    homogeneity_test,
    stability_index,
)


class Family(enum.StrEnum):
    """Tests that share a part of alpha."""

    #: The distribution of each request column.
    MARGINALS = "marginals"
    #: Values that are missing, beyond the extremes, or new, in any watched column.
    RANGE = "range"
    #: The distribution of each numeric output: score, probabilities, confidence.
    OUTPUTS = "outputs"
    #: The predicted label, and other categorical outputs.
    LABEL = "label"
    #: The reconstruction error of rows as a whole.
    REPRESENTATION = "representation"
    #: Rows with an error as only few rows of the reference have.
    TAIL = "tail"
    EMBEDDING = "embedding"


class Aspect(enum.StrEnum):
    """Which property a test looks at."""

    DISTRIBUTION = "distribution"
    BELOW = "below"
    ABOVE = "above"
    UNSEEN = "unseen"
    MISSING = "missing"
    CATEGORY = "category"
    TAIL_95 = "tail_95"
    TAIL_99 = "tail_99"


class Direction(enum.StrEnum):
    """Which way it changed."""

    UP = "up"
    DOWN = "down"
    #: Neither: wider, narrower, another mixture.
    RESHAPED = "reshaped"


class Measure(enum.StrEnum):
    """What an effect is counted in."""

    #: Population stability index.
    PSI = "PSI"
    #: Share of rows.
    SHARE = "share"
    #: Squared distance of mean images, in parts of the image's variance.
    SPREAD = "spread"


#: Half the difference of the two chances "a current value is above / below a reference value" that counts as a shift;
#: below it the centre has stayed and only the shape changed.
_SHIFT = 0.02

#: Categories that an exact test is spent on: the others have changed less.
_LIKELIEST = 3

#: Share of the reference's rows beyond each cut of the tail tests.
_TAILS = ((Aspect.TAIL_95, 0.05), (Aspect.TAIL_99, 0.01))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The result of one test."""

    #: The watched column: a feature, an output, a representation or an embedding.
    feature: str
    family: Family
    aspect: Aspect
    direction: Direction
    #: What changed, for a person: "median about 2.1 -> 9.7".
    note: str
    statistic: float
    #: 0 where the test has none.
    degrees_of_freedom: int
    p_value: float
    effect: float
    measure: Measure = Measure.PSI
    #: After correction for all tests of the decision: to be compared with the alpha of the decision; 1 until judged.
    adjusted_p: float = 1.0
    drifted: bool = False

    def judged(self, adjusted_p: float, *, drifted: bool) -> Comparison:
        """Return this with its place among all the tests of a decision."""
        return Comparison(**{**vars(self), "adjusted_p": adjusted_p, "drifted": drifted})


def compare(
    profile: FeatureProfile, current: FeatureCounts, family: Family, move: NumericMove | None = None
) -> Iterator[Comparison]:
    """Yield the tests of one watched column; none where no current row was counted.

    Of `range_tests` only those are yielded in which anything was seen: the others have a p-value of 1.

    :param family: that of its distribution.
    :param move: of a number: how it lies beside the reference, where that has been found for all columns at once.
    """
    if not current.rows:
        return
    if isinstance(profile, CategoricalProfile):
        yield _of_categories(profile, current, family)
        yield _one_category(profile, current, family)
    else:
        yield _of_numbers(profile, family, move or NumericReference([profile]).moves([current])[profile.name])
        if family is Family.REPRESENTATION:
            yield from _tails(profile, current)
    yield from _out_of_range(profile, current)


def range_tests(profile: FeatureProfile) -> int:
    """Return how many tests of Family.RANGE a column has."""
    return 3 if isinstance(profile, NumericProfile) else 2


def _out_of_range(profile: FeatureProfile, current: FeatureCounts) -> Iterator[Comparison]:
    if current.missing or profile.missing:
        yield _rate(profile.name, Aspect.MISSING, current.missing, current.rows, profile.missing, profile.rows)
    present, reference = current.rows - current.missing, profile.rows - profile.missing
    if isinstance(profile, NumericProfile):
        # Exact: the chance that the top k of exchangeable rows are all current is Fisher's with none in the reference.
        if current.below:
            yield _new(profile.name, Aspect.BELOW, current.below, present, 0, reference)
        if current.above:
            yield _new(profile.name, Aspect.ABOVE, current.above, present, 0, reference)
    elif current.unseen:
        # Good and Turing (Biometrika 40, 1953): the share of values seen once estimates the share not seen yet.
        once = sum(count == 1 for count in profile.counts.values())
        named = f" ({', '.join(current.examples)})" if current.examples else ""
        yield _new(profile.name, Aspect.UNSEEN, current.unseen, present, once, reference, named)


def _of_categories(profile: CategoricalProfile, current: FeatureCounts, family: Family) -> Comparison:
    reference = reference_cells(profile)
    statistic, degrees, p_value = homogeneity_test(reference, current.cells, ordered=False)
    return Comparison(
        feature=profile.name,
        family=family,
        aspect=Aspect.DISTRIBUTION,
        direction=Direction.RESHAPED,
        note=_largest_move(cell_labels(profile), reference, current.cells),
        statistic=statistic,
        degrees_of_freedom=degrees,
        p_value=p_value,
        effect=excess_index(reference, current.cells),
    )


def _one_category(profile: CategoricalProfile, current: FeatureCounts, family: Family) -> Comparison:
    """Return the test of the category that has changed most; the smallest p of the likeliest few, times all of them."""
    reference, labels = reference_cells(profile), sorted(profile.counts)
    rows, reference_rows = current.rows - current.missing, sum(reference)
    places = heapq.nlargest(
        _LIKELIEST, range(len(labels)), lambda at: _surprise(current.cells[at], rows, reference[at], reference_rows)
    )
    tests = [(exact_two_sided(current.cells[at], rows, reference[at], reference_rows), at) for at in places]
    p_value, at = min(tests, default=(1.0, -1))
    hits = (current.cells[at], rows) if tests else (0, 0)
    named = f" is {labels[at]!r}" if tests else " of any category"
    test = _of_share(profile.name, Aspect.CATEGORY, hits, (reference[at] if tests else 0, reference_rows), 1.0, named)
    # The effect is the column's: a class that is gone lifts the others, and what matters is the whole of it.
    effect = excess_index(reference, current.cells)
    return dataclasses.replace(test, family=family, p_value=min(1.0, p_value * len(labels)), effect=effect)


def _surprise(hits: int, rows: int, reference_hits: int, reference_rows: int) -> float:
    """Return the squared difference of two rates over its variance, about."""
    both = hits + reference_hits
    return (hits * reference_rows - reference_hits * rows) ** 2 / both if both else 0.0


def _of_numbers(profile: NumericProfile, family: Family, move: NumericMove) -> Comparison:
    known = move.reference_median is not None
    medians = f"median about {_told(move.reference_median)} -> {_told(move.median)}"
    return Comparison(
        feature=profile.name,
        family=family,
        aspect=Aspect.DISTRIBUTION,
        direction=_direction(move.shift),
        note=medians if known else "has no values in the reference",
        statistic=move.distance,
        degrees_of_freedom=0,
        p_value=move.p_value,
        effect=move.effect,
    )


def _tails(profile: NumericProfile, current: FeatureCounts) -> Iterator[Comparison]:
    """Yield the tests of the upper tail.

    A cut at a quantile of the reference keeps Fisher's test exact: that at least h of n current values are above the
    r-th largest of the reference is that among the h + r - 1 largest of all at least h are current.
    """
    reference_rows = sum(profile.counts)
    if not reference_rows:
        return
    rows = current.rows - current.missing
    for aspect, share in _TAILS:
        cut = _tail_cut(profile.counts, share)
        hits, reference_hits = sum(current.cells[cut:]) + current.above, sum(profile.counts[cut:])
        p_value = exact_upper_tail(hits, rows, reference_hits, reference_rows)
        test = _of_share(profile.name, aspect, (hits, rows), (reference_hits, reference_rows), p_value)
        gained = hits / max(1, rows) - reference_hits / reference_rows
        yield dataclasses.replace(test, family=Family.TAIL, effect=max(0.0, gained), measure=Measure.SHARE)


@functools.lru_cache(maxsize=256)
def _tail_cut(counts: tuple[int, ...], share: float) -> int:
    """Return the cell at which the tail starts whose share of the reference is nearest to `share`."""
    total, beyond, best = sum(counts), 0, (share, len(counts))
    for cell in range(len(counts) - 1, 0, -1):
        beyond += counts[cell]
        best = min(best, (abs(beyond / total - share), cell))
    return best[1]


def _rate(name: str, aspect: Aspect, hits: int, rows: int, reference_hits: int, reference_rows: int) -> Comparison:
    p_value = exact_two_sided(hits, rows, reference_hits, reference_rows)
    return _of_share(name, aspect, (hits, rows), (reference_hits, reference_rows), p_value)


def _new(
    name: str, aspect: Aspect, hits: int, rows: int, reference_hits: int, reference_rows: int, named: str = ""
) -> Comparison:
    p_value = exact_upper_tail(hits, rows, reference_hits, reference_rows)
    return _of_share(name, aspect, (hits, rows), (reference_hits, reference_rows), p_value, named)


_SHARES = {
    Aspect.MISSING: "missing",
    Aspect.BELOW: "below the reference's least value",
    Aspect.ABOVE: "above the reference's greatest value",
    Aspect.UNSEEN: "not among the reference's values",
    Aspect.CATEGORY: "that",
    Aspect.TAIL_95: "with an error that few rows of the reference have",
    Aspect.TAIL_99: "with an error that hardly a row of the reference has",
}


def _of_share(
    name: str, aspect: Aspect, current: tuple[int, int], reference: tuple[int, int], p_value: float, named: str = ""
) -> Comparison:
    (hits, rows), (reference_hits, reference_rows) = current, reference
    now, before = hits / max(1, rows), reference_hits / max(1, reference_rows)
    return Comparison(
        feature=name,
        family=Family.RANGE,
        aspect=aspect,
        direction=Direction.UP if now > before else Direction.DOWN if now < before else Direction.RESHAPED,
        note=f"share {_SHARES[aspect]}{named} {before:.2%} -> {now:.2%}",
        statistic=float(hits),
        degrees_of_freedom=0,
        p_value=p_value,
        effect=stability_index([reference_hits, reference_rows - reference_hits], [hits, rows - hits]),
    )


def _direction(shift: float) -> Direction:
    if abs(shift) < _SHIFT:
        return Direction.RESHAPED
    return Direction.UP if shift > 0 else Direction.DOWN


def _told(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _largest_move(labels: Sequence[str], reference: Sequence[int], current: Sequence[int]) -> str:
    before_all, now_all = max(1, sum(reference)), max(1, sum(current))
    moves = [(c / now_all - r / before_all, label, r / before_all, c / now_all) for label, r, c in zip(
        labels, reference, current, strict=True)]  # fmt: skip
    if not moves:
        return "has no values in the reference"
    _, label, before, now = max(moves, key=lambda move: abs(move[0]))
    return f"share of {label!r} {before:.1%} -> {now:.1%}"
