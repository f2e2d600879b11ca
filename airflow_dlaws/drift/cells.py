"""How one column is distributed: counts in cells that the profile fixes. The objects of a profile document.

A numeric object has exactly these keys:

    name, kind     the column's name, "numeric"
    edges          inner cell edges, finite and strictly increasing; may be empty
    counts         len(edges) + 1 integers. Cell i holds the values v with edges[i-1] <= v < edges[i]; the first and
                   the last are open, so `numpy.bincount(numpy.digitize(v, edges), minlength=len(edges) + 1)` gives them
    missing        how many values were empty, NaN or infinite
    low, high      the least and the greatest value; both null where every value is missing

A categorical object has exactly these keys:

    name, kind     the column's name, "categorical"
    counts         {"the value as text in the request, without surrounding blanks": how often}
    missing        as above

Draw each edge HALFWAY BETWEEN two neighbouring distinct values (see :func:`quantile_edges`), never on a value: a value
that went through float32 or was printed with fewer digits must not change its cell. JSON has no NaN: write null.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_dlaws.drift.values import category_of
from airflow_dlaws.errors import SpecificationError

#: Fine enough that a Kolmogorov-Smirnov test on cells loses next to nothing against one on values, and that the last
#: hundredth of the rows has a cell of its own; a column costs about three kilobytes.
DEFAULT_CELLS = 128

_NUMERIC_KEYS = frozenset({"name", "kind", "edges", "counts", "missing", "low", "high"})
_CATEGORICAL_KEYS = frozenset({"name", "kind", "counts", "missing"})
_RANGE = "low and high must both be numbers, or both null where every value is missing"


@dataclass(frozen=True, kw_only=True)
class NumericProfile:
    """How a number is distributed. See the module's docstring for the meaning of the fields."""

    name: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    missing: int
    low: float | None
    high: float | None

    def __post_init__(self) -> None:
        require(len(self.counts) == len(self.edges) + 1, self.name, "counts must have one entry more than edges")
        require(all(map(math.isfinite, self.edges)), self.name, "edges must be finite")
        require(
            all(left < right for left, right in itertools.pairwise(self.edges)),
            self.name,
            f"edges must increase strictly; they are {list(self.edges)}: merge cells with equal edges",
        )
        _check_counts(self.name, self.counts, self.missing)
        require((self.low is None) == (self.high is None) == (sum(self.counts) == 0), self.name, _RANGE)
        if self.low is not None and self.high is not None:
            require(math.isfinite(self.low) and math.isfinite(self.high), self.name, "low and high must be finite")
            require(self.low <= self.high, self.name, f"low ({self.low}) must not be above high ({self.high})")

    @functools.cached_property
    def rows(self) -> int:
        """How many rows were profiled, those with a missing value included."""
        return sum(self.counts) + self.missing

    def document(self) -> dict[str, Any]:
        """Return the object of the profile document."""
        return {
            "name": self.name,
            "kind": "numeric",
            "edges": list(self.edges),
            "counts": list(self.counts),
            "missing": self.missing,
            "low": self.low,
            "high": self.high,
        }


@dataclass(frozen=True, kw_only=True)
class CategoricalProfile:
    """How often each value of a category occurs."""

    name: str
    counts: Mapping[str, int]
    missing: int

    def __post_init__(self) -> None:
        _check_counts(self.name, self.counts.values(), self.missing)
        require(
            all(category_of(value) == value for value in self.counts),
            self.name,
            "the values in counts must be texts without surrounding blanks, and none may be a word for 'missing'",
        )

    @functools.cached_property
    def rows(self) -> int:
        """How many rows were profiled, those with a missing value included."""
        return sum(self.counts.values()) + self.missing

    def document(self) -> dict[str, Any]:
        """Return the object of the profile document."""
        counts = dict(sorted(self.counts.items()))
        return {"name": self.name, "kind": "categorical", "counts": counts, "missing": self.missing}


FeatureProfile = NumericProfile | CategoricalProfile


def parse_feature(item: Any) -> FeatureProfile:
    """Read a numeric or categorical object.

    :raises SpecificationError: it is neither; the message names the place and the rule.
    """
    require(isinstance(item, dict) and isinstance(item.get("name"), str), "features", "need objects with a name")
    name, kind = item["name"], item.get("kind")
    if kind == "numeric":
        return parse_numeric(item)
    require(kind == "categorical", name, f"kind is {kind!r}; allowed are 'numeric' and 'categorical'")
    require_keys(name, item, _CATEGORICAL_KEYS)
    counts = {value: integer(name, count) for value, count in item["counts"].items()}
    return CategoricalProfile(name=name, counts=counts, missing=integer(name, item["missing"]))


def parse_numeric(item: Any) -> NumericProfile:
    """Read a numeric object.

    :raises SpecificationError: it is none; the message names the place and the rule.
    """
    require(isinstance(item, dict) and isinstance(item.get("name"), str), "features", "need objects with a name")
    name = item["name"]
    require(item.get("kind") == "numeric", name, f"kind is {item.get('kind')!r}; only 'numeric' is allowed here")
    require_keys(name, item, _NUMERIC_KEYS)
    return NumericProfile(
        name=name,
        edges=tuple(float(edge) for edge in item["edges"]),
        counts=tuple(integer(name, count) for count in item["counts"]),
        missing=integer(name, item["missing"]),
        low=None if item["low"] is None else float(item["low"]),
        high=None if item["high"] is None else float(item["high"]),
    )


def integer(where: str, value: Any) -> int:
    """Return `value`, refusing what is no integer."""
    require(isinstance(value, int) and not isinstance(value, bool), where, f"{value!r} must be an integer")
    return int(value)


def require_keys(where: str, item: Mapping[str, Any], keys: frozenset[str]) -> None:
    """Refuse an object that has not exactly these keys."""
    surplus, lacking = sorted(set(item) - keys), sorted(keys - set(item))
    require(not surplus and not lacking, where, f"has unknown keys {surplus} and lacks {lacking}")


def require(rule_holds: bool, where: str, rule: str) -> None:
    """Refuse a profile that breaks a rule.

    :raises SpecificationError: it does.
    """
    if not rule_holds:
        raise SpecificationError(f"drift reference, {where}: {rule}")


def _check_counts(name: str, counts: Iterable[int], missing: int) -> None:
    require(missing >= 0 and all(count >= 0 for count in counts), name, "counts and missing must not be negative")


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
    between = [f"{left:.4g} to {right:.4g}" for left, right in itertools.pairwise(profile.edges)]
    return [f"< {profile.edges[0]:.4g}", *between, f">= {profile.edges[-1]:.4g}"]


def quantile_edges(values: Sequence[float], cells: int = DEFAULT_CELLS) -> tuple[float, ...]:
    """Return inner edges of about equally filled cells, each halfway between two distinct values.

    A value as frequent as a cell is large ends its cell, so a column that is nearly always zero keeps its information.
    """
    ordered = sorted(values)
    edges: list[float] = []
    filled = 0
    for index, (value, following) in enumerate(itertools.pairwise(ordered), start=1):
        if following > value and (index - filled) * cells >= len(ordered):
            edges.append(value / 2 + following / 2)
            filled = index
    return tuple(sorted(set(edges)))
