"""Builds a reference profile out of columns, with numpy. What a training container writes has the same contract.

profile = build_profile(
    {"delay": delays, "carrier": carriers}, categorical={"carrier"}, created=now,
    answers=probabilities, classes=("on time", "late"), labels=labels, components=8,
)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_dlaws.data.coded import Coded
from airflow_dlaws.drift.arrays import distinct
from airflow_dlaws.drift.cells import (
    DEFAULT_CELLS,
    CategoricalProfile,
    FeatureProfile,
    NumericProfile,
    require,
)
from airflow_dlaws.drift.outputs import answer_columns
from airflow_dlaws.drift.profile import CONFIDENCE, PREDICTED_LABEL, Calibration, ReferenceProfile
from airflow_dlaws.drift.representation import COLUMNS, Matrix, PcaProfile
from airflow_dlaws.drift.values import category_of, number_of
from airflow_dlaws.errors import SpecificationError

if TYPE_CHECKING:
    from airflow_dlaws.drift.arrays import Column

#: The name of the representation of the request columns.
PCA = "pca"

#: Rows that components are fitted on at most, and that are projected at once: more make them no better, and a table of
#: a million rows is not copied as a whole.
_MOST_FITTED = 50_000


def build_profile(
    columns: Mapping[str, Sequence[object] | Any],
    *,
    created: datetime,
    categorical: Collection[str] = (),
    cells: int = DEFAULT_CELLS,
    answers: Any = None,
    classes: Sequence[str] | None = None,
    labels: Sequence[object] | None = None,
    components: int = 0,
    seed: int = 0,
) -> ReferenceProfile:
    """Profile a table, and where given the model's answers.

    :param columns: the request's columns in order, each of n values (numbers, texts, None) or a numpy array.
    :param categorical: the columns that are categories; the others are numbers.
    :param answers: what the model answers for held-out rows: an array of h scores, or h x k of probabilities.
    :param classes: the k classes in the order of the answer; for a single score the two classes it decides between.
    :param labels: the true classes of the held-out rows, as they stand in `classes`; they calibrate the confidence.
    :param components: principal components of the numeric columns to keep, whose reconstruction error is watched; 0
        for none. They are fitted on at most half of the rows, and their error is profiled on the others.
    :param seed: for the halves.
    :raises SpecificationError: columns differ in length, or a value of a numeric column is no number.
    """
    lengths = {name: len(values) for name, values in columns.items()}
    require(len(set(lengths.values())) == 1, "columns", f"need the same number of rows; they have {lengths}")
    numeric = {name: numbers_of(name, values) for name, values in columns.items() if name not in categorical}
    outputs = _outputs(answers, classes, cells)
    return ReferenceProfile(
        created=created,
        rows=next(iter(lengths.values())),
        feature_order=tuple(columns),
        features=tuple(
            categorical_profile(name, values)
            if name in categorical
            else numeric_profile(name, numeric[name], cells=cells)
            for name, values in columns.items()
        ),
        classes=None if classes is None else tuple(classes),
        outputs=outputs,
        representation=(_components(numeric, components, cells, seed),) if components else (),
        calibration=None if labels is None else _calibrate(outputs, answers, classes, labels),
    )


def numeric_profile(name: str, values: Iterable[object] | Any, *, cells: int = DEFAULT_CELLS) -> NumericProfile:
    """Profile the values of one numeric column.

    :raises SpecificationError: a value is no number.
    """
    import numpy as np

    numbers = numbers_of(name, values)
    present = numbers[np.isfinite(numbers)]
    edges = _edges(present, cells)
    counts = np.bincount(np.digitize(present, edges), minlength=len(edges) + 1)
    return NumericProfile(
        name=name,
        edges=tuple(edges.tolist()),
        counts=tuple(counts.tolist()),
        missing=int(len(numbers) - len(present)),
        low=float(present.min()) if len(present) else None,
        high=float(present.max()) if len(present) else None,
    )


def _edges(present: Any, cells: int) -> Any:
    """Return what `cells.quantile_edges` does, without a step for each value."""
    import numpy as np

    distinct, counts = np.unique(present, return_counts=True)
    upto, edges, filled = np.cumsum(counts), [], 0
    while len(distinct):
        # The first value at which the cell is full: (upto - filled) * cells >= n.
        at = int(np.searchsorted(upto, filled + len(present) / cells - 1e-9))
        if at >= len(distinct) - 1:
            break
        edges.append(distinct[at] / 2 + distinct[at + 1] / 2)
        filled = int(upto[at])
    return np.unique(np.array(edges, dtype=float))


def numbers_of(name: str, values: Iterable[object] | Any) -> Any:
    """Return the values as an array of float64; NaN where one is missing.

    :raises SpecificationError: a value is neither a number nor missing.
    """
    import numpy as np

    if isinstance(values, np.ndarray) and values.dtype.kind in "fiub":
        numbers = values.astype(float)
        return np.where(np.isfinite(numbers), numbers, np.nan)
    if isinstance(values, Coded):
        values = values.texts()
    try:
        return np.array([np.nan if (number := number_of(value)) is None else number for value in values], dtype=float)
    except ValueError as error:
        raise SpecificationError(f"drift reference, {name}: {error}; name the column as categorical") from error


def categorical_profile(name: str, values: Column) -> CategoricalProfile:
    """Profile the values of one categorical column."""
    counts: dict[str, int] = {}
    missing = 0
    for value, count in distinct(values):
        category = category_of(value)
        if category is None:
            missing += count
        else:
            counts[category] = counts.get(category, 0) + count
    return CategoricalProfile(name=name, counts=dict(sorted(counts.items())), missing=missing)


def _outputs(answers: Any, classes: Sequence[str] | None, cells: int) -> tuple[FeatureProfile, ...]:
    if answers is None:
        return ()
    return tuple(
        categorical_profile(name, values) if name == PREDICTED_LABEL else numeric_profile(name, values, cells=cells)
        for name, values in answer_columns(answers, classes).items()
    )


def _calibrate(
    outputs: Sequence[FeatureProfile], answers: Any, classes: Sequence[str] | None, labels: Sequence[object]
) -> Calibration:
    """Count how often the predicted label is right, by the cell of the confidence."""
    import numpy as np

    require(answers is not None and classes is not None, "calibration", "labels need answers and classes")
    columns = answer_columns(answers, classes)
    right = np.array([category_of(label) for label in labels], dtype=object) == columns[PREDICTED_LABEL]
    confidence = next(each for each in outputs if each.name == CONFIDENCE)
    assert isinstance(confidence, NumericProfile)
    cell = np.digitize(columns[CONFIDENCE][right], confidence.edges)
    counted = np.bincount(cell, minlength=len(confidence.counts))
    return Calibration(output=CONFIDENCE, correct=tuple(counted.tolist()))


def _components(numeric: Mapping[str, Any], count: int, cells: int, seed: int) -> PcaProfile:
    import numpy as np

    def table(rows: Any) -> Any:
        return np.column_stack([column[rows] for column in numeric.values()])

    order = np.random.RandomState(seed).permutation(len(next(iter(numeric.values()))))
    half = min(len(order) // 2, _MOST_FITTED)
    mean, scale, axes = fit_components(table(order[:half]), count)
    components = Matrix.of(axes)
    pieces = [np.sort(order[start : start + _MOST_FITTED]) for start in range(half, len(order), _MOST_FITTED)]
    errors = [reconstruction_error(table(rows), mean, scale, components.array()) for rows in pieces]
    return PcaProfile(
        source=COLUMNS,
        columns=tuple(numeric),
        mean=tuple(mean.tolist()),
        scale=tuple(scale.tolist()),
        components=components,
        error=numeric_profile(PCA, np.concatenate(errors), cells=cells),
    )


def fit_components(table: Any, count: int, *, least_scale: float = 0.0) -> tuple[Any, Any, Any]:
    """Return mean (d), scale (d) and the first `count` principal components (k x d) of a table (n x d).

    Each column is scaled by its own standard deviation, whatever its unit; one that does not vary by 1.

    :param least_scale: for columns of one unit, such as pixels: what the scale of each is at least, in parts of the
        mean scale. One that hardly ever moves would otherwise make every row in which it moves an outlier.
    """
    import numpy as np

    mean = np.nan_to_num(np.nanmean(table, axis=0))
    spread = np.nan_to_num(np.nanstd(table, axis=0))
    scale = np.maximum(spread, least_scale * spread.mean())
    scale[scale == 0] = 1.0
    standard = np.nan_to_num((table - mean) / scale)
    _, axes = np.linalg.eigh(standard.T @ standard)
    return mean, scale, axes[:, ::-1][:, :count].T


def reconstruction_error(table: Any, mean: Any, scale: Any, axes: Any) -> Any:
    """Return the root mean square of what the components leave of each row; a missing value counts as the mean."""
    import numpy as np

    standard = np.nan_to_num((table - np.asarray(mean)) / np.asarray(scale))
    left = standard - (standard @ axes.T) @ axes
    return np.sqrt(np.mean(left**2, axis=1))
