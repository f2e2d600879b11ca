"""What the encoder of inference.py needs, and what the drift sensor watches, learned from the training rows."""

import numpy as np

import inference
import tables
from sm_runtime import drift_profile

#: Inner edges a number is cut at, for the network.
NUMBER_BINS = 16


def learn(rows: tables.Table, categorical: list[str], network: dict) -> dict:
    """Return edges and means of numbers, the values of categories, and the network's shape."""
    if unknown := [name for name in categorical if name not in rows.columns]:
        raise SystemExit(f"--categorical names {unknown}; the features are {list(rows.columns)}")
    numeric = {name: learn_number(name, rows) for name in rows.columns if name not in categorical}
    values = {name: sorted({value.strip() for value in rows.columns[name]} - {""}) for name in categorical}
    return {"numeric": numeric, "categorical": values, "network": network}


def learn_number(name: str, rows: tables.Table) -> dict:
    """Return mean and edges of a number."""
    try:
        values = inference.to_numbers(name, rows.columns[name])
    except ValueError as error:
        raise SystemExit(f"{error}: list it in --categorical if it is none") from None
    known = values[~np.isnan(values)]
    if not len(known):
        raise SystemExit(f"{name} is missing in all {len(rows)} training rows: leave the column out")
    edges = [known.min(), *drift_profile.quantile_edges(known, NUMBER_BINS), known.max()]
    return {"mean": float(known.mean()), "edges": [float(edge) for edge in np.unique(edges)]}


def drift_reference(rows: tables.Table, numeric: dict, scores: np.ndarray, labels: np.ndarray) -> dict:
    """Profile the training rows, and the probabilities (n, rounded as the handler answers them) of held-out rows.

    :param labels: what the held-out rows came to (n, 0 or 1).
    """
    numbers = {name: inference.to_numbers(name, rows.columns[name]) for name in numeric}
    features = [
        drift_profile.numeric(name, numbers[name]) if name in numbers else drift_profile.categorical(name, values)
        for name, values in rows.columns.items()
    ]
    together = len(numbers) >= 2 and len(rows) >= 4
    return drift_profile.document(
        rows=len(rows),
        feature_order=list(rows.columns),
        features=features,
        representation=[drift_profile.pca("pca", list(numbers), np.stack([*numbers.values()], axis=1))]
        if together
        else [],
        **drift_profile.classifier(scores.round(inference.DIGITS), ["0", "1"], labels.astype(int)),
    )
