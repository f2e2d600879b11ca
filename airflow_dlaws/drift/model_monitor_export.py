"""A reference profile as the baselines of SageMaker Model Monitor; model_monitor.py reads them and has the sources.

Our cells become the buckets of `statistics.json`, and the same counts its sketch. What Model Monitor has no place for
stays behind: other outputs than the score, representations, embeddings and the calibration.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

from airflow_dlaws.drift.cells import FeatureProfile, NumericProfile
from airflow_dlaws.drift.model_monitor import VERSION
from airflow_dlaws.drift.profile import ReferenceProfile

#: What the prebuilt container assumes of a sketch: its size and the ratio by which its levels shrink.
_SKETCH_PARAMETERS = {"c": 0.64, "k": 2048.0}


def statistics_document(profile: ReferenceProfile) -> dict[str, Any]:
    """Return `statistics.json`; the prediction stands first, as Model Monitor expects it.

    Sum, mean and standard deviation are estimated from the cells.
    """
    return {
        "version": VERSION,
        "dataset": {"item_count": profile.rows},
        "features": [_statistics(each) for each in _in_order(profile)],
    }


def constraints_document(profile: ReferenceProfile) -> dict[str, Any]:
    """Return `constraints.json`: what the reference suggests, with the thresholds that AWS documents as defaults."""
    return {
        "version": VERSION,
        "features": [_constraints(each) for each in _in_order(profile)],
        "monitoring_config": {
            "evaluate_constraints": "Enabled",
            "emit_metrics": "Enabled",
            "datatype_check_threshold": 0.1,
            "domain_content_threshold": 0.1,
            "distribution_constraints": {
                "perform_comparison": "Enabled",
                "comparison_threshold": 0.1,
                "comparison_method": "Robust",
                "categorical_comparison_threshold": 0.1,
                "categorical_drift_method": "LInfinity",
            },
        },
    }


def _in_order(profile: ReferenceProfile) -> tuple[FeatureProfile, ...]:
    return profile.features if profile.prediction is None else (profile.prediction, *profile.features)


def _statistics(feature: FeatureProfile) -> dict[str, Any]:
    common = {"num_present": feature.rows - feature.missing, "num_missing": feature.missing}
    described = {"name": feature.name, "inferred_type": _inferred_type(feature)}
    if isinstance(feature, NumericProfile):
        return {**described, "numerical_statistics": {"common": common, **_moments(feature), **_distribution(feature)}}
    buckets = [{"value": value, "count": count} for value, count in sorted(feature.counts.items())]
    strings = {
        "common": common,
        "distinct_count": float(sum(count > 0 for count in feature.counts.values())),
        "distribution": {"categorical": {"buckets": buckets}},
    }
    return {**described, "string_statistics": strings}


def _inferred_type(feature: FeatureProfile) -> str:
    """Tell integers by their cells: edges lie halfway between values, so between integers at a half or a whole."""
    if not isinstance(feature, NumericProfile):
        return "String"
    if feature.low is None or feature.high is None:
        return "Unknown"
    whole = all((2 * edge).is_integer() for edge in feature.edges) and (feature.low + feature.high).is_integer()
    return "Integral" if whole and feature.low.is_integer() else "Fractional"


def _bounds(feature: NumericProfile) -> list[float]:
    """Return the outer and the inner bounds of the cells."""
    low, high = (0.0, 0.0) if feature.low is None or feature.high is None else (feature.low, feature.high)
    return [min((low, *feature.edges[:1])), *feature.edges, max((high, *feature.edges[-1:]))]


def _moments(feature: NumericProfile) -> dict[str, float | None]:
    points = [point for level in _levels(feature) for point in level]
    weights = [2**level for level, items in enumerate(_levels(feature)) for _ in items]
    if not points:
        return dict.fromkeys(("mean", "sum", "std_dev", "min", "max"))
    total = sum(weights)
    summed = math.fsum(point * weight for point, weight in zip(points, weights, strict=True))
    spread = math.fsum((point - summed / total) ** 2 * weight for point, weight in zip(points, weights, strict=True))
    return {
        "mean": summed / total,
        "sum": summed,
        "std_dev": math.sqrt(spread / total),
        "min": feature.low,
        "max": feature.high,
    }


def _distribution(feature: NumericProfile) -> dict[str, Any]:
    buckets = [
        {"lower_bound": left, "upper_bound": right, "count": float(count)}
        for (left, right), count in zip(itertools.pairwise(_bounds(feature)), feature.counts, strict=True)
    ]
    sketch = {"parameters": dict(_SKETCH_PARAMETERS), "data": _levels(feature)}
    return {"distribution": {"kll": {"buckets": buckets, "sketch": sketch}}}


def _levels(feature: NumericProfile) -> list[list[float]]:
    """Return the cells as a sketch: of each cell's count, the binary digits are the levels of its values.

    The values are spread over the cell, so ranks are exact at its edges and interpolated between them.
    """
    depth = max(feature.counts).bit_length()
    levels: list[list[float]] = [[] for _ in range(depth)]
    whole = _inferred_type(feature) == "Integral"
    for (left, right), count in zip(itertools.pairwise(_bounds(feature)), feature.counts, strict=True):
        before = 0
        for level in reversed(range(depth)):
            weight = count & (1 << level)
            if weight:
                value = left + (right - left) * (before + weight / 2) / count
                levels[level].append(math.floor(value + 0.5) if whole else value)
                before += weight
    return levels


def _constraints(feature: FeatureProfile) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": feature.name,
        "inferred_type": _inferred_type(feature),
        "completeness": 1 - feature.missing / max(1, feature.rows),
    }
    if not isinstance(feature, NumericProfile):
        return {**found, "string_constraints": {"domains": sorted(feature.counts)}}
    if feature.low is None:
        return found
    return {**found, "num_constraints": {"is_non_negative": feature.low >= 0}}
