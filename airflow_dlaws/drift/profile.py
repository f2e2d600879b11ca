"""The reference profile: what the traffic of a healthy model looks like, small enough to keep beside the model.

A training job writes it as `drift_reference.json`; this module states the schema, reads it strictly, and builds it
without numpy. The document is one JSON object with exactly these keys:

    format         "dlaws-drift-reference/1"
    created        when it was written: ISO 8601 with a UTC offset, "2013-04-01T00:00:00+00:00"
    rows           how many rows the features were profiled on, an integer of at least 1
    feature_order  the columns of a request, in order: ["dep_delay", "hour", ...]
    features       one object for each profiled column; a column of feature_order without one is not watched
    prediction     a numeric object named "prediction": the model's score on held-out rows (its own number of rows);
                   or null

A numeric object has exactly these keys:

    name, kind     the column's name, "numeric"
    edges          inner bin edges, finite and strictly increasing; may be empty
    counts         len(edges) + 1 integers. Bin i holds the values v with edges[i-1] <= v < edges[i]; the first and the
                   last bin are open, so `numpy.bincount(numpy.digitize(v, edges), minlength=len(edges) + 1)` gives them
    missing        how many values were empty, NaN or infinite; sum(counts) + missing = rows
    low, high      the least and the greatest value; both null where every value is missing

A categorical object has exactly these keys:

    name, kind     the column's name, "categorical"
    counts         {"the value as text in the request, without surrounding blanks": how often}
    missing        as above

Draw each edge HALFWAY BETWEEN two neighbouring distinct values (see :func:`quantile_edges`), never on a value: a value
that went through float32 or was printed with fewer digits must not change its bin. JSON has no NaN: write null or omit.
"""

from __future__ import annotations

import bisect
import itertools
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow_dlaws.drift.values import category_of, number_of
from airflow_dlaws.errors import SpecificationError

FORMAT = "dlaws-drift-reference/1"

#: Ten bins: the usual choice for a population stability index, which its customary thresholds (0.1, 0.2) assume.
DEFAULT_BINS = 10

PREDICTION = "prediction"

_TOP_KEYS = frozenset({"format", "created", "rows", "feature_order", "features", "prediction"})
_NUMERIC_KEYS = frozenset({"name", "kind", "edges", "counts", "missing", "low", "high"})
_CATEGORICAL_KEYS = frozenset({"name", "kind", "counts", "missing"})


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
        _check(len(self.counts) == len(self.edges) + 1, self.name, "counts must have one entry more than edges")
        _check(all(map(math.isfinite, self.edges)), self.name, "edges must be finite")
        _check(
            all(left < right for left, right in itertools.pairwise(self.edges)),
            self.name,
            f"edges must increase strictly; they are {list(self.edges)}: merge bins with equal edges",
        )
        _check_counts(self.name, self.counts, self.missing)
        _check((self.low is None) == (self.high is None) == (sum(self.counts) == 0), self.name, _RANGE)
        if self.low is not None and self.high is not None:
            _check(math.isfinite(self.low) and math.isfinite(self.high), self.name, "low and high must be finite")
            _check(self.low <= self.high, self.name, f"low ({self.low}) must not be above high ({self.high})")

    @property
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


_RANGE = "low and high must both be numbers, or both null where every value is missing"


@dataclass(frozen=True, kw_only=True)
class CategoricalProfile:
    """How often each value of a category occurs."""

    name: str
    counts: Mapping[str, int]
    missing: int

    def __post_init__(self) -> None:
        _check_counts(self.name, self.counts.values(), self.missing)
        _check(
            all(category_of(value) == value for value in self.counts),
            self.name,
            "the values in counts must be texts without surrounding blanks, and none may be a word for 'missing'",
        )

    @property
    def rows(self) -> int:
        """How many rows were profiled, those with a missing value included."""
        return sum(self.counts.values()) + self.missing

    def document(self) -> dict[str, Any]:
        """Return the object of the profile document."""
        counts = dict(sorted(self.counts.items()))
        return {"name": self.name, "kind": "categorical", "counts": counts, "missing": self.missing}


