"""Ranges, their scales, and the way to values."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.local.errors import ServiceError
from airflow_dlaws.local.tuning.ranges import read_space
from airflow_dlaws.local.tuning.space import NumericRange, Scaling

UNIT = st.floats(0, 1)


def integers(low: str, high: str, scaling: str = "Linear") -> dict[str, list[dict[str, str]]]:
    """Return ParameterRanges of one integer hyperparameter."""
    return {"IntegerParameterRanges": [{"Name": "n", "MinValue": low, "MaxValue": high, "ScalingType": scaling}]}


def numeric(low: float, high: float, scaling: Scaling, *, integer: bool = False) -> NumericRange:
    """Return a range."""
    return NumericRange(name="n", low=low, high=high, integer=integer, scaling=scaling)


@given(
    low=st.floats(1e-6, 1e3), factor=st.floats(1, 1e6), unit=UNIT, scaling=st.sampled_from(["Linear", "Logarithmic"])
)
def test_values_lie_in_the_range(low: float, factor: float, unit: float, scaling: str) -> None:
    value = float(numeric(low, low * factor, Scaling(scaling)).spell(unit))
    assert low <= value <= low * factor


@given(
    low=st.integers(1, 1000), width=st.integers(0, 1000), unit=UNIT, scaling=st.sampled_from(["Linear", "Logarithmic"])
)
def test_integers_lie_in_the_range(low: int, width: int, unit: float, scaling: str) -> None:
    assert low <= int(numeric(low, low + width, Scaling(scaling), integer=True).spell(unit)) <= low + width


def test_the_middle_of_each_scale() -> None:
    assert float(numeric(0, 10, Scaling.LINEAR).spell(0.5)) == 5
    assert float(numeric(1e-4, 1e-2, Scaling.LOGARITHMIC).spell(0.5)) == pytest.approx(1e-3)
    assert float(numeric(0.9, 0.999, Scaling.REVERSE_LOGARITHMIC).spell(0.5)) == pytest.approx(0.99)


def test_both_ends_of_an_integer_range_get_their_share() -> None:
    dice = numeric(1, 6, Scaling.LINEAR, integer=True)
    drawn = [dice.spell((step + 0.5) / 600) for step in range(600)]
    assert {face: drawn.count(face) for face in set(drawn)} == dict.fromkeys("123456", 100)


@pytest.mark.parametrize(
    ("low", "high", "scaling"), [("0.001", "0.1", "Logarithmic"), ("0.001", "0.09", "Linear"), ("0", "9", "Linear")]
)
def test_auto_takes_the_logarithm_of_wide_positive_ranges(low: str, high: str, scaling: str) -> None:
    row = {"Name": "n", "MinValue": low, "MaxValue": high}
    (part,) = read_space({"ContinuousParameterRanges": [row]}).ranges
    assert isinstance(part, NumericRange)
    assert part.scaling == scaling


def test_combinations_are_counted() -> None:
    assert read_space(integers("3", "7")).combinations == 5
    assert read_space(
        {"ContinuousParameterRanges": [{"Name": "n", "MinValue": "0", "MaxValue": "1"}]}
    ).combinations == (math.inf)


@pytest.mark.parametrize("bounds", [("1.5", "2"), ("1", "two"), ("5", "4"), ("0", "9")])
def test_what_is_no_range_is_refused(bounds: tuple[str, str]) -> None:
    with pytest.raises(ServiceError):
        read_space(integers(*bounds, scaling="Logarithmic"))
