"""Reads ParameterRanges, and refuses what is no range.

AWS names the scales and their domains (API reference, IntegerParameterRange and ContinuousParameterRange); how `Auto`
chooses is not documented, and is assumed here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from airflow_dlaws.local.errors import validation_error
from airflow_dlaws.local.tuning.space import CategoricalRange, NumericRange, Scaling, SearchSpace

#: Auto takes the logarithmic scale for ranges that span at least this factor. Assumed: AWS does not say.
_AUTO_LOGARITHMIC = 100.0


def read_space(ranges: Mapping[str, Any]) -> SearchSpace:
    """Read ParameterRanges.

    :raises ServiceError: ValidationException for what is no number, an empty range, or a scale that does not fit.
    """
    numeric = [
        _numeric(row, integer=integer)
        for kind, integer in (("IntegerParameterRanges", True), ("ContinuousParameterRanges", False))
        for row in ranges.get(kind, [])
    ]
    categorical = [_categorical(row) for row in ranges.get("CategoricalParameterRanges", [])]
    return SearchSpace(ranges=(*numeric, *categorical))


def _numeric(row: Mapping[str, str], *, integer: bool) -> NumericRange:
    low, high = (_number(row["Name"], row[member], integer=integer) for member in ("MinValue", "MaxValue"))
    if low > high:
        raise validation_error(f"Hyperparameter {row['Name']}: MinValue {low} is greater than MaxValue {high}.")
    scaling = Scaling(row.get("ScalingType", Scaling.AUTO))
    if scaling is Scaling.AUTO:
        wide = low > 0 and high / low >= _AUTO_LOGARITHMIC
        scaling = Scaling.LOGARITHMIC if wide else Scaling.LINEAR
    _check_scale(row["Name"], scaling, low, high, integer=integer)
    return NumericRange(name=row["Name"], low=low, high=high, integer=integer, scaling=scaling)


def _number(name: str, text: str, *, integer: bool) -> float:
    try:
        value = float(int(text)) if integer else float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        kind = "an integer" if integer else "a number"
        raise validation_error(f"Hyperparameter {name}: the bound {text!r} is not {kind}.")
    return value


def _check_scale(name: str, scaling: Scaling, low: float, high: float, *, integer: bool) -> None:
    """Refuse what the API reference says a scale does not work for."""
    if scaling is Scaling.LOGARITHMIC and low <= 0:
        raise validation_error(
            f"Hyperparameter {name}: logarithmic scaling works only for ranges that have only values greater than 0, "
            f"not [{low}, {high}]."
        )
    if scaling is Scaling.REVERSE_LOGARITHMIC and (integer or low < 0 or high >= 1):
        raise validation_error(
            f"Hyperparameter {name}: reverse logarithmic scaling works only for continuous ranges that are entirely "
            f"within the range 0<=x<1.0, not [{low}, {high}]."
        )


def _categorical(row: Mapping[str, Any]) -> CategoricalRange:
    values = tuple(row["Values"])
    if len(set(values)) < len(values):
        raise validation_error(f"Hyperparameter {row['Name']}: the values {list(values)} are not distinct.")
    return CategoricalRange(name=row["Name"], values=values)
