"""The drift reference that a training container writes, against the drift package that reads it and builds its own."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_dlaws.drift import values
from airflow_dlaws.drift.build import build_profile, categorical_profile, numeric_profile, reconstruction_error
from airflow_dlaws.drift.cells import quantile_edges
from airflow_dlaws.drift.embedding import build_embedding, count_images, discrepancy, frequencies
from airflow_dlaws.drift.profile import ReferenceProfile, parse_profile
from airflow_dlaws.drift.representation import parse_embedding
from sm_runtime import drift_embedding, drift_profile

CREATED = datetime(2013, 4, 1, tzinfo=UTC)
CARRIERS = np.array(["AA", " UA", "B6", "", "NaN"])


def table(rows: int = 800, seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    delay = random.gamma(2, 10, rows).round(1)
    delay[::50] = np.nan
    distance = random.normal(1000, 300, rows)
    return {
        "delay": delay,
        "distance": distance,
        "minutes": distance / 7 + random.normal(0, 5, rows),
        "precip": np.where(random.random(rows) < 0.95, 0, random.random(rows)),
        "carrier": random.choice(CARRIERS, rows),
    }


def answers(rows: int, classes: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    chances = random.dirichlet(np.full(classes, 0.3), rows).round(6)
    labels = np.array([random.choice(classes, p=row / row.sum()) for row in chances])
    return (chances, labels) if classes > 2 else (chances[:, 1], labels)


def written(columns: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Write a reference as a training script does."""
    numbers = {name: column for name, column in columns.items() if name != "carrier"}
    return drift_profile.document(
        rows=len(columns["delay"]),
        feature_order=list(columns),
        features=[
            drift_profile.numeric(name, column) if name in numbers else drift_profile.categorical(name, column.tolist())
            for name, column in columns.items()
        ],
        representation=[drift_profile.pca("pca", list(numbers), np.stack([*numbers.values()], axis=1))],
        **more,
    )


def read(document: dict[str, Any]) -> ReferenceProfile:
    return parse_profile(json.dumps(document, allow_nan=False))


@pytest.mark.parametrize(("classes", "names"), [(2, ["0", "1"]), (4, ["a", "b", "c", "d"])])
def test_a_written_reference_is_the_one_that_the_drift_package_builds(classes: int, names: list[str]) -> None:
    columns, (chances, labels) = table(), answers(300, classes)
    ours = read(written(columns, **drift_profile.classifier(chances, names, labels))).document()
    theirs = build_profile(
        columns,
        created=CREATED,
        categorical={"carrier"},
        answers=chances,
        classes=names,
        labels=[names[label] for label in labels],
    ).document()
    for document in (ours, theirs):
        document["representation"] = document["created"] = None
    assert ours == theirs


def test_a_regression_has_its_scores_and_no_classes() -> None:
    scores = np.random.default_rng(1).normal(size=200).round(6)
    ours = read(written(table(), **drift_profile.regressor(scores)))
    theirs = build_profile(table(), created=CREATED, categorical={"carrier"}, answers=scores)
    assert (ours.classes, ours.outputs, ours.calibration) == (None, theirs.outputs, None)
    assert ours.prediction is not None
    assert ours.prediction.rows == 200


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.0, 1.0, float("nan"), float("inf")]) | st.floats(-1e9, 1e9), max_size=80),
    st.sampled_from([2, 10, 16, 128]),
)
def test_numbers_fall_into_the_same_cells(numbers: list[float], cells: int) -> None:
    ours = drift_profile.numeric("x", np.array(numbers, dtype=float), cells)
    assert ours == numeric_profile("x", numbers, cells=cells).document()
    assert ours["edges"] == list(quantile_edges([number for number in numbers if np.isfinite(number)], cells))


@given(st.lists(st.sampled_from(["a", " a", "A", "", "nan", "NULL", "-inf", "5"]), min_size=1))
def test_categories_are_counted_alike(texts: list[str]) -> None:
    assert drift_profile.categorical("y", texts) == categorical_profile("y", texts).document()


def test_the_words_for_nothing_are_the_same() -> None:
    assert drift_profile.MISSING_WORDS == values.MISSING_WORDS


def test_calibration_counts_what_the_model_got_right_by_its_confidence() -> None:
    chances, labels = answers(5000, 3)
    profile = read(written(table(), **drift_profile.classifier(chances, ["x", "y", "z"], labels)))
    assert profile.calibration is not None
    right = chances.argmax(axis=1) == labels
    assert sum(profile.calibration.correct) == right.sum()
    shares = np.array(profile.calibration.correct) / np.array(profile.calibrated.counts)
    middle = np.array([*profile.calibrated.edges])
    assert np.abs(shares[:-1] - middle).mean() < 0.1, "labels were drawn with these chances, so confidence is honest"


def test_the_error_that_is_profiled_is_that_of_rows_the_components_have_not_seen() -> None:
    random = np.random.default_rng(2)
    hidden = random.normal(size=(3000, 4)) @ random.normal(size=(4, 20)) + 0.1 * random.normal(size=(3000, 20))
    rows, fresh = hidden[:400], hidden[400:]
    profile = drift_profile.pca("pca", [f"c{place}" for place in range(20)], rows)
    assert sum(profile["error"]["counts"]) == 200
    document = written(table())
    document |= {"feature_order": [*document["feature_order"], *profile["columns"]], "representation": [profile]}
    (pca,) = read(document).representation
    error = reconstruction_error(fresh, pca.mean, pca.scale, pca.components.array())
    below = np.cumsum(pca.error.counts)[:-1] / 200
    distance = max(abs(np.searchsorted(np.sort(error), pca.error.edges) / len(error) - below))
    assert distance < 1.63 * np.sqrt(1 / 200 + 1 / len(error)), "at 1 %, by Kolmogorov and Smirnov"
    moved = reconstruction_error(fresh + random.normal(size=fresh.shape), pca.mean, pca.scale, pca.components.array())
    assert (moved > pca.error.high).mean() > 0.9


