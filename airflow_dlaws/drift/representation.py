"""What the reference knows about rows as a whole: principal components, and a random-feature image of an embedding.

A representation object has exactly these keys:

    name           how its error is called in counts and verdicts, such as "pca"
    kind           "pca"
    source         "columns": the vector of a row are the numeric request columns named in `columns`;
                   or the name of a vector output, such as "embedding": `columns` is empty then
    columns        d names of feature_order, or []
    mean, scale    d numbers each; a row becomes z = (x - mean) / scale, a missing or unreadable value 0
    components     a matrix object, k x d, of orthonormal rows
    error          a numeric object of this name: sqrt(mean over d of (z - z C^T C)^2) for rows that were NOT used to
                   fit mean, scale and components. Of rows that were, it is smaller, and fresh rows would look drifted

An embedding object has exactly these keys (drift/embedding.py says what they are for):

    name           the vector output, such as "embedding"
    dimension      d, its length
    bandwidth      sigma of the Gaussian kernel exp(-|x - y|^2 / (2 sigma^2)): the median distance of two rows divided
                   by the square root of two is usual
    seed, pairs    give the frequencies W, d x pairs, and by them the image of x: [cos(x W), sin(x W)] / sqrt(pairs), of
                   length 2 * pairs. With random = numpy.random.RandomState(seed), whose stream is frozen: for each d of
                   the pairs (the last block may be narrower) random.standard_normal((d, width)) is made orthogonal by a
                   QR decomposition whose R has a positive diagonal; then column j of all blocks side by side is
                   stretched to the length sqrt(random.chisquare(d, pairs))[j] / bandwidth
    rows           on how many rows the mean rests
    mean           a matrix object, 1 x 2 * pairs: the mean image of the reference
    moments        [tr(S^2), tr(S^3), E k^3]: S is the covariance of the image, k the kernel of two rows after the mean
                   image was taken from both; estimated without bias, from disjoint blocks of rows

A matrix object is {"shape": [rows, columns], "float32": base64 of little-endian float32, row by row}.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from dataclasses import dataclass
from typing import Any

from airflow_dlaws.drift.cells import NumericProfile, integer, parse_numeric, require, require_keys
from airflow_dlaws.errors import SpecificationError

_PCA_KEYS = frozenset({"name", "kind", "source", "columns", "mean", "scale", "components", "error"})
_EMBEDDING_KEYS = frozenset({"name", "dimension", "bandwidth", "seed", "pairs", "rows", "mean", "moments"})
_MATRIX_KEYS = frozenset({"shape", "float32"})

#: The source of a representation that reads request columns.
COLUMNS = "columns"

_FLOAT32_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Numbers in rows and columns, kept as bytes until somebody computes with them."""

    shape: tuple[int, int]
    data: bytes

    def __post_init__(self) -> None:
        rows, columns = self.shape
        require(rows >= 1 and columns >= 1, "matrix", f"shape {list(self.shape)} must be positive")
        needed = rows * columns * _FLOAT32_BYTES
        require(len(self.data) == needed, "matrix", f"shape {list(self.shape)} needs {needed} bytes")

    def array(self) -> Any:
        """Return a numpy array of float64, of this shape."""
        import numpy as np

        return np.frombuffer(self.data, dtype="<f4").astype(float).reshape(self.shape)

    def values(self) -> tuple[float, ...]:
        """Return the numbers row by row."""
        return struct.unpack(f"<{len(self.data) // _FLOAT32_BYTES}f", self.data)

    @staticmethod
    def of(array: Any) -> Matrix:
        """Return the matrix of a two-dimensional numpy array; numbers are rounded to float32."""
        import numpy as np

        rows, columns = array.shape
        return Matrix(shape=(int(rows), int(columns)), data=np.ascontiguousarray(array, dtype="<f4").tobytes())

    def document(self) -> dict[str, Any]:
        """Return the matrix object."""
        return {"shape": list(self.shape), "float32": base64.b64encode(self.data).decode()}


