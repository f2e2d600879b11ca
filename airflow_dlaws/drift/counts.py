"""Counts of current traffic in the cells of the reference profile: all that is kept of the requests that were read.

Counts of two sets of requests add up to the counts of both together, in any order, so files may be read one at a time.
"""

from __future__ import annotations

import bisect
import functools
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from airflow_dlaws.drift.cells import CategoricalProfile, FeatureProfile
from airflow_dlaws.drift.profile import ReferenceProfile
from airflow_dlaws.drift.values import category_of, number_of
from airflow_dlaws.errors import SpecificationError

#: Names enough to recognise a new category in a report, few enough that hostile input cannot fill the state file.
MAX_EXAMPLES = 5
_MAX_EXAMPLE_LENGTH = 40

#: A value that went through float32 may come back beyond the extreme it was: seven digits are what float32 keeps.
_FLOAT32_PRECISION = 1e-6


@dataclass(frozen=True, kw_only=True)
class FeatureCounts:
    """Where the current values of one feature fell.

    `cells` are the profile's bins, or its categories in sorted order. `below` and `above` are values beyond the
    reference's extremes; `unseen` are categories that the reference has not. A value counts in exactly one place.
    """

    name: str
    cells: tuple[int, ...]
    missing: int = 0
    below: int = 0
    above: int = 0
    unseen: int = 0
    #: The alphabetically first few unseen categories.
    examples: tuple[str, ...] = ()

    @functools.cached_property
    def rows(self) -> int:
        """How many values were counted."""
        return sum(self.cells) + self.missing + self.below + self.above + self.unseen

    def __add__(self, other: FeatureCounts) -> FeatureCounts:
        if (self.name, len(self.cells)) != (other.name, len(other.cells)):
            raise SpecificationError(f"counts of {self.name!r} and {other.name!r} come from different profiles")
        return FeatureCounts(
            name=self.name,
            cells=tuple(map(operator.add, self.cells, other.cells)),
            missing=self.missing + other.missing,
            below=self.below + other.below,
            above=self.above + other.above,
            unseen=self.unseen + other.unseen,
            examples=tuple(sorted({*self.examples, *other.examples})[:MAX_EXAMPLES]),
        )


#: Images of embeddings are summed as integers of this many to one: sums of floats would depend on their order.
FIXED_POINT = 2**30


@dataclass(frozen=True, kw_only=True)
class EmbeddingCounts:
    """The sum of the images (drift/representation.py) of the current vectors of one embedding."""

    name: str
    #: Vectors that were summed.
    rows: int = 0
    #: Vectors of another length, or with a value that is no finite number.
    missing: int = 0
    #: One entry for each of the 2 * pairs features: its sum over the rows of a file, times FIXED_POINT and rounded.
    sums: tuple[int, ...]

    def __add__(self, other: EmbeddingCounts) -> EmbeddingCounts:
        if (self.name, len(self.sums)) != (other.name, len(other.sums)):
            raise SpecificationError(f"counts of {self.name!r} and {other.name!r} come from different profiles")
        return EmbeddingCounts(
            name=self.name,
            rows=self.rows + other.rows,
            missing=self.missing + other.missing,
            sums=tuple(map(operator.add, self.sums, other.sums)),
        )


@dataclass(frozen=True, kw_only=True)
class TrafficCounts:
    """What is known about a stretch of traffic."""

    #: Requests (captured lines) that could be read.
    requests: int = 0
    #: Rows in them; a request may hold many.
    rows: int = 0
    #: In the order of `ReferenceProfile.watched`: features, outputs, errors of representations.
    features: tuple[FeatureCounts, ...]
    #: In the order of the profile's embeddings.
    embeddings: tuple[EmbeddingCounts, ...] = ()
    #: How often something could not be read, by kind (see capture.Fault).
    faults: Mapping[str, int] = field(default_factory=dict)
    #: The earliest and latest inference.
    first: datetime | None = None
    last: datetime | None = None

    @property
    def by_name(self) -> dict[str, FeatureCounts]:
        """The counts by feature name."""
        return {feature.name: feature for feature in self.features}

    def __add__(self, other: TrafficCounts) -> TrafficCounts:
        kinds = sorted({*self.faults, *other.faults})
        return TrafficCounts(
            requests=self.requests + other.requests,
            rows=self.rows + other.rows,
            features=tuple(mine + theirs for mine, theirs in zip(self.features, other.features, strict=True)),
            embeddings=tuple(mine + theirs for mine, theirs in zip(self.embeddings, other.embeddings, strict=True)),
            faults={kind: self.faults.get(kind, 0) + other.faults.get(kind, 0) for kind in kinds},
            first=min((time for time in (self.first, other.first) if time), default=None),
            last=max((time for time in (self.last, other.last) if time), default=None),
        )


def no_traffic(profile: ReferenceProfile) -> TrafficCounts:
    """Return the counts before anything was read."""
    return TrafficCounts(
        features=tuple(count_values(feature, ())[0] for feature in profile.watched),
        embeddings=tuple(EmbeddingCounts(name=each.name, sums=(0,) * (2 * each.pairs)) for each in profile.embeddings),
    )


def count_values(profile: FeatureProfile, values: Sequence[object]) -> tuple[FeatureCounts, int]:
    """Count values of one feature; also return how many were no numbers where numbers are due (counted as missing)."""
    if isinstance(profile, CategoricalProfile):
        return count_categories(profile, ((value, 1) for value in values)), 0
    cells = [0] * len(profile.counts)
    missing = below = above = not_numbers = 0
    low, high = rounded_range(profile.low, profile.high)
    for value in values:
        try:
            number = number_of(value)
        except ValueError:
            number = None
            not_numbers += 1
        if number is None:
            missing += 1
        elif number < low:
            below += 1
        elif number > high:
            above += 1
        else:
            cells[bisect.bisect_right(profile.edges, number)] += 1
    counts = FeatureCounts(name=profile.name, cells=tuple(cells), missing=missing, below=below, above=above)
    return counts, not_numbers


def rounded_range(low: float | None, high: float | None) -> tuple[float, float]:
    """Return the range of the reference, wide enough for values that went through float32."""
    if low is None or high is None:  # the reference saw no value at all: each one is beyond it
        return float("inf"), float("inf")
    return low - abs(low) * _FLOAT32_PRECISION, high + abs(high) * _FLOAT32_PRECISION


def count_categories(profile: CategoricalProfile, values: Iterable[tuple[object, int]]) -> FeatureCounts:
    """Count values of one category, each with how often it occurs."""
    index = {category: position for position, category in enumerate(sorted(profile.counts))}
    cells = [0] * len(index)
    missing = unseen = 0
    examples: set[str] = set()
    for value, count in values:
        category = category_of(value)
        if category is None:
            missing += count
        elif category in index:
            cells[index[category]] += count
        else:
            unseen += count
            examples.add(category[:_MAX_EXAMPLE_LENGTH])
    shown = tuple(sorted(examples)[:MAX_EXAMPLES])
    return FeatureCounts(name=profile.name, cells=tuple(cells), missing=missing, unseen=unseen, examples=shown)