FeatureProfile = NumericProfile | CategoricalProfile


@dataclass(frozen=True, kw_only=True)
class ReferenceProfile:
    """The whole document."""

    created: datetime
    rows: int
    feature_order: tuple[str, ...]
    features: tuple[FeatureProfile, ...]
    prediction: NumericProfile | None = None

    def __post_init__(self) -> None:
        names = [feature.name for feature in self.features]
        _check(self.created.tzinfo is not None, "created", "must carry a UTC offset")
        _check(self.rows >= 1, "rows", f"must be at least 1, not {self.rows}")
        _check(len(set(names)) == len(names), "features", f"names must be unique; they are {names}")
        _check(len(set(self.feature_order)) == len(self.feature_order), "feature_order", "names must be unique")
        unknown = sorted(set(names) - set(self.feature_order))
        _check(not unknown, "features", f"{unknown} stand not in feature_order {list(self.feature_order)}")
        _check(PREDICTION not in names, "features", f"{PREDICTION!r} is the name of the model's score")
        for feature in self.features:
            _check(feature.rows == self.rows, feature.name, f"counts and missing give {feature.rows} rows, {_ROWS}")

    @property
    def watched(self) -> tuple[FeatureProfile, ...]:
        """The features, and after them the prediction where there is one."""
        return self.features if self.prediction is None else (*self.features, self.prediction)

    def document(self) -> dict[str, Any]:
        """Return the document, ready for `json.dumps`."""
        return {
            "format": FORMAT,
            "created": self.created.isoformat(),
            "rows": self.rows,
            "feature_order": list(self.feature_order),
            "features": [feature.document() for feature in self.features],
            "prediction": None if self.prediction is None else self.prediction.document(),
        }


_ROWS = "which is not the document's number of rows: count every row once"


