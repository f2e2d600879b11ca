"""Maximum mean discrepancy of an embedding from its reference, out of two mean images and a few eigenvalues.

With random Fourier features the squared discrepancy is the squared distance of two mean images (A. Gretton et al.,
JMLR 13, 2012; A. Rahimi and B. Recht, NeurIPS 2007). Of two samples of n and m rows of one distribution, n m / (n + m)
times it is in the limit a sum of chi-square variables of one degree of freedom each, weighted with the eigenvalues of
the image's covariance. The tail of that sum: the saddlepoint approximation of D. Kuonen, Biometrika 86 (1999).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist

from airflow_dlaws.drift.comparison import Aspect, Comparison, Direction, Family, Measure
from airflow_dlaws.drift.counts import FIXED_POINT, EmbeddingCounts
from airflow_dlaws.drift.representation import EmbeddingProfile

#: What is left out of the eigenvalues is entered as so many equal ones: spread thin, as such a rest is.
_REST_PARTS = 64

_BISECTIONS = 200


def compare_embedding(profile: EmbeddingProfile, current: EmbeddingCounts) -> Iterator[Comparison]:
    """Yield the test of one embedding; none where no current vector was counted."""
    if not current.rows:
        return
    scale = 1 / (FIXED_POINT * current.rows)
    squared = sum((total * scale - mean) ** 2 for total, mean in zip(current.sums, profile.mean.values(), strict=True))
    statistic = squared * current.rows * profile.rows / (current.rows + profile.rows)
    rest = [profile.rest / _REST_PARTS] * _REST_PARTS if profile.rest else []
    # What two samples of one distribution differ by on average is no effect.
    expected = (sum(profile.eigenvalues) + profile.rest) * (1 / current.rows + 1 / profile.rows)
    effect = max(0.0, squared - expected) / (1 - _squared_norm(profile))
    yield Comparison(
        feature=profile.name,
        family=Family.EMBEDDING,
        aspect=Aspect.DISTRIBUTION,
        direction=Direction.RESHAPED,
        note=f"discrepancy {math.sqrt(squared):.4g}, about {math.sqrt(expected):.4g} expected without a change",
        statistic=statistic,
        degrees_of_freedom=0,
        p_value=weighted_chi_square_tail(statistic, [*profile.eigenvalues, *rest]),
        effect=effect,
        measure=Measure.SPREAD,
    )


def _squared_norm(profile: EmbeddingProfile) -> float:
    """Return the squared length of the mean image; 1 less it is the variance of the image, as an image has length 1."""
    return min(0.999999, sum(mean**2 for mean in profile.mean.values()))


def weighted_chi_square_tail(statistic: float, weights: Sequence[float]) -> float:
    """Return about the chance that the weighted sum of squared standard normal variables is at least `statistic`."""
    used = [weight for weight in weights if weight > 0]
    mean = sum(used)
    if not used or statistic <= 0:
        return 1.0
    if math.isclose(statistic, mean, rel_tol=1e-6):  # the approximation divides by zero there; it is smooth around
        statistic = mean * (1 + 1e-5)
    point = _saddlepoint(statistic, used)
    generator = -0.5 * sum(math.log1p(-2 * point * weight) for weight in used)
    curvature = 2 * sum((weight / (1 - 2 * point * weight)) ** 2 for weight in used)
    w = math.copysign(math.sqrt(max(0.0, 2 * (point * statistic - generator))), point)
    v = point * math.sqrt(curvature)
    return NormalDist().cdf(-(w + math.log(v / w) / w))


def _saddlepoint(statistic: float, weights: Sequence[float]) -> float:
    """Return where the derivative of the cumulant generating function is `statistic`, by bisection."""
    limit = 1 / (2 * max(weights))
    low, high = -0.5 * len(weights) / statistic, limit * (1 - 1e-12)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if sum(weight / (1 - 2 * middle * weight) for weight in weights) < statistic:
            low = middle
        else:
            high = middle
        if high - low <= 1e-13 * limit:
            break
    return (low + high) / 2
