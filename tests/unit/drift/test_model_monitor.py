import itertools
import json
import random
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_dlaws.drift.build import build_profile
from airflow_dlaws.drift.model_monitor import read_baseline
from airflow_dlaws.drift.model_monitor_export import constraints_document, statistics_document
from airflow_dlaws.errors import SpecificationError

CREATED = datetime(2013, 4, 1, tzinfo=UTC)


def kll(values, buckets=10, k=256, seed=0):
    """Describe values as the prebuilt container does: buckets, and a sketch of compactors (Karnin et al., 2016)."""
    low, high = min(values), max(values)
    bounds = [low + (high - low) * place / buckets for place in range(buckets + 1)]
    inside = [sum(left <= value < right for value in values) for left, right in itertools.pairwise(bounds)]
    inside[-1] += values.count(high)
    levels, coin = [list(values)], random.Random(seed)
    while len(levels[-1]) > k:
        ordered = sorted(levels[-1])
        even = len(ordered) - len(ordered) % 2
        levels[-1] = ordered[even:]
        levels.append(ordered[coin.randrange(2) : even : 2])
    return {
        "buckets": [
            {"lower_bound": left, "upper_bound": right, "count": float(count)}
            for left, right, count in zip(bounds, bounds[1:], inside, strict=False)
        ],
        "sketch": {"parameters": {"c": 0.64, "k": float(k)}, "data": levels},
    }


def numeric(name, values, missing=0, **options):
    return {
        "name": name,
        "inferred_type": "Fractional",
        "numerical_statistics": {
            "common": {"num_present": len(values), "num_missing": missing},
            "mean": sum(values) / len(values),
            "sum": sum(values),
            "std_dev": 1.0,
            "min": min(values),
            "max": max(values),
            "distribution": {"kll": kll(values, **options)},
        },
    }


def text(name, counts, missing=0, present=None):
    return {
        "name": name,
        "inferred_type": "String",
        "string_statistics": {
            "common": {"num_present": sum(counts.values()) if present is None else present, "num_missing": missing},
            "distinct_count": float(len(counts)),
            "distribution": {"categorical": {"buckets": [{"value": v, "count": c} for v, c in counts.items()]}},
        },
    }


def statistics(*features, rows):
    return {"version": 0.0, "dataset": {"item_count": rows}, "features": list(features)}


def skewed(count):
    return [random.Random(number).lognormvariate(0, 2) for number in range(count)]


def read(document, constraints=None, **options):
    return read_baseline(
        json.dumps(document), constraints and json.dumps(constraints), **{"created": CREATED, **options}
    )


def test_a_long_tail_is_cut_by_the_sketch_where_equal_buckets_say_nothing():
    values = skewed(6000)
    profile = read(statistics(numeric("x", values), rows=6000)).profile
    (feature,) = profile.features
    assert len(feature.edges) > 80
    assert sum(feature.counts) == profile.rows == 6000
    assert (feature.low, feature.high) == (min(values), max(values))
    true = [sum(value < edge for value in values) / 6000 for edge in feature.edges]
    told = [sum(feature.counts[: place + 1]) / 6000 for place in range(len(feature.edges))]
    assert max(abs(t - s) for t, s in zip(true, told, strict=True)) < 0.02, "a sketch of 256 values is that precise"
    assert max(feature.counts) < 0.05 * 6000
    assert max(bucket["count"] for bucket in kll(values)["buckets"]) > 0.9 * 6000


def test_without_a_sketch_the_buckets_are_the_cells():
    values = [float(number % 7) for number in range(70)]
    item = numeric("x", values)
    del item["numerical_statistics"]["distribution"]["kll"]["sketch"]
    (feature,) = read(statistics(item, rows=70)).profile.features
    assert len(feature.counts) == 10
    assert sum(feature.counts) == 70
    assert feature.counts[0] == 10