def test_components_are_orthonormal_keep_most_of_the_variance_and_leave_some() -> None:
    random = np.random.default_rng(3)
    rows = random.normal(size=(500, 3)) @ random.normal(size=(3, 30)) + 0.01 * random.normal(size=(500, 30))
    pca = read(document_of(rows)).representation[0]
    axes = pca.components.array()
    assert 1 <= len(axes) <= 3
    np.testing.assert_allclose(axes @ axes.T, np.eye(len(axes)), atol=1e-6)
    wide = drift_profile.pca("pca", ["a", "b"], random.normal(size=(50, 2)))
    assert wide["components"]["shape"] == [1, 2], "as many components as columns would leave no error to watch"


def document_of(rows: np.ndarray) -> dict[str, Any]:
    names = [f"c{place}" for place in range(rows.shape[1])]
    features = [drift_profile.numeric(*pair) for pair in zip(names, rows.T, strict=True)]
    representation = [drift_profile.pca("pca", names, rows)]
    return drift_profile.document(rows=len(rows), feature_order=names, features=features, representation=representation)


def test_missing_values_and_columns_that_never_move_are_no_obstacle() -> None:
    rows = np.random.default_rng(4).normal(size=(100, 4))
    rows[:, 1] = 7.0
    rows[::3, 2] = np.nan
    rows[:, 3] = np.nan
    pca = read(document_of(rows)).representation[0]
    assert (pca.mean[1], pca.scale[1], pca.mean[3], pca.scale[3]) == (7.0, 1.0, 0.0, 1.0)
    assert pca.error.missing == 0
    one_unit = drift_profile.pca("pca", ["a", "b", "c", "d"], rows, one_scale=True)
    assert len(set(one_unit["scale"])) == 1


@pytest.mark.parametrize("shape", [(3, 5), (10, 1), (10,)])
def test_rows_that_allow_no_components_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"send n x d, n at least 4 and d at least 2"):
        drift_profile.pca("pca", [], np.zeros(shape))


def test_a_reference_of_many_columns_takes_kilobytes_to_a_few_megabytes() -> None:
    random = np.random.default_rng(5)
    table_of_25 = json.dumps(document_of(random.normal(size=(20_000, 25))))
    images = json.dumps(document_of(random.normal(size=(1000, 784))))
    assert 20_000 < len(table_of_25) < 200_000
    assert 200_000 < len(images) < 5_000_000


def test_an_embedding_is_written_as_the_drift_package_builds_it() -> None:
    rows = np.random.default_rng(6).normal(size=(2500, 24)) @ np.random.default_rng(7).normal(size=(24, 24))
    rows[5, 3] = np.nan
    document = drift_profile.document(
        rows=2500,
        feature_order=["x"],
        features=[drift_profile.numeric("x", rows[:, 0])],
        embeddings=[drift_embedding.embedding("embedding", rows, pairs=256)],
    )
    (ours,), theirs = read(document).embeddings, build_embedding("embedding", rows, pairs=256)
    assert (ours.rows, ours.dimension, ours.pairs, ours.seed) == (2499, 24, 256, 0)
    assert ours.bandwidth == pytest.approx(theirs.bandwidth, rel=0.05), "the medians of two samples of rows"
    assert ours.moments == pytest.approx(theirs.moments, rel=0.5, abs=1e-3)
    waves = drift_embedding.frequencies(0, 256, 24, ours.bandwidth)
    np.testing.assert_allclose(waves, frequencies(0, 256, 24, ours.bandwidth), rtol=1e-5, atol=1e-6)


def test_healthy_vectors_lie_with_the_written_embedding_and_moved_ones_do_not() -> None:
    random = np.random.default_rng(8)
    written = drift_embedding.embedding("embedding", random.normal(size=(1000, 16)), pairs=256)
    profile = parse_embedding(json.loads(json.dumps(written)))
    healthy = [discrepancy(profile, count_images(profile, random.normal(size=(200, 16)))).p_value for _ in range(40)]
    assert sum(p < 0.05 for p in healthy) <= 6, "6 of 40 or more at 5 % happen once in seventy times"
    assert 0.2 < np.median(healthy) < 0.8
    moved = discrepancy(profile, count_images(profile, random.normal(size=(200, 16)) + 0.5))
    assert moved.p_value < 1e-6


def test_few_vectors_are_refused_and_equal_ones_never_look_drifted() -> None:
    with pytest.raises(ValueError, match="'e' has 59 finite rows; at least 60 are needed"):
        drift_embedding.embedding("e", np.zeros((59, 3)))
    dead = parse_embedding(json.loads(json.dumps(drift_embedding.embedding("e", np.ones((60, 3)), pairs=16))))
    assert dead.bandwidth == pytest.approx(1 / np.sqrt(2))
    assert discrepancy(dead, count_images(dead, np.ones((20, 3)))).p_value > 0.4
    mostly = np.vstack([np.zeros((80, 3)), np.eye(3)])
    assert drift_embedding.embedding("e", mostly, pairs=16)["bandwidth"] > 0
