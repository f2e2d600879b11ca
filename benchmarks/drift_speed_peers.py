"""The peers of drift_speed.py, each run by the Python of its own virtual environment. Prints one JSON object.

drift_speed_peers.py evidently|polars REF.parquet CURRENT.parquet
drift_speed_peers.py alibi REF.npy CURRENT.npy PERMUTATIONS
drift_speed_peers.py alibi-power BATCHES.npz PERMUTATIONS
"""

import itertools
import json
import math
import sys


def evidently(reference: str, current: str) -> dict:
    """Evidently's data drift preset, as it comes."""
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    frames = [pd.read_parquet(path) for path in (current, reference)]
    numbers = list(frames[0].select_dtypes("number").columns)
    texts = [name for name in frames[0].columns if name not in numbers]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=texts)
    data = [Dataset.from_pandas(frame, data_definition=definition) for frame in frames]
    found = Report([DataDriftPreset()]).run(*data).dict()
    drifted, methods = [], set()
    for metric in found["metrics"]:
        settings = metric.get("config", {})
        if "column" not in settings:
            continue
        method, threshold = str(settings.get("method", "")), settings.get("threshold")
        methods.add(method)
        value = float(metric["value"])
        beyond = value < threshold if "p_value" in method else value >= threshold
        if beyond:
            drifted.append(settings["column"])
    return {"drifted": drifted, "methods": sorted(methods), "of": len(found["metrics"]) - 1}


def polars(reference: str, current: str) -> dict:
    """Population stability index of each column on ten quantile bins of the reference, one column at a time."""
    import polars as pl

    schema, index = pl.read_parquet_schema(reference), {}
    for name, kind in schema.items():
        before, now = (pl.read_parquet(path, columns=[name]).get_column(name) for path in (reference, current))
        missing = [before.null_count(), now.null_count()]
        if kind.is_numeric():
            missing = [each.is_nan().sum() + nulls for each, nulls in zip((before, now), missing, strict=True)]
            before, now = (each.fill_nan(None).drop_nulls().sort() for each in (before, now))
            edges = sorted({before[int(len(before) * part / 10)] for part in range(1, 10)})
            places = [
                [0, *each.search_sorted(pl.Series(edges), side="left").to_list(), len(each)] for each in (before, now)
            ]
            counts = [[right - left for left, right in itertools.pairwise(each)] for each in places]
        else:
            tables = [dict(each.drop_nulls().value_counts().iter_rows()) for each in (before, now)]
            values = sorted({*tables[0], *tables[1]})
            counts = [[table.get(value, 0) for value in values] for table in tables]
        index[name] = psi(*([*cells, lost] for cells, lost in zip(counts, missing, strict=True)))
    return {"drifted": [name for name, value in index.items() if value >= 0.1], "psi": index}


def psi(before: list[int], now: list[int]) -> float:
    """Return the index of two rows of counts, half a row added to each cell."""
    shares = [[(count + 0.5) / (sum(row) + len(row) / 2) for count in row] for row in (before, now)]
    return sum((n - b) * math.log(n / b) for b, n in zip(*shares, strict=True))


def alibi(reference: str, current: str, permutations: str) -> dict:
    """alibi-detect's MMD with its PyTorch backend."""
    import numpy as np
    from alibi_detect.cd import MMDDrift

    test = MMDDrift(np.load(reference), backend="pytorch", p_val=0.05, n_permutations=int(permutations))
    return {"p_value": float(test.predict(np.load(current))["data"]["p_val"])}


def alibi_power(batches: str, permutations: str) -> dict:
    """Return the p-value of each batch (shift by shift), against the reference in the same file."""
    import numpy as np
    import torch
    from alibi_detect.cd import MMDDrift

    # Matrices of a few hundred rows are faster on one thread.
    torch.set_num_threads(1)
    with np.load(batches) as file:
        data = {name: file[name] for name in file.files}
    references, found = data.pop("reference"), {}
    for shift, stack in data.items():
        found[shift] = []
        # Fewer batches are shifted than are healthy: the references that are left over are for those.
        for number, (reference, rows) in enumerate(zip(references, stack, strict=False)):
            torch.manual_seed(number)
            test = MMDDrift(reference, backend="pytorch", p_val=0.05, n_permutations=int(permutations))
            found[shift].append(float(test.predict(rows)["data"]["p_val"]))
    return found


if __name__ == "__main__":
    run = {"evidently": evidently, "polars": polars, "alibi": alibi, "alibi-power": alibi_power}[sys.argv[1]]
    print(json.dumps(run(*sys.argv[2:])))