def test_a_sketch_that_stands_for_other_rows_is_not_believed():
    item = numeric("x", skewed(100))
    item["numerical_statistics"]["distribution"]["kll"]["sketch"]["data"] = [[1.0, 2.0]]
    (feature,) = read(statistics(item, rows=100)).profile.features
    assert len(feature.counts) == 10


def test_a_frequent_value_of_a_sketch_has_a_cell_of_its_own():
    values = [0.0] * 500 + [float(number) for number in range(1, 501)]
    (feature,) = read(statistics(numeric("x", values, k=2048), rows=1000)).profile.features
    assert feature.edges[0] == 0.5
    assert feature.counts[0] == 500


def test_bucket_counts_that_are_estimates_are_rounded_to_the_rows():
    item = numeric("x", [float(number) for number in range(100)])
    del item["numerical_statistics"]["distribution"]["kll"]["sketch"]
    for bucket in item["numerical_statistics"]["distribution"]["kll"]["buckets"]:
        bucket["count"] += 0.07
    (feature,) = read(statistics(item, rows=100)).profile.features
    assert feature.counts == (10,) * 10


def test_a_constant_and_an_empty_column_are_read():
    empty = {
        "name": "e",
        "inferred_type": "Fractional",
        "numerical_statistics": {"common": {"num_present": 0, "num_missing": 5}},
    }
    profile = read(statistics(numeric("c", [3.0] * 5), empty, rows=5)).profile
    assert profile.features[0].counts == (5,)
    assert (profile.features[1].missing, profile.features[1].low) == (5, None)


def test_texts_are_categories_and_words_for_nothing_are_missing():
    document = statistics(text("carrier", {"UA": 3, " AA": 2, "NA": 1}, missing=4), rows=10)
    constraints = {
        "version": 0.0,
        "features": [
            {"name": "carrier", "inferred_type": "String", "string_constraints": {"domains": ["UA", "AA", "B6"]}}
        ],
    }
    (feature,) = read(document, constraints).profile.features
    assert feature.counts == {"UA": 3, "AA": 2, "B6": 0}
    assert feature.missing == 5


def test_what_cannot_be_watched_keeps_its_place_in_a_request_and_the_reason():
    many = text("id", {"a": 1, "b": 1}, present=10)
    baseline = read(statistics(many, {"name": "what", "inferred_type": "Unknown"}, numeric("x", [1.0] * 10), rows=10))
    assert baseline.profile.feature_order == ("id", "what", "x")
    assert [feature.name for feature in baseline.profile.features] == ["x"]
    assert baseline.unwatched == {
        "id": "of 10 values, only 2 are in buckets: too many different ones",
        "what": "Model Monitor could not tell its type",
    }


def test_the_score_is_no_column_of_a_request():
    document = statistics(numeric("late", [0.1, 0.9]), numeric("delay", [1.0, 2.0]), rows=2)
    profile = read(document, prediction="late").profile
    assert profile.feature_order == ("delay",)
    assert profile.prediction.name == "prediction"
    assert profile.prediction.rows == 2


def ours(numbers, words, scores=(0.25, 0.5, 0.875)):
    columns = {"delay": numbers, "carrier": words}
    return build_profile(columns, categorical=["carrier"], answers=list(scores), created=CREATED)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.none() | st.integers(-50, 50).map(float) | st.floats(-1e6, 1e6), min_size=1, max_size=80),
    st.randoms(use_true_random=False),
)
def test_a_profile_comes_back_from_statistics_json_as_it_was(numbers, chance):
    profile = ours(numbers, [chance.choice(["UA", "AA", ""]) for _ in numbers])
    back = read(statistics_document(profile), constraints_document(profile), prediction="prediction")
    assert back.unwatched == {}
    assert back.profile == profile


def test_our_sketch_has_our_counts_at_every_edge():
    profile = ours(skewed(3000), ["UA"] * 3000)
    document = statistics_document(profile)
    (feature,) = [item for item in document["features"] if item["name"] == "delay"]
    data = feature["numerical_statistics"]["distribution"]["kll"]["sketch"]["data"]
    for place, edge in enumerate(profile.features[0].edges, start=1):
        below = sum(2**level * sum(value < edge for value in items) for level, items in enumerate(data))
        assert below == sum(profile.features[0].counts[:place])