def parse_profile(text: bytes | str) -> ReferenceProfile:
    """Read a profile document.

    :raises SpecificationError: it is no such document; the message names the place and the rule.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise SpecificationError(f"the drift reference is no JSON document: {error}") from error
    _check(isinstance(document, dict), "document", f"must be an object, not {type(document).__name__}")
    found = document.get("format")
    _check(found == FORMAT, "format", f"is {found!r}; this version reads {FORMAT!r}")
    _check_keys("document", document, _TOP_KEYS)
    prediction = document["prediction"]
    try:
        return ReferenceProfile(
            created=datetime.fromisoformat(document["created"]),
            rows=_integer("rows", document["rows"]),
            feature_order=tuple(map(str, document["feature_order"])),
            features=tuple(_feature(item) for item in document["features"]),
            prediction=None if prediction is None else _prediction(prediction),
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise error if isinstance(error, SpecificationError) else _malformed(error) from error


def _malformed(error: Exception) -> SpecificationError:
    return SpecificationError(f"the drift reference is malformed: {error}; airflow_dlaws/drift/profile.py states how")


def _feature(item: Any) -> FeatureProfile:
    _check(isinstance(item, dict) and isinstance(item.get("name"), str), "features", "need objects with a name")
    name, kind = item["name"], item.get("kind")
    if kind == "numeric":
        _check_keys(name, item, _NUMERIC_KEYS)
        return NumericProfile(
            name=name,
            edges=tuple(float(edge) for edge in item["edges"]),
            counts=tuple(_integer(name, count) for count in item["counts"]),
            missing=_integer(name, item["missing"]),
            low=None if item["low"] is None else float(item["low"]),
            high=None if item["high"] is None else float(item["high"]),
        )
    _check(kind == "categorical", name, f"kind is {kind!r}; allowed are 'numeric' and 'categorical'")
    _check_keys(name, item, _CATEGORICAL_KEYS)
    counts = {value: _integer(name, count) for value, count in item["counts"].items()}
    return CategoricalProfile(name=name, counts=counts, missing=_integer(name, item["missing"]))


def _prediction(item: Any) -> NumericProfile:
    profile = _feature(item)
    if not isinstance(profile, NumericProfile) or profile.name != PREDICTION:
        raise SpecificationError(f"drift reference, prediction: must be a numeric object named {PREDICTION!r}, or null")
    return profile


def _integer(where: str, value: Any) -> int:
    _check(isinstance(value, int) and not isinstance(value, bool), where, f"{value!r} must be an integer")
    return int(value)


def _check_counts(name: str, counts: Iterable[int], missing: int) -> None:
    _check(missing >= 0 and all(count >= 0 for count in counts), name, "counts and missing must not be negative")


def _check_keys(where: str, item: Mapping[str, Any], keys: frozenset[str]) -> None:
    surplus, lacking = sorted(set(item) - keys), sorted(keys - set(item))
    _check(not surplus and not lacking, where, f"has unknown keys {surplus} and lacks {lacking}")


def _check(rule_holds: bool, where: str, rule: str) -> None:
    if not rule_holds:
        raise SpecificationError(f"drift reference, {where}: {rule}")


def quantile_edges(values: Sequence[float], bins: int = DEFAULT_BINS) -> tuple[float, ...]:
    """Return inner edges of about equally filled bins, each halfway between two distinct values.

    A value as frequent as a bin is large gets a bin of its own, so a column that is nearly always zero keeps its
    information.
    """
    ordered = sorted(values)
    edges: list[float] = []
    filled = 0
    for index, (value, following) in enumerate(itertools.pairwise(ordered), start=1):
        if following > value and (index - filled) * bins >= len(ordered):
            edges.append(value / 2 + following / 2)
            filled = index
    return tuple(sorted(set(edges)))


def build_profile(
    rows: Iterable[Sequence[object]],
    *,
    feature_order: Sequence[str],
    created: datetime,
    categorical: Collection[str] = (),
    scores: Iterable[object] | None = None,
    bins: int = DEFAULT_BINS,
) -> ReferenceProfile:
    """Profile rows (values in `feature_order`; numbers, texts, None) and, where given, the model's held-out scores.

    :raises SpecificationError: a row has another number of columns, or a value of a numeric column is no number.
    """
    table = [tuple(row) for row in rows]
    for number, row in enumerate(table):
        _check(len(row) == len(feature_order), f"row {number}", f"has {len(row)} values, not {len(feature_order)}")
    columns = {name: [row[index] for row in table] for index, name in enumerate(feature_order)}
    return ReferenceProfile(
        created=created,
        rows=len(table),
        feature_order=tuple(feature_order),
        features=tuple(
            categorical_profile(name, values) if name in categorical else numeric_profile(name, values, bins=bins)
            for name, values in columns.items()
        ),
        prediction=None if scores is None else numeric_profile(PREDICTION, scores, bins=bins),
    )


def numeric_profile(name: str, values: Iterable[object], *, bins: int = DEFAULT_BINS) -> NumericProfile:
    """Profile the values of one numeric column.

    :raises SpecificationError: a value is no number.
    """
    try:
        numbers = [number_of(value) for value in values]
    except ValueError as error:
        raise SpecificationError(f"drift reference, {name}: {error}; name the column as categorical") from error
    present = [number for number in numbers if number is not None]
    edges = quantile_edges(present, bins)
    counts = [0] * (len(edges) + 1)
    for number in present:
        counts[bisect.bisect_right(edges, number)] += 1
    return NumericProfile(
        name=name,
        edges=edges,
        counts=tuple(counts),
        missing=len(numbers) - len(present),
        low=min(present, default=None),
        high=max(present, default=None),
    )


def categorical_profile(name: str, values: Iterable[object]) -> CategoricalProfile:
    """Profile the values of one categorical column."""
    counts: dict[str, int] = {}
    missing = 0
    for category in map(category_of, values):
        if category is None:
            missing += 1
        else:
            counts[category] = counts.get(category, 0) + 1
    return CategoricalProfile(name=name, counts=dict(sorted(counts.items())), missing=missing)
