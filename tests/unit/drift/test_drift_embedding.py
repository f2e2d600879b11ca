"""The discrepancy of embeddings: right false alarms without the reference rows, and power."""

import dataclasses
import json

import numpy as np
import pytest

from airflow_dlaws.drift.build import build_profile
from airflow_dlaws.drift.columns import count_columns
from airflow_dlaws.drift.counts import FIXED_POINT, EmbeddingCounts
from airflow_dlaws.drift.embedding import build_embedding, count_images, discrepancy, frequencies, images
from airflow_dlaws.drift.profile import parse_profile
from airflow_dlaws.drift.representation import Matrix, parse_embedding
from airflow_dlaws.errors import SpecificationError
from tests.unit.drift.test_drift_columns import NOW


def clusters(random, rows, dimension=32):
    centres = np.random.RandomState(9).standard_normal((10, dimension))
    return (centres[random.randint(10, size=rows)] + 0.5 * random.standard_normal((rows, dimension))).astype("f4")


def means(profile, rows, size):
    """Return the mean image of each batch of `size` rows."""
    wave = frequencies(profile.seed, profile.pairs, profile.dimension, profile.bandwidth)
    return images(rows, wave).astype(float).reshape(-1, size, 2 * profile.pairs).mean(axis=1)


@pytest.mark.parametrize("size", [20, 50, 400])
@pytest.mark.parametrize("reference_rows", [200, 900])
def test_p_values_of_healthy_batches_are_uniform(size, reference_rows):
    random, found = np.random.RandomState(0), []
    for seed in range(10):
        profile = build_embedding("e", clusters(random, reference_rows, 8), pairs=32, seed=seed)
        # Each batch meets a reference of its own: batches of one reference are right or wrong together.
        before = means(profile, clusters(random, 100 * reference_rows, 8), reference_rows)
        now = np.rint(means(profile, clusters(random, 100 * size, 8), size) * size * FIXED_POINT).astype(int)
        for mean, sums in zip(before, now.tolist(), strict=True):
            fresh = dataclasses.replace(profile, mean=Matrix.of(mean[None]))
            found.append(discrepancy(fresh, EmbeddingCounts(name="e", rows=size, sums=tuple(sums))).p_value)
    ordered = np.sort(found)

    # Kolmogorov's distance of a thousand uniform values is below 0.06 in all but two of a thousand cases.
    assert np.abs(ordered - (np.arange(1000) + 0.5) / 1000).max() < 0.06
    assert np.mean(ordered < 0.05) < 0.072
    assert np.mean(ordered < 0.01) < 0.021


def test_the_images_have_the_kernel_as_their_product():
    rows = np.random.RandomState(3).standard_normal((20, 64)).astype("f4")
    wave = frequencies(0, 4096, 64, 8.0)
    squares = ((rows[:, None] - rows[None]) ** 2).sum(axis=-1)

    image = images(rows, wave)

    assert np.allclose(np.square(image).sum(axis=1), 1, atol=1e-5)
    assert np.abs(image @ image.T - np.exp(-squares / (2 * 8.0**2))).max() < 0.03


@pytest.mark.parametrize(
    "change",
    [lambda rows: rows + 0.15, lambda rows: rows * 1.15, lambda rows: np.concatenate([rows[:170], 3 * rows[:30]])],
    ids=["shift", "scale", "part"],
)
def test_a_changed_cloud_is_found_and_its_size_told(change):
    random = np.random.RandomState(4)
    profile = build_embedding("e", clusters(random, 3000), pairs=256)

    found = discrepancy(profile, count_images(profile, change(clusters(random, 200))))

    assert found.p_value < 1e-3
    assert found.effect > 0.002


def test_sums_of_pieces_add_up_and_rows_that_are_not_finite_are_missing():
    random = np.random.RandomState(5)
    profile = build_embedding("e", clusters(random, 300), pairs=32)
    rows = clusters(random, 3000)
    rows[[3, 2000]] = np.nan
    whole = count_images(profile, rows)

    both = count_images(profile, rows[:1500]) + count_images(profile, rows[1500:])

    assert (whole.rows, whole.missing) == (both.rows, both.missing) == (2998, 2)
    # float32 products depend in their last digits on how many rows are multiplied at once.
    assert np.allclose(both.sums, whole.sums, rtol=0, atol=FIXED_POINT * 3000 * 1e-7)


def test_the_profile_survives_its_document_and_lies_about_nothing():
    profile = build_embedding("e", clusters(np.random.RandomState(6), 300), pairs=32)
    document = json.loads(json.dumps(profile.document()))

    assert parse_embedding(document) == profile
    with pytest.raises(SpecificationError, match="moments"):
        parse_embedding({**document, "moments": [2.0, 0.0, 0.0]})
    with pytest.raises(SpecificationError, match="three numbers"):
        parse_embedding({**document, "moments": [0.1]})


def test_too_few_or_equal_rows_make_no_profile():
    with pytest.raises(SpecificationError, match="59 finite rows"):
        build_embedding("e", clusters(np.random.RandomState(7), 59))
    with pytest.raises(SpecificationError, match="most rows are the same"):
        build_embedding("e", np.ones((100, 4), dtype="f4"))


def test_vectors_of_another_length_are_missing_and_lists_are_read():
    rows = clusters(np.random.RandomState(8), 200)
    plain = build_profile({"x": [1.0]}, created=NOW)
    profile = parse_profile(
        json.dumps(dataclasses.replace(plain, embeddings=(build_embedding("e", rows, pairs=32),)).document())
    )
    answers = [*rows[:50].tolist(), [1.0], None, "text", [None] * 32]

    counted = count_columns(profile, {}, {"e": answers}).embeddings[0]

    assert (counted.rows, counted.missing) == (50, 4)
    assert count_columns(profile, {}, {"e": rows[:, :3]}).embeddings[0].missing == 200
    assert count_columns(profile, {}, {}).embeddings[0].rows == 0
