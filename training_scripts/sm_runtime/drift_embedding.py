"""What a drift reference keeps of a vector that the model answers: its mean image in random Fourier features.

With it, airflow_dlaws/drift/embedding.py computes the maximum mean discrepancy of current vectors from the reference,
without the reference's rows. Both draw the same frequencies from the seed; that file says where the method comes from.
Give it vectors of HELD-OUT rows, 60 at least: of rows it was trained on, a model makes other vectors.
"""

import numpy as np

from sm_runtime.drift_profile import matrix

#: In 512 dimensions so many add less than a tenth to the noise of the whole kernel; the reference grows by 22 kB.
PAIRS = 2048
#: Three blocks of a thousand rows give the moments of the kernel within a few per cent.
MOMENT_ROWS = 3000
#: Half a million pairs of rows are enough for a median.
BANDWIDTH_ROWS = 1000
LEAST_ROWS = 60
#: Squared distances below so small a part of the squared lengths are what float32 leaves of 0.
ROUNDING = 1e-5
#: Rows whose images are in memory at once.
ROWS_AT_ONCE = 1024


def embedding(name: str, vectors: np.ndarray, *, pairs: int = PAIRS, seed: int = 0) -> dict:
    """Describe vectors (n x d) for `drift_profile.document(embeddings=[...])`; rows that are not finite are left out.

    :raises ValueError: there are fewer than LEAST_ROWS.
    """
    vectors = np.asarray(vectors, dtype=np.float32)
    vectors = vectors[np.isfinite(vectors).all(axis=1)]
    if len(vectors) < LEAST_ROWS:
        raise ValueError(f"{name!r} has {len(vectors)} finite rows; at least {LEAST_ROWS} are needed")
    sample = vectors[np.random.default_rng(seed).permutation(len(vectors))[:MOMENT_ROWS]]
    bandwidth = usual_distance(sample[:BANDWIDTH_ROWS]) / np.sqrt(2)
    waves = frequencies(seed, pairs, vectors.shape[1], bandwidth)
    starts = range(0, len(vectors), ROWS_AT_ONCE)
    total = sum(image(vectors[start : start + ROWS_AT_ONCE], waves).sum(axis=0, dtype=float) for start in starts)
    return {
        "name": name,
        "dimension": vectors.shape[1],
        "bandwidth": float(bandwidth),
        "seed": seed,
        "pairs": pairs,
        "rows": len(vectors),
        "mean": matrix((total / len(vectors))[None]),
        "moments": moments(image(sample, waves)),
    }


def frequencies(seed: int, pairs: int, dimension: int, bandwidth: float) -> np.ndarray:
    """Return frequencies (dimension x pairs): orthogonal in blocks, as long as Gaussian vectors are.

    RandomState, because its stream is frozen; signs are fixed, because numerical libraries differ in those of a QR.
    """
    random, blocks = np.random.RandomState(seed), []
    for start in range(0, pairs, dimension):
        block, upper = np.linalg.qr(random.standard_normal((dimension, min(dimension, pairs - start))))
        blocks.append(block * np.where(np.diagonal(upper) < 0, -1.0, 1.0))
    lengths = np.sqrt(random.chisquare(dimension, pairs))
    return np.ascontiguousarray(np.hstack(blocks) * (lengths / bandwidth), dtype=np.float32)


def image(vectors: np.ndarray, waves: np.ndarray) -> np.ndarray:
    """Return the image of each vector: cosines, then sines, of length one together."""
    angles = vectors @ waves
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1) / np.float32(np.sqrt(waves.shape[1]))


def usual_distance(vectors: np.ndarray) -> float:
    """Return the median distance of two vectors; the mean where most are equal, and 1 where all are."""
    squares = np.square(vectors, dtype=float).sum(axis=1)
    apart = (squares[:, None] + squares - 2 * (vectors @ vectors.T))[np.triu_indices(len(vectors), 1)]
    distances = np.sqrt(np.where(apart > ROUNDING * squares.mean(), apart, 0))
    return float(np.median(distances) or distances.mean() or 1)


def moments(images: np.ndarray) -> list[float]:
    """Return unbiased tr(S^2) and tr(S^3), S the images' covariance, and the third moment of the centred kernel.

    From three disjoint blocks of rows, so that no row meets itself.
    """
    size = len(images) // 3
    a, b, c = (block - block.mean(axis=0, dtype=float) for block in np.split(images[: 3 * size], 3))
    kernels = [a @ b.T, b @ c.T, c @ a.T]
    square = sum(float(np.square(kernel).sum()) for kernel in kernels) / (3 * (size - 1) ** 2)
    cube = float(np.einsum("ij,ji->", kernels[0] @ kernels[1], kernels[2])) / (size - 1) ** 3
    third = sum(float((kernel**3).mean()) for kernel in kernels) / 3
    return [square, max(0.0, min(cube, square**1.5)), third]
