"""The drift reference that a training script writes beside its model: what the traffic of a healthy model looks like.

airflow_dlaws/drift/profile.py states the format and reads it; this builds it in a container that has numpy alone:

    drift_profile.document(
        rows=len(table), feature_order=names,
        features=[drift_profile.numeric("delay", delays), drift_profile.categorical("carrier", carriers)],
        representation=[drift_profile.pca("pca", ["delay", "distance"], numbers)],
        **drift_profile.classifier(probabilities, ["0", "1"], labels),
    )

Features may be profiled on training rows. What the model answers must be of HELD-OUT rows: a model is surer of rows it
was trained on, and healthy traffic would look drifted. For the same reason `pca` profiles its error on other rows than
it is fitted on.
"""

import base64
import datetime
from collections.abc import Sequence

import numpy as np

FORMAT = "dlaws-drift-reference/2"
#: A Kolmogorov-Smirnov test on so many cells loses next to nothing against one on values, and the last hundredth of the
#: rows has a cell of its own.
CELLS = 128
#: What stands for "no value" in a request, in lower case: as airflow_dlaws/drift/values.py has it.
MISSING_WORDS = {"", "nan", "na", "n/a", "null", "none", "inf", "-inf", "+inf", "infinity", "-infinity"}

#: Share of the variance that the principal components keep; what they leave is where noise and new patterns show.
KEPT_VARIANCE = 0.9
#: 64 components of 784 pixels take 270 kB.
MOST_COMPONENTS = 64
#: More rows make the components no better, and are worth more in the profile of the error.
MOST_ROWS_TO_FIT = 20_000


def document(
    *,
    rows: int,
    feature_order: Sequence[str],
    features: Sequence[dict],
    classes: Sequence[str] | None = None,
    outputs: Sequence[dict] = (),
    calibration: dict | None = None,
    representation: Sequence[dict] = (),
    embeddings: Sequence[dict] = (),
) -> dict:
    """Return the reference, ready for `json.dump`.

    :param rows: how many rows the features were profiled on.
    :param feature_order: the columns of a request; `features` are those to watch.
    :param classes: and `outputs` and `calibration`: of `classifier` or `regressor`.
    :param embeddings: of `drift_embedding.embedding`.
    """
    return {
        "format": FORMAT,
        "created": datetime.datetime.now(datetime.UTC).isoformat(),
        "rows": rows,
        "feature_order": list(feature_order),
        "features": list(features),
        "classes": None if classes is None else list(classes),
        "outputs": list(outputs),
        "representation": list(representation),
        "embeddings": list(embeddings),
        "calibration": calibration,
    }


def numeric(name: str, values: np.ndarray, cells: int = CELLS) -> dict:
    """Count numbers (n; NaN and infinite are missing) in cells that hold about as many each."""
    values = np.asarray(values, dtype=float)
    known = values[np.isfinite(values)]
    edges = quantile_edges(known, cells)
    return {
        "name": name,
        "kind": "numeric",
        "edges": edges,
        "counts": np.bincount(np.digitize(known, edges), minlength=len(edges) + 1).tolist(),
        "missing": len(values) - len(known),
        "low": float(known.min()) if len(known) else None,
        "high": float(known.max()) if len(known) else None,
    }


def categorical(name: str, values: Sequence[str]) -> dict:
    """Count categories, as texts without surrounding blanks."""
    found, counts = np.unique([value.strip() for value in values], return_counts=True)
    seen = dict(zip(found.tolist(), counts.tolist(), strict=True))
    missing = sum(seen.pop(word) for word in list(seen) if word.lower() in MISSING_WORDS)
    return {"name": name, "kind": "categorical", "counts": seen, "missing": missing}


def quantile_edges(known: np.ndarray, cells: int) -> list[float]:
    """Return inner edges of cells that hold about as many values each, halfway between two values that occur."""
    values, counts = np.unique(known, return_counts=True)
    passed, edges, filled = np.cumsum(counts), [], 0
    while True:
        last = int(np.searchsorted(passed * cells, filled * cells + len(known)))  # of this cell, as an index
        if last + 1 >= len(values):
            return sorted(set(edges))
        edges.append(float(values[last] / 2 + values[last + 1] / 2))
        filled = passed[last]