def test_moments_are_estimates_from_the_cells_and_integers_are_told():
    profile = ours([float(number % 10) for number in range(1000)], ["UA"] * 1000)
    prediction, delay, carrier = statistics_document(profile)["features"]
    found = delay["numerical_statistics"]
    assert (found["mean"], found["min"], found["max"]) == (pytest.approx(4.5, abs=0.05), 0, 9)
    assert found["std_dev"] == pytest.approx(2.872, abs=0.05)
    assert found["sum"] == pytest.approx(4500, rel=0.01)
    assert [prediction["inferred_type"], delay["inferred_type"]] == ["Fractional", "Integral"]
    assert carrier["string_statistics"]["distinct_count"] == 1


def test_constraints_say_what_the_reference_suggests():
    profile = ours([1.1, 2.0, None, 4.0], ["UA", "AA", "UA", ""])
    score, delay, carrier = constraints_document(profile)["features"]
    assert delay == {
        "name": "delay",
        "inferred_type": "Fractional",
        "completeness": 0.75,
        "num_constraints": {"is_non_negative": True},
    }
    assert carrier["string_constraints"] == {"domains": ["AA", "UA"]}
    assert score["name"] == "prediction"


def changed(change):
    document = statistics(numeric("x", [float(number) for number in range(20)]), text("carrier", {"UA": 20}), rows=20)
    change(document)
    return document


def kll_of(document):
    return document["features"][0]["numerical_statistics"]["distribution"]["kll"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(version=1.0), "statistics.json: has version 1.0; this reads version 0"),
        (lambda d: d.pop("version"), "has version None"),
        (lambda d: d.pop("dataset"), "dataset.dataset: must be an object, not None"),
        (lambda d: d["dataset"].update(item_count=2.5), "dataset.item_count: must be a whole number of at least 0"),
        (lambda d: d["dataset"].update(item_count=21), "which is not the document's number of rows"),
        (lambda d: d.update(features=None), "features: must be a list, not None"),
        (lambda d: d["features"][1].update(name="x"), "names must be unique"),
        (lambda d: d["features"][0].pop("numerical_statistics"), "has neither numerical_statistics nor"),
        (lambda d: d["features"][0]["numerical_statistics"].update(min=99.0), "min .99.0. must not be above max"),
        (lambda d: d["features"][0]["numerical_statistics"].update(max=float("inf")), "x.max: must be a finite number"),
        (lambda d: kll_of(d)["buckets"].clear(), "x.kll.buckets: there must be at least one"),
        (lambda d: kll_of(d)["buckets"].reverse(), "must increase, each beginning where the one before ends"),
        (lambda d: kll_of(d)["buckets"][0].update(count=-1.0), "must not be negative"),
        (lambda d: kll_of(d)["buckets"][0].update(count=5.0), "must add up to num_present, 20"),
        (lambda d: kll_of(d)["sketch"].update(data=[["a"]]), "x.kll.sketch: must be a finite number, not 'a'"),
        (lambda d: d["features"][1]["string_statistics"]["common"].update(num_present=3), "more than num_present, 3"),
    ],
)  # fmt: skip
def test_a_broken_baseline_is_refused_with_the_place_and_the_rule(change, says):
    with pytest.raises(SpecificationError, match=says):
        read(changed(change))


def test_constraints_of_other_columns_and_an_unknown_score_are_refused():
    document = changed(lambda d: None)
    with pytest.raises(SpecificationError, match="y: stands in constraints"):
        read(document, {"version": 0, "features": [{"name": "y"}]})
    with pytest.raises(SpecificationError, match="'late' is no feature of"):
        read(document, prediction="late")
    with pytest.raises(SpecificationError, match="carrier: is the score, and must be a number"):
        read(document, prediction="carrier")
    with pytest.raises(SpecificationError, match="is no JSON document"):
        read_baseline("{", created=CREATED)