@dataclass(frozen=True, kw_only=True)
class PcaProfile:
    """Principal components, and how well they reconstruct rows of the reference."""

    source: str
    columns: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    components: Matrix
    error: NumericProfile

    def __post_init__(self) -> None:
        name, dimension = self.error.name, len(self.mean)
        require(len(self.scale) == dimension == self.components.shape[1], name, "mean, scale and components differ")
        require(self.components.shape[0] <= dimension, name, "there are more components than columns")
        require(all(map(math.isfinite, (*self.mean, *self.scale))), name, "mean and scale must be finite")
        require(all(scale > 0 for scale in self.scale), name, "scale must be above 0; write 1 for a constant column")
        if self.source == COLUMNS:
            require(len(self.columns) == dimension, name, f"{len(self.columns)} columns, but {dimension} means")
        else:
            require(not self.columns, name, f"source is {self.source!r}, so columns must be []")

    @property
    def name(self) -> str:
        """How the error is called in counts and verdicts."""
        return self.error.name

    def document(self) -> dict[str, Any]:
        """Return the representation object."""
        return {
            "name": self.name,
            "kind": "pca",
            "source": self.source,
            "columns": list(self.columns),
            "mean": list(self.mean),
            "scale": list(self.scale),
            "components": self.components.document(),
            "error": self.error.document(),
        }


@dataclass(frozen=True, kw_only=True)
class EmbeddingProfile:
    """The mean image of an embedding in random Fourier features: what a maximum mean discrepancy needs to know."""

    name: str
    dimension: int
    bandwidth: float
    seed: int
    pairs: int
    rows: int
    mean: Matrix
    moments: tuple[float, float, float]

    def __post_init__(self) -> None:
        require(self.dimension >= 1 and self.pairs >= 1, self.name, "dimension and pairs must be at least 1")
        require(self.bandwidth > 0 and math.isfinite(self.bandwidth), self.name, "bandwidth must be above 0")
        require(self.rows >= 2, self.name, f"rows must be at least 2, not {self.rows}")
        require(self.mean.shape == (1, 2 * self.pairs), self.name, f"mean must be 1 x {2 * self.pairs}")
        square, cube, third = self.moments
        possible = 0 <= square <= 1 and 0 <= cube <= 1 and -8 <= third <= 8
        require(possible, self.name, f"moments {list(self.moments)} are not those of images of length 1")

    def document(self) -> dict[str, Any]:
        """Return the embedding object."""
        return {
            "name": self.name,
            "dimension": self.dimension,
            "bandwidth": self.bandwidth,
            "seed": self.seed,
            "pairs": self.pairs,
            "rows": self.rows,
            "mean": self.mean.document(),
            "moments": list(self.moments),
        }


def parse_representation(item: Any) -> PcaProfile:
    """Read a representation object.

    :raises SpecificationError: it is none; the message names the place and the rule.
    """
    require(isinstance(item, dict), "representation", "needs objects")
    name = str(item.get("name"))
    require(item.get("kind") == "pca", name, f"kind is {item.get('kind')!r}; only 'pca' is allowed")
    require_keys(name, item, _PCA_KEYS)
    error = parse_numeric(item["error"])
    require(error.name == name, name, f"the error is named {error.name!r}; it must have the representation's name")
    return PcaProfile(
        source=str(item["source"]),
        columns=tuple(map(str, item["columns"])),
        mean=tuple(map(float, item["mean"])),
        scale=tuple(map(float, item["scale"])),
        components=_parse_matrix(name, item["components"]),
        error=error,
    )


def parse_embedding(item: Any) -> EmbeddingProfile:
    """Read an embedding object.

    :raises SpecificationError: it is none; the message names the place and the rule.
    """
    require(isinstance(item, dict), "embeddings", "needs objects")
    name = str(item.get("name"))
    require_keys(name, item, _EMBEDDING_KEYS)
    return EmbeddingProfile(
        name=name,
        dimension=integer(name, item["dimension"]),
        bandwidth=float(item["bandwidth"]),
        seed=integer(name, item["seed"]),
        pairs=integer(name, item["pairs"]),
        rows=integer(name, item["rows"]),
        mean=_parse_matrix(name, item["mean"]),
        moments=_three(name, item["moments"]),
    )


def _three(name: str, item: Any) -> tuple[float, float, float]:
    require(isinstance(item, list) and len(item) == 3, name, f"moments must be three numbers, not {item!r}")
    return float(item[0]), float(item[1]), float(item[2])


def _parse_matrix(name: str, item: Any) -> Matrix:
    require(isinstance(item, dict), name, "a matrix must be an object")
    require_keys(name, item, _MATRIX_KEYS)
    shape = tuple(integer(name, size) for size in item["shape"])
    require(len(shape) == 2, name, f"shape {list(shape)} must have two entries")
    try:
        return Matrix(shape=(shape[0], shape[1]), data=base64.b64decode(item["float32"], validate=True))
    except binascii.Error as error:
        raise SpecificationError(f"drift reference, {name}: float32 is no base64: {error}") from error
