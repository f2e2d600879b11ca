"""Has a cloud of embeddings moved? Maximum mean discrepancy (MMD) against a stored profile, without the reference rows.

MMD with a Gaussian kernel (A. Gretton et al., JMLR 13, 2012) needs all pairs of rows. Random Fourier features
(A. Rahimi and B. Recht, NIPS 2007), drawn orthogonally because that lowers their variance (F. Yu et al., "Orthogonal
random features", NIPS 2016), turn it into the distance of two mean images: the reference's is stored, the current one
comes from a sum that adds up over files and hours.

The p-value needs no permutations. An image has length one, so the unbiased statistic is a degenerate U-statistic whose
first three moments are known exactly, for any two numbers of rows, from three numbers of the reference: tr(S^2) and
tr(S^3) of the covariance S of the images, and the third moment of the centred kernel. A shifted gamma distribution with
these moments (Pearson's type III; P. Hall, Annals of Statistics 11, 1983; M. J. Buckley and G. K. Eagleson, Australian
Journal of Statistics 30, 1988) gives the tail.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_dlaws.drift.cells import require
from airflow_dlaws.drift.counts import FIXED_POINT, EmbeddingCounts
from airflow_dlaws.drift.representation import EmbeddingProfile, Matrix
from airflow_dlaws.drift.statistics import upper_gamma

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Table = NDArray[np.float32]

#: So many that in 512 dimensions they add less than a tenth to the noise of the whole kernel; 40 us a row.
PAIRS = 2048

#: Rows whose images are in memory at once: 16 MB with the default number of pairs.
_ROWS_AT_ONCE = 1024

#: Rows that the moments of the kernel are taken from: three blocks of a thousand give them within a few percent.
_MOMENT_ROWS = 3000

#: Rows that the bandwidth is taken from; half a million pairs.
_BANDWIDTH_ROWS = 1000

#: Fewer reference rows do not tell the moments of the kernel.
MIN_REFERENCE_ROWS = 60

#: A gamma distribution of less skewness is a normal one for every use here.
_NOT_SKEW = 0.01


@dataclass(frozen=True, kw_only=True)
class Discrepancy:
    """What the test of one embedding found."""

    #: Unbiased estimate of the squared MMD; without drift about 0, and below it half of the time.
    squared: float
    p_value: float
    #: Standard deviation of `squared` without drift.
    spread: float
    #: `squared` in parts of the variance of the reference's images; 0 or more.
    effect: float


def build_embedding(name: str, rows: Any, *, pairs: int = PAIRS, seed: int = 0) -> EmbeddingProfile:
    """Profile the reference's embeddings (n x d numbers), read in pieces; rows that are not finite are left out.

    The bandwidth is the median heuristic of Gretton et al.

    :raises SpecificationError: there are too few finite rows, or most of them are the same.
    """
    import numpy as np

    sample = rows[np.sort(np.random.RandomState(seed).permutation(len(rows))[:_MOMENT_ROWS])].astype(np.float32)
    sample = sample[np.isfinite(sample).all(axis=1)]
    require(len(sample) >= MIN_REFERENCE_ROWS, name, f"{len(sample)} finite rows; {MIN_REFERENCE_ROWS} are needed")
    sample = sample[np.random.RandomState(seed).permutation(len(sample))]
    bandwidth = _median_distance(sample[:_BANDWIDTH_ROWS]) / math.sqrt(2)
    require(bandwidth > 0, name, "most rows are the same, so there is no distance to measure others by")
    wave = frequencies(seed, pairs, rows.shape[1], bandwidth)
    count, total = _summed(rows, wave)
    return EmbeddingProfile(
        name=name,
        dimension=rows.shape[1],
        bandwidth=bandwidth,
        seed=seed,
        pairs=pairs,
        rows=count,
        mean=Matrix.of((total / count)[None]),
        moments=_moments(images(sample, wave)),
    )


def count_images(profile: EmbeddingProfile, rows: NDArray[Any]) -> EmbeddingCounts:
    """Sum the images of current embeddings (n x d), in pieces, so that a memory-mapped file stays on disk."""
    import numpy as np

    count, total = _summed(rows, _frequencies_of(profile))
    sums = np.rint(total * FIXED_POINT).astype(np.int64)
    return EmbeddingCounts(name=profile.name, rows=count, missing=len(rows) - count, sums=tuple(sums.tolist()))


def discrepancy(profile: EmbeddingProfile, current: EmbeddingCounts) -> Discrepancy:
    """Compare current embeddings, two rows at least, with the reference."""
    n, m = current.rows, profile.rows
    now = [total / (FIXED_POINT * n) for total in current.sums]
    before = profile.mean.values()
    here, there = math.fsum(x * x for x in now), math.fsum(x * x for x in before)
    between = math.fsum(x * y for x, y in zip(now, before, strict=True))
    squared = (n * here - 1) / (n - 1) + (m * there - 1) / (m - 1) - 2 * between
    spread, skewness = _without_drift(profile.moments, n, m)
    return Discrepancy(
        squared=squared,
        p_value=_tail(squared / spread, skewness) if spread else 1.0,
        spread=spread,
        effect=max(0.0, squared) / max(1 - there, 1e-9),
    )


def _without_drift(moments: tuple[float, float, float], n: int, m: int) -> tuple[float, float]:
    """Return standard deviation and skewness of the statistic without drift.

    The statistic is the sum over ordered pairs of rows of a weight (1/(n(n-1)) within the current rows, 1/(m(m-1))
    within the reference, -1/(nm) across) times the centred kernel. Pairs are uncorrelated; triangles carry tr(S^3).
    """
    square, cube, third = moments
    within_n, within_m, across = 1 / (n * (n - 1)), 1 / (m * (m - 1)), 1 / (n * m)
    variance = 2 * square * (within_n + within_m + 2 * across)
    triangles = (n - 2) * within_n**2 + (m - 2) * within_m**2 + 3 * across / n + 3 * across / m
    repeated = within_n**2 + within_m**2 - 2 * across**2
    skew = 8 * cube * triangles + 4 * third * repeated
    return math.sqrt(variance), skew / variance**1.5 if variance else 0.0


def _tail(score: float, skewness: float) -> float:
    """Return the probability that a standardised shifted gamma variable is at least `score`."""
    if skewness < _NOT_SKEW:
        return math.erfc(score / math.sqrt(2)) / 2
    shape = 4 / skewness**2
    x = shape + score * math.sqrt(shape)
    return 1.0 if x <= 0 else upper_gamma(shape, x)


def frequencies(seed: int, pairs: int, dimension: int, bandwidth: float) -> Table:
    """Return frequencies, dimension x pairs: orthogonal in blocks of `dimension`, as long as Gaussian vectors are.

    RandomState, because numpy promises its stream for all versions (NEP 19). The signs of a QR decomposition are fixed
    here, because numerical libraries differ in them.
    """
    import numpy as np

    random = np.random.RandomState(seed)
    blocks = []
    for start in range(0, pairs, dimension):
        gauss = random.standard_normal((dimension, min(dimension, pairs - start)))
        block, upper = np.linalg.qr(gauss)
        blocks.append(block * np.where(np.diagonal(upper) < 0, -1.0, 1.0))
    lengths = np.sqrt(random.chisquare(dimension, pairs))
    return np.ascontiguousarray(np.hstack(blocks) * (lengths / bandwidth), dtype=np.float32)


@functools.lru_cache(maxsize=4)
def _kept_frequencies(seed: int, pairs: int, dimension: int, bandwidth: float) -> Table:
    return frequencies(seed, pairs, dimension, bandwidth)


def _frequencies_of(profile: EmbeddingProfile) -> Table:
    return _kept_frequencies(profile.seed, profile.pairs, profile.dimension, profile.bandwidth)


def images(rows: NDArray[Any], wave: Table) -> Table:
    """Return the images of rows: cosines, then sines, of length one together."""
    import numpy as np

    pairs = wave.shape[1]
    angles = rows.astype(np.float32, copy=False) @ wave
    both = np.empty((len(rows), 2 * pairs), dtype=np.float32)
    np.cos(angles, out=both[:, :pairs])
    np.sin(angles, out=both[:, pairs:])
    both /= math.sqrt(pairs)
    return both


def _summed(rows: NDArray[Any], wave: Table) -> tuple[int, NDArray[np.float64]]:
    """Return how many rows are finite, and the sum of their images."""
    import numpy as np

    total, count = np.zeros(2 * wave.shape[1]), 0
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        piece = rows[start : start + _ROWS_AT_ONCE].astype(np.float32)
        piece = piece[np.isfinite(piece).all(axis=1)]
        total += images(piece, wave).sum(axis=0, dtype=np.float64)
        count += len(piece)
    return count, total


def _median_distance(sample: Table) -> float:
    import numpy as np

    lengths = np.einsum("ij,ij->i", sample, sample, dtype=np.float64)
    squares = lengths[:, None] + lengths - 2 * (sample @ sample.T)
    return math.sqrt(max(0.0, float(np.median(squares[np.triu_indices(len(sample), 1)]))))


def _moments(sample: Table) -> tuple[float, float, float]:
    """Return unbiased tr(S^2) and tr(S^3), and the third moment of the centred kernel, from three disjoint blocks."""
    import numpy as np

    size = len(sample) // 3
    blocks = [sample[k * size : (k + 1) * size] for k in range(3)]
    a, b, c = (block - block.mean(axis=0, dtype=np.float64).astype(np.float32) for block in blocks)
    kernels = ab, bc, ca = a @ b.T, b @ c.T, c @ a.T
    # A centred block has one degree of freedom less than rows.
    square = sum(float(np.square(each, dtype=np.float64).sum()) for each in kernels) / (3 * (size - 1) ** 2)
    cube = float(np.einsum("ij,ji->", ab.astype(np.float64) @ bc.astype(np.float64), ca)) / (size - 1) ** 3
    third = sum(float(np.power(each, 3, dtype=np.float64).mean()) for each in kernels) / 3
    return square, max(0.0, min(cube, square**1.5)), third
