"""One feature's current values against its reference: up to three tests, each with an effect size and a direction.

    distribution   among values that the reference knows (its bins or categories): chi-square test of homogeneity
    below, above   numbers beyond the reference's extremes; unseen: categories it has not: Fisher's exact test
    missing        the rate of missing values: Fisher's exact test

Each is a test of its own, because a few rows of something new are plain to an exact test and invisible to a chi-square
test that has to pool small cells. The effect of each is the population stability index of the table it tests.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from airflow_dlaws.drift.counts import FeatureCounts
from airflow_dlaws.drift.profile import FeatureProfile, NumericProfile
from airflow_dlaws.drift.statistics import exact_two_sided, exact_upper_tail, homogeneity_test, stability_index


class Aspect(enum.StrEnum):
    """Which property of a feature a test looks at."""

    DISTRIBUTION = "distribution"
    BELOW = "below"
    ABOVE = "above"
    UNSEEN = "unseen"
    MISSING = "missing"


class Direction(enum.StrEnum):
    """Which way it changed."""

    UP = "up"
    DOWN = "down"
    #: Neither: wider, narrower, another mixture.
    RESHAPED = "reshaped"


#: Half the difference of the two chances "a current value is above / below a reference value" that counts as a shift;
#: below it the centre has stayed and only the shape changed.
_SHIFT = 0.02


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The result of one test of one feature."""

    feature: str
    aspect: Aspect
    direction: Direction
    #: What changed, for a person: "median about 2.1 -> 9.7".
    note: str
    statistic: float
    degrees_of_freedom: int
    p_value: float
    #: Population stability index of the tested table.
    effect: float
    #: After correction for all tests of the look; 1 until judged.
    adjusted_p: float = 1.0
    drifted: bool = False

    def judged(self, adjusted_p: float, *, drifted: bool) -> Comparison:
        """Return this with its place among all the tests of a look."""
        return dataclasses.replace(self, adjusted_p=adjusted_p, drifted=drifted)


def compare(profile: FeatureProfile, current: FeatureCounts) -> Iterator[Comparison]:
    """Yield the tests of one feature; none where no current row was counted."""
    if not current.rows:
        return
    yield _distribution(profile, current)
    yield _rate(profile.name, Aspect.MISSING, current.missing, current.rows, profile.missing, profile.rows)
    present, reference = current.rows - current.missing, profile.rows - profile.missing
    if isinstance(profile, NumericProfile):
        # Exact: the chance that the top k of exchangeable rows are all current is Fisher's with none in the reference.
        yield _new(profile.name, Aspect.BELOW, current.below, present, 0, reference)
        yield _new(profile.name, Aspect.ABOVE, current.above, present, 0, reference)
    else:
        # Good and Turing (Biometrika 40, 1953): the share of values seen once estimates the share not seen yet.
        once = sum(count == 1 for count in profile.counts.values())
        named = f" ({', '.join(current.examples)})" if current.examples else ""
        yield _new(profile.name, Aspect.UNSEEN, current.unseen, present, once, reference, named)


def reference_cells(profile: FeatureProfile) -> list[int]:
    """Return the reference's counts in the order of `FeatureCounts.cells`."""
    if isinstance(profile, NumericProfile):
        return list(profile.counts)
    return [profile.counts[value] for value in sorted(profile.counts)]


def cell_labels(profile: FeatureProfile) -> list[str]:
    """Return what each of `FeatureCounts.cells` holds, for a person."""
    if not isinstance(profile, NumericProfile):
        return sorted(profile.counts)
    if not profile.edges:
        return ["all values"]
    between = [f"{left:.4g} to {right:.4g}" for left, right in zip(profile.edges, profile.edges[1:], strict=False)]
    return [f"< {profile.edges[0]:.4g}", *between, f">= {profile.edges[-1]:.4g}"]


def _distribution(profile: FeatureProfile, current: FeatureCounts) -> Comparison:
    reference = reference_cells(profile)
    numeric = isinstance(profile, NumericProfile)
    statistic, degrees, p_value = homogeneity_test(reference, current.cells, ordered=numeric)
    if isinstance(profile, NumericProfile):
        direction, note = _shift(reference, current.cells), _medians(profile, current)
    else:
        direction, note = Direction.RESHAPED, _largest_move(cell_labels(profile), reference, current.cells)
    return Comparison(
        feature=profile.name,
        aspect=Aspect.DISTRIBUTION,
        direction=direction,
        note=note,
        statistic=statistic,
        degrees_of_freedom=degrees,
        p_value=p_value,
        effect=stability_index(reference, current.cells),
    )


def _rate(name: str, aspect: Aspect, hits: int, rows: int, reference_hits: int, reference_rows: int) -> Comparison:
    p_value = exact_two_sided(hits, rows, reference_hits, reference_rows)
    return _of_share(name, aspect, (hits, rows), (reference_hits, reference_rows), p_value)


def _new(
    name: str, aspect: Aspect, hits: int, rows: int, reference_hits: int, reference_rows: int, named: str = ""
) -> Comparison:
    p_value = exact_upper_tail(hits, rows, reference_hits, reference_rows)
    return _of_share(name, aspect, (hits, rows), (reference_hits, reference_rows), p_value, named)


def _of_share(
    name: str, aspect: Aspect, current: tuple[int, int], reference: tuple[int, int], p_value: float, named: str = ""
) -> Comparison:
    (hits, rows), (reference_hits, reference_rows) = current, reference
    now, before = hits / max(1, rows), reference_hits / max(1, reference_rows)
    what = {
        Aspect.MISSING: "missing",
        Aspect.BELOW: "below the reference's least value",
        Aspect.ABOVE: "above the reference's greatest value",
        Aspect.UNSEEN: "not among the reference's values",
    }[aspect]
    return Comparison(
        feature=name,
        aspect=aspect,
        direction=Direction.UP if now > before else Direction.DOWN if now < before else Direction.RESHAPED,
        note=f"share {what} {before:.2%} -> {now:.2%}{named}",
        statistic=float(hits),
        degrees_of_freedom=0,
        p_value=p_value,
        effect=stability_index([reference_hits, reference_rows - reference_hits], [hits, rows - hits]),
    )


def _shift(reference: Sequence[int], current: Sequence[int]) -> Direction:
    """Tell which way the bins moved, by P(current > reference) - P(current < reference) over two (ridit analysis)."""
    total = sum(reference) * sum(current)
    below_here = higher = lower = 0
    above_here = sum(reference)
    for r, c in zip(reference, current, strict=True):
        above_here -= r
        higher += c * below_here
        lower += c * above_here
        below_here += r
    shift = (higher - lower) / (2 * total) if total else 0.0
    if abs(shift) < _SHIFT:
        return Direction.RESHAPED
    return Direction.UP if shift > 0 else Direction.DOWN


def _medians(profile: NumericProfile, current: FeatureCounts) -> str:
    inner = [*profile.edges]
    low, high = profile.low, profile.high
    if low is None or high is None:
        return "has no values in the reference"
    bounds = [low, *inner, high]
    before = _median(bounds, profile.counts)
    now = _median([low, low, *inner, high, high], [current.below, *current.cells, current.above])
    return f"median about {_told(before)} -> {_told(now)}"


def _median(bounds: Sequence[float], counts: Sequence[int]) -> float | None:
    """Return the median by linear interpolation in its bin."""
    half, passed = sum(counts) / 2, 0
    for left, right, count in zip(bounds, bounds[1:], counts, strict=False):
        if count and passed + count >= half:
            return left + (right - left) * (half - passed) / count
        passed += count
    return None


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
