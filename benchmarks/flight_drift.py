"""Does the drift that the sensor finds in the flights cost the model anything, and does a retrain help?

    python benchmarks/flight_drift.py [--first 2013-01,2013-02,2013-03] [--window 3] [--rows 4000] [--seeds 0,1]

Trains a champion on the first months with the training script itself, then takes month after month: the sensor's
verdict on a sample of its flights, the champion's log loss, and that of challengers trained on the `window` months (and
on all months) before it. Prints the tables of training_scripts/flight_delays/README.md.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "training_scripts" / "flight_delays"
sys.path.insert(0, str(SCRIPTS))

import numpy as np  # noqa: E402

import inference  # noqa: E402
import measures  # noqa: E402
from airflow_dlaws.drift.columns import count_columns  # noqa: E402
from airflow_dlaws.drift.comparison import Aspect  # noqa: E402
from airflow_dlaws.drift.counts import TrafficCounts  # noqa: E402
from airflow_dlaws.drift.outputs import answer_columns  # noqa: E402
from airflow_dlaws.drift.profile import ReferenceProfile, parse_profile  # noqa: E402
from airflow_dlaws.drift.sequence import Evidence, advance  # noqa: E402
from airflow_dlaws.drift.settings import DriftSettings  # noqa: E402
from airflow_dlaws.drift.verdict import assess  # noqa: E402
from airflow_dlaws.local.demo import flights  # noqa: E402


class Trained:
    """A model of some months, trained by the script in a process of its own."""

    def __init__(self, files: dict[str, Path], months: list[str], seed: int) -> None:
        with tempfile.TemporaryDirectory() as name:
            data, out = Path(name, "data"), Path(name, "model")
            for month in months:
                (data / f"month={month}").mkdir(parents=True)
                (data / f"month={month}" / "flights.csv").symlink_to(files[month].resolve())
            command = [sys.executable, "train.py", "--train", str(data), "--model-dir", str(out), "--seed", str(seed)]
            environment = {**os.environ, "PYTHONPATH": str(SCRIPTS.parent)}
            subprocess.run(command, cwd=SCRIPTS, env=environment, check=True, stdout=subprocess.DEVNULL)
            self.model = inference.load(str(out))
            self.reference = parse_profile((out / "drift_reference.json").read_text())

    def scores(self, rows: list[list[str]]) -> np.ndarray:
        """Return the probability for each row of features."""
        columns = dict(zip(self.model.features, map(list, zip(*rows, strict=True)), strict=True))
        return self.model.probabilities(columns)


def read(path: Path) -> tuple[np.ndarray, list[list[str]]]:
    """Return (labels, rows of features)."""
    rows = [line.split(",") for line in path.read_text().splitlines()[1:]]
    return np.array([float(row[0]) for row in rows]), [row[1:] for row in rows]


def counted(reference: ReferenceProfile, rows: list[list[str]], scores: np.ndarray) -> TrafficCounts:
    """Return these requests and answers in the cells of the reference."""
    columns = dict(zip(reference.feature_order, zip(*rows, strict=True), strict=True))
    counts = count_columns(reference, columns, answer_columns(scores, reference.classes))
    now = datetime(2013, 1, 1, tzinfo=UTC)
    return replace(counts, requests=len(rows), first=now, last=now)


def gain(labels: np.ndarray, champion: np.ndarray, challenger: np.ndarray) -> str:
    """Return the paired difference in log loss (above zero: the challenger is better) with its 95 % interval."""
    difference = _row_loss(labels, champion) - _row_loss(labels, challenger)
    margin = 1.96 * difference.std(ddof=1) / math.sqrt(len(labels))
    return f"{difference.mean():+.4f} ±{margin:.4f}"


def _row_loss(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    return -np.where(labels == 1, np.log(scores), np.log1p(-scores))


def every(rows: list, count: int) -> list:
    """Return `count` rows spread evenly over all."""
    step = max(1.0, len(rows) / count)
    return [rows[int(place * step)] for place in range(min(count, len(rows)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", default="2013-01,2013-02,2013-03")
    parser.add_argument("--window", type=int, default=3)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--small", type=int, default=1000, help="rows of a look in order of time, for comparison")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--until", default="2013-12")
    parser.add_argument("--drift-only", action="store_true", help="leave out the challengers, which take minutes")
    args = parser.parse_args()
    files = flights.monthly_files(ROOT / ".dlaws" / "cache")
    data = {month: read(path) for month, path in files.items()}
    first = args.first.split(",")
    later = [month for month in files if first[-1] < month <= args.until]
    for seed in map(int, args.seeds.split(",")):
        champion = Trained(files, first, seed)
        print(f"\nchampion of {', '.join(first)}, seed {seed}\n")
        drift_table(champion, data, later, args)
        if not args.drift_only:
            quality_table(champion, files, data, later, seed, args.window)


def drift_table(champion: Trained, data: dict, later: list[str], args: argparse.Namespace) -> None:
    """Print the effect on each column by month, the verdict, and how many smaller looks in order of time fire."""
    settings = DriftSettings(min_rows=min(args.rows, args.small))
    names = [profile.name for profile in champion.reference.watched]
    print(f"| month | {' | '.join(names)} | verdict | looks of {args.small} in order of time that fire |")
    print("|---" * (len(names) + 3) + "|")
    evidence = Evidence()
    for month in later:
        rows = every(data[month][1], args.rows)
        scores = champion.scores(rows)
        counts = counted(champion.reference, rows, scores)
        # The last windows together are the sensor's too; the table shows the effects of the month alone.
        before, (evidence, verdict) = evidence, advance(champion.reference, evidence, counts, settings)
        alone = assess(champion.reference, counts, settings)
        shift = {each.feature: each.effect for each in alone.comparisons if each.aspect is Aspect.DISTRIBUTION}
        parts = [slice(start, start + args.small) for start in range(0, len(rows) - args.small + 1, args.small)]
        windows = [counted(champion.reference, rows[part], scores[part]) for part in parts]
        small = [advance(champion.reference, before, window, settings)[1] for window in windows]
        fired = [",".join(each.drifted) for each in small if each.is_drift]
        told = f"drift: {', '.join(verdict.drifted)}" if verdict.is_drift else verdict.outcome
        row = [month, *(f"{shift.get(name, 0):.3f}" for name in names), told, f"{len(fired)} of {len(small)}"]
        print("| " + " | ".join(row) + " |" + (f" {'; '.join(fired)}" if fired else ""), flush=True)


def quality_table(champion: Trained, files: dict, data: dict, later: list[str], seed: int, window: int) -> None:
    """Print log loss and AUC of champion and challengers by month."""
    print(
        f"\n| month | champion log loss | AUC | last {window} months | AUC | gain | all months | gain |\n"
        + "|---" * 8
        + "|"
    )
    months = list(files)
    for month in later:
        labels, rows = data[month]
        before = months[: months.index(month)]
        old = champion.scores(rows)
        recent = Trained(files, before[-window:], seed).scores(rows)
        everything = Trained(files, before, seed).scores(rows)
        row = [month, f"{measures.log_loss(labels, old):.4f}", f"{measures.auc(labels, old):.3f}"]
        row += [f"{measures.log_loss(labels, recent):.4f}", f"{measures.auc(labels, recent):.3f}"]
        row += [
            gain(labels, old, recent),
            f"{measures.log_loss(labels, everything):.4f}",
            gain(labels, old, everything),
        ]
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