def classifier(probabilities: np.ndarray, classes: Sequence[str], labels: np.ndarray | None = None) -> dict:
    """Return `classes`, `outputs` and `calibration` of a classifier's answers to held-out rows.

    :param probabilities: n x classes, as the handler answers them (rounded alike); or n, of the second of two classes.
    :param labels: the right class of each row (n, its place in `classes`), for estimating the accuracy from confidence.
    """
    several = probabilities.ndim == 2
    each = probabilities if several else np.stack([1 - probabilities, probabilities], axis=1)
    highest, confidence = each.argmax(axis=1), numeric("confidence", each.max(axis=1))
    scores = zip(classes, each.T, strict=True) if several else []
    outputs = [numeric(f"probability[{name}]", values) for name, values in scores]
    outputs += [] if several else [numeric("prediction", probabilities)]
    outputs += [confidence, categorical("predicted_label", [classes[place] for place in highest])]
    calibration = None
    if labels is not None:
        right = each.max(axis=1)[highest == labels]
        correct = np.bincount(np.digitize(right, confidence["edges"]), minlength=len(confidence["counts"]))
        calibration = {"output": "confidence", "correct": correct.tolist()}
    return {"classes": list(classes), "outputs": outputs, "calibration": calibration}


def regressor(scores: np.ndarray) -> dict:
    """Return `outputs` of a regression's answers (n) to held-out rows."""
    return {"outputs": [numeric("prediction", scores)]}


def pca(
    name: str, columns: Sequence[str], rows: np.ndarray, *, one_scale: bool = False, source: str = "columns"
) -> dict:
    """Fit principal components to a half of the rows, and profile what they miss of the others.

    :param rows: n x d, n at least 4 and d at least 2; NaN is missing.
    :param one_scale: columns in one unit, such as pixels: each would be blown up to the same spread otherwise.
    :param source: the name of a vector that the model answers, where the rows are such; `columns` are [] then.
    """
    rows = np.asarray(rows, dtype=float)
    if rows.ndim != 2 or rows.shape[0] < 4 or rows.shape[1] < 2:
        raise ValueError(f"the rows of {name!r} are {list(rows.shape)}; send n x d, n at least 4 and d at least 2")
    order = np.random.default_rng(0).permutation(len(rows))  # files are often sorted
    half = min(len(rows) // 2, MOST_ROWS_TO_FIT)
    fit, others = rows[order[:half]], rows[order[half:]]
    mean, scale = column_scale(fit, one_scale)
    components = np.float32(principal_components(standardized(fit, mean, scale)))
    return {
        "name": name,
        "kind": "pca",
        "source": source,
        "columns": list(columns),
        "mean": mean.tolist(),
        "scale": scale.tolist(),
        "components": matrix(components),
        "error": numeric(name, reconstruction_error(standardized(others, mean, scale), components.astype(float))),
    }


def column_scale(rows: np.ndarray, one_scale: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of each column and its standard deviation (1 where that is 0), without what is missing."""
    known = np.isfinite(rows)
    many = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, rows, 0).sum(axis=0) / many
    variance = np.where(known, rows - mean, 0) ** 2
    spread = np.sqrt(variance.sum(axis=0) / many)
    if one_scale:
        spread[:] = np.sqrt(variance.sum() / many.sum())
    return mean, np.where(spread > 0, spread, 1)


def standardized(rows: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(rows), (rows - mean) / scale, 0)


def principal_components(rows: np.ndarray) -> np.ndarray:
    """Return as many components (k x d, at least one and fewer than d) as keep most of the variance."""
    variances, vectors = np.linalg.eigh(rows.T @ rows)
    kept = np.cumsum(variances[::-1]) / max(variances.sum(), np.finfo(float).tiny)
    many = min(int(np.searchsorted(kept, KEPT_VARIANCE)) + 1, MOST_COMPONENTS, rows.shape[1] - 1)
    return vectors[:, ::-1][:, :many].T


def reconstruction_error(rows: np.ndarray, components: np.ndarray) -> np.ndarray:
    """Return the root of the mean square of what the components miss of each row."""
    missed = rows - rows @ components.T @ components
    return np.sqrt(np.square(missed).mean(axis=1))


def matrix(values: np.ndarray) -> dict:
    """Return a matrix (rows x columns) as the reference keeps it."""
    return {"shape": list(values.shape), "float32": base64.b64encode(values.astype("<f4").tobytes()).decode()}
