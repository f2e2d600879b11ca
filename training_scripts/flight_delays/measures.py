"""How good probabilities are, and the line that reports it."""

import json

import numpy as np


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean negative log-likelihood in nats. A certain and wrong answer costs 27.6, not infinity."""
    sure = np.clip(probabilities, 1e-12, 1 - 1e-12)
    return float(-np.mean(np.where(labels == 1, np.log(sure), np.log1p(-sure))))


def auc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Chance that a positive row scores above a negative one (ties half). NaN where one of them is absent."""
    positives = int((labels == 1).sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return float("nan")
    _, group, sizes = np.unique(probabilities, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(sizes) - (sizes - 1) / 2)[group]
    return float((ranks[labels == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def report(metrics: dict[str, float]) -> None:
    """Print the metrics as SageMaker and Airflow read them: one JSON line."""
    known = {name: round(value, 6) for name, value in metrics.items() if value == value}  # JSON has no NaN
    print(json.dumps({"dlaws_metrics": known}), flush=True)
