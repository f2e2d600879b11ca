"""The search space is read as users write it, and what cannot work is refused with the way out."""

from __future__ import annotations

import math
from typing import Any

import pytest

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.sweeps.space import Dimension, DimensionKind, check_parameters, parse_space, space_size

SPACE = parse_space(
    {
        "learning_rate": {"low": 1e-4, "high": 0.3, "log": True},
        "layers": {"low": 1, "high": 3, "integer": True},
        "optimizer": ["sgd", "adam"],
    }
)


def test_ranges_integers_and_choices_are_told_apart() -> None:
    assert [dimension.kind for dimension in SPACE] == [
        DimensionKind.NUMBER,
        DimensionKind.INTEGER,
        DimensionKind.CHOICE,
    ]
    assert SPACE[0].log
    assert SPACE[2].choices == ("sgd", "adam")


def test_a_dimension_may_be_given_as_such() -> None:
    dimension = Dimension(name="dropout", kind=DimensionKind.NUMBER, low=0, high=0.5)
    assert parse_space({"dropout": dimension}) == (dimension,)


def test_a_space_of_choices_and_integers_is_finite() -> None:
    assert space_size(SPACE) == math.inf
    assert space_size(SPACE[1:]) == 6


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({}, "at least one hyperparameter"),
        (["learning_rate"], "at least one hyperparameter"),
        ({"a": 3}, "or a list of values"),
        ({"a": {"low": 1}}, "or a list of values"),
        ({"a": {"low": 1, "high": 2, "step": 1}}, "or a list of values"),
        ({"a": {"low": 2, "high": 1}}, "the lower one first"),
        ({"a": {"low": 0, "high": math.inf}}, "two finite numbers"),
        ({"a": {"low": 0, "high": 1, "log": True}}, "starts above 0"),
        ({"a": {"low": 0.5, "high": 2, "integer": True}}, "ends of an integer range"),
        ({"a": []}, "at least one choice"),
        ({"a": [[1, 2]]}, "at least one choice"),
        ({"a": ["x", "x"]}, "names a choice twice"),
        ({"": [1]}, "no hyperparameter's name"),
    ],
)
def test_what_is_no_space_is_refused(space: Any, words: str) -> None:
    with pytest.raises(SpecificationError, match=words):
        parse_space(space)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"learning_rate": 0.1, "layers": 2}, "must name just the space's"),
        ({"learning_rate": 0.4, "layers": 2, "optimizer": "sgd"}, "learning_rate=0.4 is not in"),
        ({"learning_rate": 0.1, "layers": 2.5, "optimizer": "sgd"}, "layers=2.5 is not in"),
        ({"learning_rate": 0.1, "layers": True, "optimizer": "sgd"}, "layers=True is not in"),
        ({"learning_rate": 0.1, "layers": 2, "optimizer": "rprop"}, "optimizer='rprop' is not in"),
    ],
)
def test_parameters_outside_of_the_space_are_refused(parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecificationError, match=words):
        check_parameters("initial_trials", parameters, SPACE)
    check_parameters("initial_trials", {"learning_rate": 0.1, "layers": 2, "optimizer": "sgd"}, SPACE)
