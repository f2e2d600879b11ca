"""The baselines of SageMaker Model Monitor, read as a reference profile; model_monitor_export.py writes them.

Model Monitor is closed to new customers; those who have it keep `statistics.json` and `constraints.json` in S3:

    https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-byoc-statistics.html
    https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-byoc-constraints.html

A number's distribution is there twice. `kll.buckets` of the prebuilt container are ten of equal width, too coarse for
a column with a long tail; `kll.sketch.data` holds values, those of list i standing for 2^i rows each (Deequ,
KLLSketch.scala), precise to about 0.1 % of the rows. So equal buckets are passed over where there is a sketch; buckets
of other widths are cells that somebody has chosen, and are kept. No I/O and no clock: the caller reads the files and
says when they were written.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow_dlaws.drift.cells import DEFAULT_CELLS, CategoricalProfile, FeatureProfile, NumericProfile
from airflow_dlaws.drift.profile import PREDICTION, ReferenceProfile
from airflow_dlaws.drift.values import category_of
from airflow_dlaws.errors import SpecificationError

#: The only version of the schema; the prebuilt container writes 0.0, the documentation 0.
VERSION = 0.0

#: The prebuilt container always writes ten; the documentation says that this cannot be configured.
_PREBUILT_BUCKETS = 10

#: Bucket counts are differences of estimated ranks; further from the number of values they count something else.
_LARGEST_COUNT_ERROR = 0.01


@dataclass(frozen=True, kw_only=True)
class MonitorBaseline:
    """What a baseline tells."""

    profile: ReferenceProfile
    #: Columns of a request that have no profile, and why.
    unwatched: Mapping[str, str]


def read_baseline(
    statistics: bytes | str, constraints: bytes | str | None = None, *, created: datetime, prediction: str | None = None
) -> MonitorBaseline:
    """Read `statistics.json`, and `constraints.json` for the categories it allows beyond those that were seen.

    :param created: when the baseline was written: the files do not say so, S3's LastModified does.
    :param prediction: the column that is the model's score and no column of a request, where there is one.
    :raises SpecificationError: it is no such file; the message names the place and the rule.
    """
    document = _load("statistics.json", statistics)
    rows = _whole("dataset.item_count", _inside("dataset", document, "dataset").get("item_count"))
    features = [_object("features", item) for item in _list("features", document.get("features"))]
    names = [_text(f"features[{place}].name", item.get("name")) for place, item in enumerate(features)]
    _check(len(set(names)) == len(names), "features", f"names must be unique; they are {names}")
    _check(prediction is None or prediction in names, "prediction", f"{prediction!r} is no feature of {names}")
    allowed = {} if constraints is None else _domains(constraints, names)
    found = {name: _profile(name, item, allowed.get(name, ())) for name, item in zip(names, features, strict=True)}
    score = found.pop(prediction) if prediction is not None else None
    _check(score is None or isinstance(score, NumericProfile), str(prediction), "is the score, and must be a number")
    profile = ReferenceProfile(
        created=created,
        rows=rows,
        feature_order=tuple(found),
        features=tuple(each for each in found.values() if not isinstance(each, str)),
        outputs=(_renamed(score),) if isinstance(score, NumericProfile) else (),
    )
    return MonitorBaseline(
        profile=profile, unwatched={name: why for name, why in found.items() if isinstance(why, str)}
    )


def _profile(name: str, item: Mapping[str, Any], allowed: Iterable[str]) -> FeatureProfile | str:
    """Return the profile of a column, or why it has none."""
    if "numerical_statistics" in item:
        return _numeric(name, _inside(name, item, "numerical_statistics"))
    if "string_statistics" in item:
        return _categorical(name, _inside(name, item, "string_statistics"), allowed)
    kind = item.get("inferred_type")
    _check(kind == "Unknown", name, f"is {kind!r}, and has neither numerical_statistics nor string_statistics")
    return "Model Monitor could not tell its type"


def _numeric(name: str, statistics: Mapping[str, Any]) -> NumericProfile:
    present, missing = _common(name, statistics)
    if not present:
        return NumericProfile(name=name, edges=(), counts=(0,), missing=missing, low=None, high=None)
    low, high = (_number(f"{name}.{key}", statistics.get(key)) for key in ("min", "max"))
    _check(low <= high, name, f"min ({low}) must not be above max ({high})")
    edges, counts = _cells(name, _inside(name, statistics, "distribution", "kll"), present, constant=low == high)
    return NumericProfile(name=name, edges=edges, counts=counts, missing=missing, low=low, high=high)


def _cells(
    name: str, kll: Mapping[str, Any], present: int, *, constant: bool
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Return edges and counts, of the buckets or of the sketch."""
    if constant:
        return (), (present,)
    bounds, counts = _buckets(name, kll, present)
    points = _sketch(name, kll) if _equal_widths(bounds) else []
    if points and sum(weight for _, weight in points) == present:
        return _cut(points, present)
    return tuple(bounds[1:-1]), counts


