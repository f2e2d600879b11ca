"""How much better the challenger is than the champion on the same rows, and how sure that is.

An improvement is always positive where the challenger is better, whatever the metric's direction.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from airflow_dlaws.evaluation.metrics import Metric, midranks, row_values
from airflow_dlaws.evaluation.scores import Scores

#: Below this many rows the mean of skewed row losses is not yet normal enough; resampling takes over.
NORMAL_MIN_ROWS = 500
#: Percentile intervals at 95 % need some 50 resamples in each tail to be steady to the second digit.
_RESAMPLES = 2000
#: The usual power at which a minimum detectable difference is quoted.
POWER = 0.8


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """The mean improvement over the rows with its two-sided confidence interval, in units of the metric."""

    improvement: float
    low: float
    high: float
    standard_error: float
    #: "normal", "bootstrap" or "delong".
    method: str
    alpha: float

    @property
    def detectable(self) -> float:
        """The smallest true improvement that this many rows would show in four of five evaluations."""
        z = NormalDist().inv_cdf
        return (z(1 - self.alpha / 2) + z(POWER)) * self.standard_error

    def power_of_margin(self, margin: float) -> float:
        """Return the chance that an equal challenger is shown to be no worse than by `margin`."""
        if self.standard_error == 0:
            return 1.0 if margin > 0 else 0.0
        return NormalDist().cdf(margin / self.standard_error - NormalDist().inv_cdf(1 - self.alpha / 2))


def compare(scores: Scores, metric: Metric, *, alpha: float, generator: random.Random) -> PairedDifference:
    """Compare the two models on `metric`, row by row.

    :param alpha: 1 minus the confidence of the two-sided interval.
    :param generator: draws the resamples where rows are few.
    :raises ValueError: there is no champion, or AUC is asked for without both labels.
    """
    if scores.champion is None:
        raise ValueError("there is no champion to compare with")
    if metric is Metric.AUC:
        return _delong(scores.labels, scores.challenger, scores.champion, alpha)
    sign = -1.0 if metric.lower_is_better else 1.0
    challenger = row_values(metric, scores.labels, scores.challenger)
    champion = row_values(metric, scores.labels, scores.champion)
    differences = [sign * (new - old) for new, old in zip(challenger, champion, strict=True)]
    if len(differences) < NORMAL_MIN_ROWS:
        return _bootstrap(differences, alpha, generator)
    mean, error = _mean_and_error(differences)
    return _normal(mean, error, "normal", alpha)


def _normal(mean: float, error: float, method: str, alpha: float) -> PairedDifference:
    reach = NormalDist().inv_cdf(1 - alpha / 2) * error
    return PairedDifference(
        improvement=mean, low=mean - reach, high=mean + reach, standard_error=error, method=method, alpha=alpha
    )


def _bootstrap(differences: Sequence[float], alpha: float, generator: random.Random) -> PairedDifference:
    """Percentile bootstrap of the mean (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13)."""
    rows = len(differences)
    means = sorted(math.fsum(generator.choices(differences, k=rows)) / rows for _ in range(_RESAMPLES))
    mean, error = _mean_and_error(differences)
    tail = int(_RESAMPLES * alpha / 2)
    low, high = means[tail], means[_RESAMPLES - 1 - tail]
    return PairedDifference(improvement=mean, low=low, high=high, standard_error=error, method="bootstrap", alpha=alpha)


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    rows = len(values)
    mean = math.fsum(values) / rows
    if rows < 2:
        return mean, math.inf
    variance = math.fsum((value - mean) ** 2 for value in values) / (rows - 1)
    return mean, math.sqrt(variance / rows)


def _delong(
    labels: Sequence[int], challenger: Sequence[float], champion: Sequence[float], alpha: float
) -> PairedDifference:
    """Difference of two correlated areas under the ROC curve.

    DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988), by midranks as in Sun and Xu, IEEE SPL 21 (2014).
    """
    new_positive, new_negative = _placements(labels, challenger)
    old_positive, old_negative = _placements(labels, champion)
    if len(new_positive) < 2 or len(new_negative) < 2:
        raise ValueError("AUC needs at least two rows of each label")
    positive = [new - old for new, old in zip(new_positive, old_positive, strict=True)]
    negative = [new - old for new, old in zip(new_negative, old_negative, strict=True)]
    mean, positive_error = _mean_and_error(positive)
    error = math.hypot(positive_error, _mean_and_error(negative)[1])
    return _normal(mean, error, "delong", alpha)


def _placements(labels: Sequence[int], scores: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return, for each positive, the share of negatives below it and, for each negative, that of positives above."""
    ranks = midranks(scores)
    positive = [i for i, label in enumerate(labels) if label]
    negative = [i for i, label in enumerate(labels) if not label]
    among_positive = midranks([scores[i] for i in positive])
    among_negative = midranks([scores[i] for i in negative])
    above = [(ranks[i] - own) / len(negative) for i, own in zip(positive, among_positive, strict=True)]
    below = [1 - (ranks[i] - own) / len(positive) for i, own in zip(negative, among_negative, strict=True)]
    return above, below


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """Rows that only one of two models classified rightly (at probability 0.5), and the exact test on them."""

    only_challenger_right: int
    only_champion_right: int
    p_value: float


def mcnemar(scores: Scores) -> McNemar:
    """Return the exact conditional test of McNemar, two-sided.

    Source: Fagerland, Lydersen and Laake, BMC Medical Research Methodology 13:91 (2013).
    """
    if scores.champion is None:
        raise ValueError("there is no champion to compare with")
    challenger = row_values(Metric.ACCURACY, scores.labels, scores.challenger)
    champion = row_values(Metric.ACCURACY, scores.labels, scores.champion)
    gained = sum(new > old for new, old in zip(challenger, champion, strict=True))
    lost = sum(new < old for new, old in zip(challenger, champion, strict=True))
    return McNemar(only_challenger_right=gained, only_champion_right=lost, p_value=_sign_test(gained, lost))


def _sign_test(gained: int, lost: int) -> float:
    """Return the two-sided chance of a split at least this uneven among fair coin tosses."""
    tosses, fewer = gained + lost, min(gained, lost)
    log_half = tosses * math.log(2)
    tail = math.fsum(
        math.exp(math.lgamma(tosses + 1) - math.lgamma(k + 1) - math.lgamma(tosses - k + 1) - log_half)
        for k in range(fewer + 1)
    )
    return min(1.0, 2 * tail)
