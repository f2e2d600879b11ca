"""Counting whole columns gives what counting value by value gives."""

import dataclasses
import math
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_dlaws.data.coded import Coded
from airflow_dlaws.drift.arrays import read_numbers
from airflow_dlaws.drift.build import build_profile, categorical_profile, numeric_profile, reconstruction_error
from airflow_dlaws.drift.columns import count_columns, count_numbers
from airflow_dlaws.drift.counts import count_values, no_traffic
from airflow_dlaws.drift.profile import ReferenceProfile
from airflow_dlaws.drift.settings import DriftSettings
from airflow_dlaws.drift.verdict import assess
from airflow_dlaws.errors import SpecificationError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NUMBERS = st.one_of(
    st.floats(width=32), st.floats(-3, 3), st.integers(-3, 3), st.integers(-(2**70), 2**70), st.booleans(), st.none()
)
TEXTS = st.sampled_from(["1", " 2.5 ", "-0", "1_0", "nan", "inf", "", "null", "x", "1e400", "0x1", "\u0661", "12e-1"])
VALUES = st.lists(st.one_of(NUMBERS, TEXTS), max_size=40)
CATEGORIES = st.lists(
    st.one_of(st.sampled_from(["a", " a ", "b", "", "NaN", "1", "5.0"]), st.sampled_from([1, 1.0, True, 5.0, None]),
              st.floats(), st.lists(st.integers(), max_size=1)), max_size=40)  # fmt: skip


def of(features, **more) -> ReferenceProfile:
    table = build_profile({"x": [0.0]}, created=NOW)
    order = tuple(each.name for each in features)
    return dataclasses.replace(table, rows=features[0].rows, feature_order=order, features=features, **more)


@given(st.lists(st.floats(-3, 3, width=32), max_size=30), st.integers(1, 12), VALUES)
@settings(max_examples=150, deadline=None)
def test_a_column_of_any_values_counts_as_its_values_do_one_by_one(reference, cells, values):
    profile = numeric_profile("x", reference, cells=cells)
    expected, not_numbers = count_values(profile, values)

    counts = count_columns(of((numeric_profile("x", [*reference, None], cells=cells),)), {"x": values})
    numbers, unreadable = read_numbers(values)

    assert count_numbers(profile, numbers) == expected
    assert unreadable == not_numbers == counts.faults.get("not_a_number", 0)
    assert counts.rows == len(values)


@pytest.mark.parametrize("kind", ["float64", "float32", "float16", "int64", "int8", "uint8", "bool"])
def test_arrays_of_every_numeric_type_count_as_their_values_do(kind):
    random = np.random.RandomState(0)
    values = (random.standard_normal(500) * 3).astype(kind)
    if values.dtype.kind == "f":
        values[:5] = [np.nan, np.inf, -np.inf, 0, -0.0]
    profile = numeric_profile("x", random.standard_normal(200), cells=16)

    assert count_numbers(profile, values) == count_values(profile, values.tolist())[0]


def test_a_number_on_an_edge_and_beyond_the_extremes_falls_where_the_single_value_falls():
    profile = numeric_profile("x", [0.0, 1.0, 2.0, 3.0], cells=4)
    values = np.array([*profile.edges, 0.0, 3.0, 3.0 * (1 + 5e-7), 3.1, -1e-9, -0.1])

    assert count_numbers(profile, values) == count_values(profile, values.tolist())[0]


def test_a_column_that_the_reference_saw_empty_counts_every_number_as_beyond_it():
    profile = numeric_profile("x", [None, None])

    assert count_numbers(profile, np.array([1.0, np.nan, np.inf])).below == 1


@given(CATEGORIES)
@settings(max_examples=150, deadline=None)
def test_a_column_of_categories_counts_as_its_values_do_one_by_one(values):
    profile = categorical_profile("c", ["a", "b", "1", "5", "True"])

    counts = count_columns(of((profile,)), {"c": values})

    assert counts.features[0] == count_values(profile, values)[0]


@given(st.lists(st.sampled_from(["a", " a", "b", "", "7", "x_1", "no number"]), min_size=1), st.data())
@settings(max_examples=100, deadline=None)
def test_codes_count_as_the_texts_they_stand_for(words, data):
    codes = np.array(data.draw(st.lists(st.integers(-1, len(words) - 1), max_size=30)), dtype=np.int32)
    coded = Coded(codes=codes, values=words)
    features = (categorical_profile("c", ["a", "b"]), numeric_profile("x", [1.0, 7.0]))

    by_code = count_columns(of(features), {"c": coded, "x": coded})

    assert by_code == count_columns(of(features), {"c": coded.texts(), "x": coded.texts()})


def test_pieces_of_a_table_add_up_to_the_whole_and_columns_may_come_one_by_one():
    random = np.random.RandomState(1)
    table = {"x": random.standard_normal(300), "y": random.standard_normal(300), "c": random.choice(["a", "b"], 300)}
    profile = build_profile(table, created=NOW, categorical={"c"}, components=1)
    whole = count_columns(profile, table)

    pieces = no_traffic(profile)
    for part in (slice(0, 7), slice(7, 300)):
        pieces += count_columns(profile, {name: values[part] for name, values in table.items()})
    both = count_columns(profile, {"x": table["x"], "y": table["y"]})
    alone = count_columns(profile, {"c": table["c"]})

    assert pieces == whole
    assert (both + alone).features == whole.features
    assert whole.by_name["pca"].rows == 300


def test_the_reconstruction_error_is_that_of_the_profile_and_a_lost_value_is_the_mean():
    random = np.random.RandomState(2)
    x = random.standard_normal(5000)
    table = {"x": x, "y": x + 0.1 * random.standard_normal(5000), "z": random.standard_normal(5000)}
    profile = build_profile(table, created=NOW, components=2)
    pca = profile.representation[0]
    current = {**table, "x": [math.inf if place % 10 == 0 else value for place, value in enumerate(x)]}
    mean, scale, axes = np.array(pca.mean), np.array(pca.scale), pca.components.array()
    rows = np.column_stack([np.where(np.arange(5000) % 10 == 0, mean[0], x), table["y"], table["z"]])

    counted = count_columns(profile, current).by_name["pca"]

    errors = reconstruction_error(rows, mean, scale, axes)
    assert counted == count_values(pca.error, errors.tolist())[0]


def test_columns_of_different_lengths_are_refused():
    profile = build_profile({"x": [1.0], "y": [2.0]}, created=NOW)

    with pytest.raises(SpecificationError, match="same number of rows"):
        count_columns(profile, {"x": [1.0], "y": [1.0, 2.0]})


def test_columns_of_small_unit_that_no_longer_belong_together_are_found_beside_large_ones():
    generator, rows = np.random.default_rng(4), 2000
    metres, weight = generator.normal(size=(2, 2 * rows))
    kilometres = metres / 1000 + generator.normal(0, 1e-4, 2 * rows)
    table = {"metres": metres / 1000, "kilometres": kilometres, "grams": 1000 * weight}
    profile = build_profile({name: column[:rows] for name, column in table.items()}, created=NOW, components=2)
    apart = {**table, "kilometres": generator.permutation(kilometres)}

    for changed, drifted in ((table, ()), (apart, ("pca",))):
        counts = count_columns(profile, {name: column[rows:] for name, column in changed.items()})
        assert assess(profile, counts, DriftSettings()).drifted == drifted