def _buckets(name: str, kll: Mapping[str, Any], present: int) -> tuple[list[float], tuple[int, ...]]:
    """Return the bounds, and counts that are whole and add up to the values that are present."""
    where = f"{name}.kll.buckets"
    buckets = [_object(where, item) for item in _list(where, kll.get("buckets"))]
    _check(bool(buckets), where, "there must be at least one")
    lower, upper = ([_number(where, item.get(key)) for item in buckets] for key in ("lower_bound", "upper_bound"))
    bounds = [*lower, upper[-1]]
    # Between two floats that are neighbours there is no third: the first or the last bucket may have no width.
    _check(
        all(left < right for left, right in itertools.pairwise(bounds[1:-1]))
        and bounds == sorted(bounds)
        and all(math.isclose(end, start, abs_tol=1e-12) for end, start in zip(upper, lower[1:], strict=False)),
        where,
        f"must increase, each beginning where the one before ends; they are {list(zip(lower, upper, strict=True))}",
    )
    shares = [_number(where, item.get("count")) for item in buckets]
    total = sum(shares)
    _check(
        min(shares) >= 0 and abs(total - present) <= _LARGEST_COUNT_ERROR * present,
        where,
        f"counts {shares} must not be negative, and must add up to num_present, {present}",
    )
    return bounds, _whole_counts(shares, present)


def _whole_counts(shares: Sequence[float], total: int) -> tuple[int, ...]:
    """Round to integers that add up to `total`: each down, and what is left to the largest remainders."""
    scale = total / sum(shares)
    counts = [math.floor(share * scale) for share in shares]
    largest = sorted(range(len(shares)), key=lambda place: counts[place] - shares[place] * scale)
    for place in itertools.islice(itertools.cycle(largest), total - sum(counts)):
        counts[place] += 1
    return tuple(counts)


def _equal_widths(bounds: Sequence[float]) -> bool:
    widths = [right - left for left, right in itertools.pairwise(bounds)]
    return len(widths) == _PREBUILT_BUCKETS and math.isclose(min(widths), max(widths), rel_tol=1e-6)


def _sketch(name: str, kll: Mapping[str, Any]) -> list[tuple[float, int]]:
    """Return the values of the sketch in order, each with the number of rows it stands for."""
    where = f"{name}.kll.sketch"
    if kll.get("sketch") is None:
        return []
    levels = _list(where, _object(where, kll["sketch"]).get("data"))
    weights: Counter[float] = Counter()
    for level, items in enumerate(levels):
        for item in _list(where, items):
            weights[_number(where, item)] += 2**level
    return sorted(weights.items())


