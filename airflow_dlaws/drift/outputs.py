"""Columns of what a model answers: score, probabilities, confidence and label. drift/profile.py names them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_dlaws.drift.profile import CONFIDENCE, PREDICTED_LABEL, PREDICTION, probability_name
from airflow_dlaws.errors import SpecificationError


def answer_columns(answers: Any, classes: Sequence[str] | None) -> dict[str, Any]:
    """Return the columns of `answers`, an array of n scores or n x k probabilities; NaN where one is missing.

    :param classes: the k classes; two for a single score that is the probability of the second; None for a score.
    :raises SpecificationError: there are not as many classes as probabilities.
    """
    import numpy as np

    table = np.asarray(answers, dtype=float)
    table = table[:, None] if table.ndim == 1 else table
    columns: dict[str, Any] = {PREDICTION: table[:, -1]} if classes is None or table.shape[1] == 1 else {}
    if classes is None:
        return columns
    if table.shape[1] == 1 and len(classes) == 2:
        table = np.column_stack([1 - table[:, 0], table[:, 0]])
    elif table.shape[1] != len(classes):
        raise SpecificationError(f"an answer has {table.shape[1]} numbers, but there are {len(classes)} classes")
    else:
        columns.update({probability_name(name): table[:, place] for place, name in enumerate(classes)})
    known = np.isfinite(table).all(axis=1)
    filled = np.nan_to_num(table)
    columns[CONFIDENCE] = np.where(known, filled.max(axis=1), np.nan)
    columns[PREDICTED_LABEL] = np.where(known, np.array(list(classes), dtype=object)[filled.argmax(axis=1)], None)
    return columns
