"""The flights of 2013 by month against the first three months: what drifts when, and does health look healthy?

The rows of January to March are split in two: on one half the training script trains the model, from the other half
each repetition draws a reference of 20,000 rows, and the healthy batches from what is left of it. The batches of a
later month are random rows of that month.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from airflow_dlaws.local.demo import flights
from drift_data import ROOT
from drift_ours import Look, Watch

FIRST = ("2013-01", "2013-02", "2013-03")
SIZES = (200, 1000, 4000)
REFERENCE_ROWS = 20_000
#: Repetitions that judge the later months too; health needs more to tell 5 % from 3 %.
MONTH_REPETITIONS = 20
HEALTHY, MOST_FALSE = "healthy", 0.05
CLASSES = ("on time", "late")
SCRIPTS = ROOT / "training_scripts" / "flight_delays"

Table = dict[str, np.ndarray]


def read(path: Path) -> Table:
    """Return the columns of a month, as texts."""
    header, *rows = (line.split(",") for line in path.read_text().splitlines())
    return dict(zip(header, np.array(rows, dtype=object).T, strict=True))


def train(table: Table, seed: int) -> Any:
    """Train with the training script; return what its handler loads."""
    with tempfile.TemporaryDirectory() as name:
        data, out = Path(name, "data"), Path(name, "model")
        data.mkdir()
        rows = zip(*table.values(), strict=True)
        (data / "flights.csv").write_text("\n".join(map(",".join, [list(table), *rows])) + "\n")
        command = [sys.executable, "train.py", "--train", str(data), "--model-dir", str(out), "--seed", str(seed)]
        environment = {**os.environ, "PYTHONPATH": str(SCRIPTS.parent)}
        subprocess.run(command, cwd=SCRIPTS, env=environment, check=True, stdout=subprocess.DEVNULL)
        sys.path[:0] = [str(SCRIPTS), str(SCRIPTS.parent)]
        import inference

        return inference.load(str(out))


def take(table: Table, places: np.ndarray) -> Table:
    """Return these rows."""
    return {name: values[places] for name, values in table.items()}


def run(seed: int, repetitions: int) -> dict[str, Any]:
    """Judge healthy batches and those of each later month."""
    months = {month: read(path) for month, path in flights.monthly_files(ROOT / ".dlaws" / "cache").items()}
    first = {name: np.concatenate([months[month][name] for month in FIRST]) for name in flights.COLUMNS}
    order = np.random.default_rng([seed, 7]).permutation(len(first[flights.LABEL]))
    model = train(take(first, order[: len(order) // 2]), seed)
    held_out = take(first, order[len(order) // 2 :])
    tables = {HEALTHY: held_out, **{month: table for month, table in months.items() if month not in FIRST}}
    scores = {name: model.probabilities(table) for name, table in tables.items()}
    looks: dict[tuple[str, int], list[Look]] = {}
    for number in range(repetitions):
        rng = np.random.default_rng([seed, number, 8])
        rows = rng.permutation(len(scores[HEALTHY]))
        own, pool = rows[:REFERENCE_ROWS], rows[REFERENCE_ROWS:]
        numeric = set(model.encoder.numeric)
        watch = Watch.of_table(
            _features(take(held_out, own), numeric), scores[HEALTHY][own], CLASSES, set(model.features) - numeric
        )
        for name in tables if number < MONTH_REPETITIONS else (HEALTHY,):
            for n in SIZES:
                places = rng.choice(pool if name == HEALTHY else len(scores[name]), n, replace=False)
                columns = _features(take(tables[name], places), numeric)
                looks.setdefault((name, n), []).append(watch.look(watch.table_counts(columns, scores[name][places])))
    return summary(looks)


def _features(table: Table, numeric: set[str]) -> Table:
    return {
        name: np.array([float(text or "nan") for text in values]) if name in numeric else values
        for name, values in table.items()
        if name != flights.LABEL
    }


def summary(looks: Mapping[tuple[str, int], list[Look]]) -> dict[str, Any]:
    """Return by month and n the share of batches called drift, and the columns most often named."""
    out: dict[str, Any] = {}
    for (name, n), found in looks.items():
        named = Counter(column for look in found for column in look.drifted)
        out.setdefault(name, {})[str(n)] = {
            "drift": round(sum(look.drift for look in found) / len(found), 4),
            "inconclusive": round(sum(look.inconclusive for look in found) / len(found), 4),
            "batches": len(found),
            "named": {column: round(count / len(found), 3) for column, count in named.most_common(4)},
        }
    return {"months": {"shares": out}}


def misses(figures: Mapping[str, Any]) -> list[str]:
    """Return where healthy batches are called drift too often."""
    return [
        f"{cell['drift']:.1%} of the healthy batches of {n} are called drift, the bar is {MOST_FALSE:.0%}"
        for n, cell in figures["months"]["shares"][HEALTHY].items()
        if cell["drift"] > MOST_FALSE
    ]


def show(figures: Mapping[str, Any]) -> None:
    """Print the table."""
    print(f"\n| month | {' | '.join(f'drift at n = {n}' for n in SIZES)} | named at n = {SIZES[-1]} |")
    print("|---|" + "---|" * (len(SIZES) + 1))
    for name, cells in figures["months"]["shares"].items():
        named = ", ".join(f"{column} {share:.2f}" for column, share in cells[str(SIZES[-1])]["named"].items())
        shares = [f"{cells[str(n)]['drift']:.3f}" for n in SIZES]
        print(f"| {name} | " + " | ".join([*shares, named or "none"]) + " |")