def _cut(points: Sequence[tuple[float, int]], present: int) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Cut weighted values into cells of about equal weight; one that weighs as much as a cell gets its own."""
    edges: list[float] = []
    counts = [0]
    for (value, weight), following in itertools.zip_longest(points, points[1:]):
        counts[-1] += weight
        heavy = following is not None and following[1] * DEFAULT_CELLS >= present
        if following is not None and (heavy or counts[-1] * DEFAULT_CELLS >= present):
            edges.append(value / 2 + following[0] / 2)
            counts.append(0)
    return tuple(edges), tuple(counts)


def _categorical(name: str, statistics: Mapping[str, Any], allowed: Iterable[str]) -> CategoricalProfile | str:
    present, missing = _common(name, statistics)
    where = f"{name}.distribution.categorical.buckets"
    distribution = statistics.get("distribution") or {}
    buckets = (_object(where, distribution).get("categorical") or {}).get("buckets") or []
    counts: Counter[str | None] = Counter()
    for bucket in (_object(where, item) for item in _list(where, buckets)):
        counts[category_of(_text(where, bucket.get("value")))] += _whole(where, bucket.get("count"))
    if counts.total() < present:
        return f"of {present} values, only {counts.total()} are in buckets: too many different ones"
    _check(counts.total() == present, where, f"hold {counts.total()} values, more than num_present, {present}")
    missing += counts.pop(None, 0)  # "NA" and "null" as texts: a captured request is read so, too
    known = {category: count for category, count in counts.items() if category is not None}
    unseen = {category: 0 for category in map(category_of, allowed) if category is not None}
    return CategoricalProfile(name=name, counts={**unseen, **known}, missing=missing)


def _common(name: str, statistics: Mapping[str, Any]) -> tuple[int, int]:
    common = _inside(name, statistics, "common")
    return _whole(f"{name}.num_present", common.get("num_present")), _whole(
        f"{name}.num_missing", common.get("num_missing")
    )


def _domains(constraints: bytes | str, names: Sequence[str]) -> dict[str, list[str]]:
    """Return the categories that `constraints.json` allows, by column."""
    document = _load("constraints.json", constraints)
    found = {}
    for item in (_object("features", each) for each in _list("features", document.get("features"))):
        name = _text("features.name", item.get("name"))
        _check(name in names, name, f"stands in constraints.json, and not in statistics.json: {list(names)}")
        domains = (item.get("string_constraints") or {}).get("domains") or []
        found[name] = [_text(f"{name}.domains", value) for value in _list(f"{name}.domains", domains)]
    return found


def _renamed(score: NumericProfile) -> NumericProfile:
    return NumericProfile(
        name=PREDICTION, edges=score.edges, counts=score.counts, missing=score.missing, low=score.low, high=score.high
    )


def _load(file: str, text: bytes | str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise SpecificationError(f"{file} is no JSON document: {error}") from error
    _check(isinstance(document, dict), file, f"must be an object, not {type(document).__name__}")
    found = document.get("version")
    _check(
        isinstance(found, (int, float)) and found == VERSION,
        file,
        f"has version {found!r}; this reads version {VERSION:g}",
    )
    return dict(document)


def _inside(where: str, item: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    for key in keys:
        item = _object(f"{where}.{key}", item.get(key))
    return item


def _object(where: str, value: Any) -> Mapping[str, Any]:
    _check(isinstance(value, dict), where, f"must be an object, not {value!r:.60}")
    return dict(value)


def _list(where: str, value: Any) -> list[Any]:
    _check(isinstance(value, list), where, f"must be a list, not {value!r:.60}")
    return list(value)


def _text(where: str, value: Any) -> str:
    _check(isinstance(value, str), where, f"must be a text, not {value!r:.60}")
    return str(value)


def _number(where: str, value: Any) -> float:
    right = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    _check(right, where, f"must be a finite number, not {value!r:.60}")
    return float(value)


def _whole(where: str, value: Any) -> int:
    number = _number(where, value)  # the prebuilt container writes counts as 12.0
    _check(number >= 0 and number.is_integer(), where, f"must be a whole number of at least 0, not {value!r}")
    return int(number)


def _check(rule_holds: bool, where: str, rule: str) -> None:
    if not rule_holds:
        raise SpecificationError(f"Model Monitor baseline, {where}: {rule}")
