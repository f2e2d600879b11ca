"""Reading channels of images: what training accepts, and what it refuses before it starts."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_scripts import images

IMAGES = np.zeros((2, 28, 28), dtype=np.uint8)
LABELS = np.array([3, 7], dtype=np.uint8)


def write(path: Path, **arrays: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)
    return path


def test_files_in_any_subfolder_are_read_in_order_of_their_paths(tmp_path: Path) -> None:
    write(tmp_path / "part=2" / "a.npz", images=IMAGES + 2, labels=LABELS)
    write(tmp_path / "part=1" / "b.npz", images=IMAGES[:1] + 1, labels=LABELS[:1])
    (tmp_path / "notes.txt").write_text("no images")
    found = images.read(str(tmp_path))
    assert found.labels.tolist() == [3, 3, 7]
    assert found.pixels[:, 0, 0].tolist() == [1, 2, 2]
    assert found.pixels.shape == (3, 28, 28)
    assert [(file["path"], file["images"]) for file in found.files] == [("part=1/b.npz", 1), ("part=2/a.npz", 2)]


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"images": IMAGES}, "does not hold the arrays images and labels"),
        ({"images": IMAGES, "labels": np.array([None, {}])}, "does not hold the arrays images and labels"),
        ({"images": IMAGES / 255, "labels": LABELS}, "'images': 'float64[2, 28, 28]'"),
        ({"images": IMAGES.reshape(2, 784), "labels": LABELS}, "'images': 'uint8[2, 784]'"),
        ({"images": IMAGES, "labels": LABELS[:1]}, "expected {'images': 'uint8[1, 28, 28]', 'labels': 'uint8[1]'}"),
        ({"images": IMAGES, "labels": np.uint8(3)}, "'labels': 'uint8[]'"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "at least one image"),
        ({"images": IMAGES, "labels": LABELS + 3}, "has the label 10; the labels are the digits 0 to 9"),
    ],
)
def test_a_file_that_cannot_be_trained_on_is_refused(tmp_path: Path, arrays: dict[str, Any], told: str) -> None:
    path = write(tmp_path / "a.npz", **arrays)
    with pytest.raises(SystemExit, match=f"{re.escape(str(path))}.*{re.escape(told)}"):
        images.read(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off"])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(SystemExit, match="does not hold the arrays"):
        images.read(str(tmp_path))


@pytest.mark.parametrize("bit", [0x01, 0x10, 0xFF])
def test_no_byte_of_an_archive_can_be_wrong_and_end_in_another_error(tmp_path: Path, bit: int) -> None:
    noise = np.random.default_rng(0).integers(0, 9, (2, 28, 28), np.uint8)
    path = write(tmp_path / "a.npz", images=noise, labels=LABELS)
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        broken = bytearray(whole)
        broken[place] ^= bit
        with contextlib.suppress(SystemExit):
            found = images.read_file(path, bytes(broken))
            assert np.array_equal(found["images"], noise), place


def test_an_empty_channel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"there is no \.npz file under"):
        images.read(str(tmp_path))
