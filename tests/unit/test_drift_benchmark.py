"""The drift benchmark's own shifts and statistics: a wrong ruler measures nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import drift_peers
import drift_streams
from drift_data import Drawing, Images
from drift_models import Classifier, _network
from drift_shifts import FAMILIES, Bank, Shift, Warp, warped

ROWS, TRAIN = 600, 200


@pytest.fixture(scope="module")
def bank() -> Bank:
    rng = np.random.default_rng(0)
    pixels = rng.random((ROWS, 64), dtype=np.float32)
    images = Images(name="digits", pixels=pixels, labels=np.arange(ROWS) % 10, train=TRAIN, reference=150)
    trained, others = images.parts(0)
    network = _network(images).eval()
    return Bank(images, Classifier(network=network, trained=trained, others=others, accuracy=0.1), 0)


def test_reference_and_pool_share_no_row_and_none_was_trained_on(bank: Bank) -> None:
    drawing = Drawing.disjoint(bank.model.others, 150, np.random.default_rng(1))

    assert len(drawing.reference) == 150
    assert set(drawing.reference) | set(drawing.pool) == set(bank.model.others)
    assert not set(drawing.reference) & set(drawing.pool)
    assert not set(bank.model.others) & set(bank.model.trained)


def test_a_healthy_batch_is_rows_of_the_pool_each_once(bank: Bank) -> None:
    pool = bank.model.others
    rows = bank.batch(Shift(), pool, 100, np.random.default_rng(2), again=False)

    places = [int(np.flatnonzero((bank.images.pixels == row).all(1))[0]) for row in rows]
    assert len(set(places)) == 100
    assert set(places) <= set(pool)


def test_noise_changes_the_share_asked_for_and_stays_in_the_scale(bank: Bank) -> None:
    rng = np.random.default_rng(3)
    rows = bank.batch(Shift(noise=0.3, delta=0.2), bank.model.others, 5000, rng, again=True)

    known = {row.tobytes() for row in bank.images.pixels}
    changed = np.mean([row.tobytes() not in known for row in rows])
    assert changed == pytest.approx(0.2, abs=0.03)
    assert rows.min() >= 0
    assert rows.max() <= 1


@pytest.mark.parametrize("knock_out", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("again", [True, False])
def test_knock_out_leaves_its_share_of_the_class_zero(bank: Bank, knock_out: float, again: bool) -> None:
    rng, shift = np.random.default_rng(4), Shift(knock_out=knock_out)
    draws = [shift.places(bank.images.labels, bank.model.others, 300, rng, again) for _ in range(30)]

    before = np.mean(bank.images.labels[bank.model.others] == 0)
    share = before * (1 - knock_out) / (1 - before * knock_out)
    assert np.mean(bank.images.labels[np.concatenate(draws)] == 0) == pytest.approx(share, abs=0.01)


def test_more_rows_than_there_are_are_refused(bank: Bank) -> None:
    with pytest.raises(ValueError, match="make the pool larger"):
        Shift(only_zero=True).places(bank.images.labels, bank.model.others, 300, np.random.default_rng(5), False)


def test_a_warp_of_nothing_leaves_the_image_and_a_flip_mirrors_it() -> None:
    row = np.random.default_rng(6).random(64)
    still = Warp(rotation=0, shift=(0, 0), shear=0, zoom=0)
    flipping = Warp(rotation=0, shift=(0, 0), shear=0, zoom=0, flips=(True, False))

    np.testing.assert_allclose(warped(row, still, np.random.default_rng(0)), row, atol=1e-12)
    mirrored = row.reshape(8, 8)[:, ::-1].reshape(-1)
    seen = [warped(row, flipping, np.random.default_rng(seed)) for seed in range(20)]
    assert any(np.allclose(one, mirrored) for one in seen)
    assert any(np.allclose(one, row) for one in seen)


def test_the_ten_families_of_the_paper_have_three_sizes_each() -> None:
    assert len(FAMILIES) == 10
    assert {len(shifts) for shifts in FAMILIES.values()} == {3}
    assert [shift.noise * 255 for shift in FAMILIES["large noise"]] == pytest.approx([100, 100, 100])
    assert [shift.delta for shift in FAMILIES["large noise"]] == [0.1, 0.5, 1.0]


def test_bbsd_raises_few_false_alarms_and_sees_a_shift_of_one_output() -> None:
    rng = np.random.default_rng(7)
    pairs = [(rng.random((300, 10)), rng.random((200, 10))) for _ in range(300)]
    alarms = sum(drift_peers.bbsd(*pair) for pair in pairs)

    assert alarms <= stats.binom.ppf(0.999, 300, 0.05)
    shifted = rng.random((200, 10))
    shifted[:, 3] **= 2
    assert drift_peers.bbsd(rng.random((300, 10)), shifted)


def test_the_stability_index_is_that_of_the_formula() -> None:
    rng = np.random.default_rng(8)
    reference = rng.random((1000, 2))
    index = drift_peers.Psi.of(reference)
    current = np.column_stack([rng.random(500), rng.random(500) ** 2])

    bins = np.quantile(reference[:, 1], np.arange(1, 10) / 10)
    before = np.bincount(np.digitize(reference[:, 1], bins)) / 1000
    now = np.bincount(np.digitize(current[:, 1], bins)) / 500
    assert index.most(index.counts(current)) == pytest.approx(((now - before) * np.log(now / before)).sum())
    assert index.most(index.counts(reference)) == 0


def test_sliding_sums_are_those_of_each_window() -> None:
    counts = np.arange(24).reshape(6, 2, 2)

    sums = drift_streams.sliding(counts, 4)

    np.testing.assert_array_equal(sums, [counts[start : start + 4].sum(0) for start in range(3)])
