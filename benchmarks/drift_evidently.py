"""Evidently's default verdict on batches of numbers. Runs in Evidently's virtual environment; imports nothing of ours.

    python drift_evidently.py IN.npz OUT.json

IN holds `reference/NAME` (B x R x d) and `current/NAME/CELL` (B x n x d). For each NAME and CELL, OUT tells how many of
the B batches are called drifted by the default of DataDriftPreset: at least half of the columns that vary in the
reference. A report takes half a minute, nearly all of it for plots, so the tests of the columns are called without
it: the ones that the library chooses by default. For each NAME one whole report is made, and its number of drifted
columns has to be the same.
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from evidently import Report
from evidently.legacy.calculations.stattests import get_stattest
from evidently.legacy.core import ColumnType
from evidently.presets import DataDriftPreset

SHARE = DataDriftPreset().drift_share


def frames(reference, current):
    """Return both as frames of the columns that vary in the reference."""
    varying = np.flatnonzero(reference.std(0) > 0)
    return [pd.DataFrame(rows[:, varying], columns=[f"p{at}" for at in varying]) for rows in (reference, current)]


def drifted_columns(reference, current):
    """Return how many columns the default tests call drifted, and of how many."""
    found = []
    for name in reference:
        test = get_stattest(reference[name], current[name], ColumnType.Numerical, None)
        found.append(bool(test(reference[name], current[name], ColumnType.Numerical, None).drifted))
    return sum(found), len(found)


def reported_columns(reference, current):
    """Return the same from a whole report."""
    metrics = Report([DataDriftPreset()]).run(current, reference).dict()["metrics"]
    return int(metrics[0]["value"]["count"])


def main(source, target):
    """Judge every batch."""
    warnings.filterwarnings("ignore")
    batches, out = np.load(source), {}
    for key in batches.files:
        kind, name, *cell = key.split("|")
        if kind != "current":
            continue
        pairs = [frames(*pair) for pair in zip(batches[f"reference|{name}"], batches[key], strict=True)]
        if name not in out:
            assert reported_columns(*pairs[0]) == drifted_columns(*pairs[0])[0], "the shortcut is not the report"
        counts = [drifted_columns(*pair) for pair in pairs]
        alarms = [count >= SHARE * columns for count, columns in counts]
        any_column = [count > 0 for count, _ in counts]
        out.setdefault(name, {})[cell[0]] = {"batches": len(alarms), "drift": sum(alarms), "any": sum(any_column)}
        print(name, cell[0], out[name][cell[0]], flush=True)
    Path(target).write_text(json.dumps(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
