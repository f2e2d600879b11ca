import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.drift.build import build_profile, numeric_profile
from airflow_dlaws.drift.cells import quantile_edges
from airflow_dlaws.drift.profile import parse_profile
from airflow_dlaws.errors import SpecificationError

CREATED = datetime(2013, 4, 1, tzinfo=UTC)
ROWS = [(float(index), "AA" if index % 3 else "UA") for index in range(50)] + [(None, "")]


def document():
    profile = build_profile(
        {"delay": [row[0] for row in ROWS], "carrier": [row[1] for row in ROWS]},
        categorical=["carrier"],
        answers=[0.1, 0.5, 0.9],
        classes=["in time", "late"],
        labels=["in time", "late", "late"],
        components=1,
        created=CREATED,
    )
    return profile.document()


def test_a_profile_survives_json():
    profile = parse_profile(json.dumps(document(), allow_nan=False))
    assert profile.document() == document()
    assert profile.features[0].missing == profile.features[1].missing == 1
    assert profile.features[1].counts == {"AA": 33, "UA": 17}
    assert profile.prediction.rows == 3
    assert [output.name for output in profile.outputs] == ["prediction", "confidence", "predicted_label"]
    assert sum(profile.calibration.correct) == 2
    assert profile.representation[0].error.rows == 26


def test_a_profile_of_the_first_format_is_read_as_one_of_this_format():
    now = document()
    before = {key: now[key] for key in ("created", "rows", "feature_order", "features")}
    old = {"format": "dlaws-drift-reference/1", **before, "prediction": now["outputs"][0]}
    profile = parse_profile(json.dumps(old))
    assert profile.document() == {
        **now, "outputs": [now["outputs"][0]], "classes": None, "calibration": None, "representation": [],
    }  # fmt: skip
    assert parse_profile(json.dumps({**old, "prediction": None})).outputs == ()
    with pytest.raises(SpecificationError, match="named 'prediction'"):
        parse_profile(json.dumps({**old, "prediction": {**old["prediction"], "name": "score"}}))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_every_value_falls_into_exactly_one_bin_and_no_edge_lies_on_a_value_when_there_is_room(values):
    profile = numeric_profile("x", values)
    assert sum(profile.counts) == len(values)
    assert (profile.low, profile.high) == (min(values), max(values))
    assert len(profile.edges) <= 128


def test_numpy_digitize_gives_the_documented_bins():
    import numpy as np

    values = np.random.default_rng(1).normal(size=500).round(1)
    profile = numeric_profile("x", values.tolist())
    counts = np.bincount(np.digitize(values, profile.edges), minlength=len(profile.edges) + 1)
    assert counts.tolist() == list(profile.counts)


def test_a_column_that_is_nearly_always_zero_keeps_a_bin_for_the_rest():
    assert quantile_edges([0.0] * 95 + [0.2] * 5) == (0.1,)


def test_rounding_through_float32_changes_no_bin():
    import numpy as np

    values = [round(index * 0.01, 2) for index in range(300)]
    rounded = np.float32(values).astype(float).tolist()
    assert numeric_profile("x", values).counts == numeric_profile("x", rounded).counts


def broken(change):
    changed = document()
    change(changed)
    return json.dumps(changed)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(format="other/1"), "'other/1'"),
        (lambda d: d.pop("rows"), "lacks \\['rows'\\]"),
        (lambda d: d.update(extra=1), "unknown keys \\['extra'\\]"),
        (lambda d: d.update(rows=7), "not the document's number of rows"),
        (lambda d: d.update(created="2013-04-01"), "UTC offset"),
        (lambda d: d.update(created=5), "malformed"),
        (lambda d: d["features"][0].update(edges=[3, 3]), "one entry more"),
        (lambda d: d["features"][0].update(counts=[1.5]), "1.5 must be an integer"),
        (lambda d: d["features"][0].update(kind="sketch"), "'sketch'; allowed are"),
        (lambda d: d["features"][0].update(low=None), "low and high"),
        (lambda d: d["features"][1]["counts"].update({" x": 0}), "surrounding blanks"),
        (lambda d: d["features"][1].update(missing=-1), "must not be negative"),
        (lambda d: d.update(feature_order=["delay"]), "stand not in feature_order"),
        (lambda d: d["outputs"][0].update(name="delay"), "names must be unique"),
        (lambda d: d["outputs"].pop(1), "no numeric output 'confidence'"),
        (lambda d: d["calibration"].update(correct=[1]), "correct must have"),
        (lambda d: d["calibration"]["correct"].__setitem__(0, 9), "must not be above the counts"),
        (lambda d: d["calibration"].update(output="predicted_label"), "no numeric output 'predicted_label'"),
        (lambda d: d.update(classes=["late"]), "at least two different texts"),
        (lambda d: d.update(classes="ab"), "at least two different texts"),
        (lambda d: d["representation"][0].update(kind="autoencoder"), "only 'pca'"),
        (lambda d: d["representation"][0].update(columns=["wind"]), "stand not in feature_order"),
        (lambda d: d["representation"][0].update(scale=[0.0]), "scale must be above 0"),
        (lambda d: d["representation"][0].update(mean=[0.0, 1.0]), "differ"),
        (lambda d: d["representation"][0]["error"].update(name="rest"), "must have the representation's name"),
        (lambda d: d["representation"][0]["components"].update(float32="%"), "no base64"),
        (lambda d: d["representation"][0]["components"].update(shape=[2, 1]), "needs 8 bytes"),
        (lambda d: d.update(features={"a": 1}), "need objects with a name"),
    ],
)
def test_a_broken_document_is_refused_with_the_place_and_the_rule(change, says):
    with pytest.raises(SpecificationError, match=says):
        parse_profile(broken(change))


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"null", b"\xff"])
def test_what_is_no_document_is_refused(text):
    with pytest.raises(SpecificationError):
        parse_profile(text)


def test_a_text_in_a_numeric_column_names_the_way_out():
    with pytest.raises(SpecificationError, match="name the column as categorical"):
        numeric_profile("carrier", ["AA"])
