"""Metrics of binary classifiers, as numbers and row by row.

Probabilities are of label 1. All functions are pure; sequences of one call have equal lengths.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

#: A model that is certain and wrong would cost infinitely much; this bounds the cost of one row at 34.5 (scikit-learn
#: clips at the resolution of its float type for the same reason).
_CLIP = 1e-15


class Metric(enum.StrEnum):
    """What a comparison is decided on."""

    LOG_LOSS = "log_loss"
    BRIER = "brier"
    ACCURACY = "accuracy"
    AUC = "auc"

    @property
    def lower_is_better(self) -> bool:
        """Tell whether a smaller value is the better one."""
        return self in (Metric.LOG_LOSS, Metric.BRIER)


@dataclass(frozen=True, kw_only=True)
class ModelMetrics:
    """All metrics of one model on the evaluated rows."""

    log_loss: float
    brier: float
    accuracy: float
    #: None where the rows hold only one of the two labels.
    auc: float | None

    def value(self, metric: Metric) -> float | None:
        """Return one of them."""
        return getattr(self, metric.value)  # type: ignore[no-any-return]


def measure(labels: Sequence[int], probabilities: Sequence[float]) -> ModelMetrics:
    """Return all metrics of one model."""
    return ModelMetrics(
        log_loss=_mean(row_values(Metric.LOG_LOSS, labels, probabilities)),
        brier=_mean(row_values(Metric.BRIER, labels, probabilities)),
        accuracy=_mean(row_values(Metric.ACCURACY, labels, probabilities)),
        auc=auc(labels, probabilities),
    )


def row_values(metric: Metric, labels: Sequence[int], probabilities: Sequence[float]) -> list[float]:
    """Return the metric of each row alone; its mean is the metric. Not defined for AUC, which compares rows."""
    pairs = zip(labels, probabilities, strict=True)
    if metric is Metric.LOG_LOSS:
        return [-math.log(max(p if y else 1.0 - p, _CLIP)) for y, p in pairs]
    if metric is Metric.BRIER:
        return [(p - y) ** 2 for y, p in pairs]
    if metric is Metric.ACCURACY:
        return [1.0 if (p >= 0.5) == bool(y) else 0.0 for y, p in pairs]
    raise ValueError(f"{metric} has no values row by row")


def auc(labels: Sequence[int], probabilities: Sequence[float]) -> float | None:
    """Return the area under the ROC curve: the chance that a random positive ranks above a random negative.

    Ties count half (the Mann-Whitney statistic; Hanley and McNeil, Radiology 143, 1982). None without both labels.
    """
    positives = sum(labels)
    negatives = len(labels) - positives
    if not positives or not negatives:
        return None
    ranks = midranks(probabilities)
    rank_sum = sum(rank for rank, label in zip(ranks, labels, strict=True) if label)
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def midranks(values: Sequence[float]) -> list[float]:
    """Return the rank of each value, from 1; equal values share the mean of their ranks."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for position in range(start, end + 1):
            ranks[order[position]] = (start + end) / 2 + 1
        start = end + 1
    return ranks


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
