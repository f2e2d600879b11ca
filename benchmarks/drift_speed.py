"""What does one drift check cost, and does it find as much? `dlaws drift compare` beside the tools people use.

    make bench-drift-speed [SEED=0]
    python benchmarks/drift_speed.py [--seed 0] [--only tables,embeddings,power] [--permutations 100]

tables      a reference of 1,000,000 x 25 (20 numbers, 5 categories) and 100,000 current rows, six columns of which have
            changed, in Parquet: ours against its stored profile; Evidently's data drift preset and the stability index
            with polars, which read the reference each time
embeddings  10,000 x 512 against 10,000 x 512, float32: ours, and alibi-detect's MMD with permutations
power       false alarms and power of both on small batches of five shifts, each batch with a reference of its own

CPU is user + system of the whole process with its imports, memory its peak (wait4, from a small process); the median of
several runs, one for peers that take minutes. Each peer has a virtual environment of its own under .dlaws, made at the
first run. Exits 1 where a figure misses its bar. Takes about fifteen minutes of CPU, nearly all of it alibi-detect's
and Evidently's.
"""

from __future__ import annotations

import argparse
import compileall
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import drift_peers
from airflow_dlaws.drift.embedding import build_embedding, count_images, discrepancy

ROOT = Path(__file__).parent.parent
HOME = ROOT / ".dlaws" / "bench-drift-speed"
RESULT = ROOT / "benchmarks" / "results" / "drift_speed.json"
ROWS, CURRENT_ROWS = 1_000_000, 100_000
VECTORS, DIMENSION = 10_000, 512
#: Shares of Evidently's CPU and memory, of alibi-detect's CPU, and CPU seconds, that may be used.
EVIDENTLY_CPU, EVIDENTLY_MEMORY, ALIBI_CPU, EMBEDDING_CPU_S = 1 / 80, 1 / 8, 1 / 50, 4.0
ALPHA = 0.05
#: Batches for false alarms and for each shift; rows of a batch and of its reference.
HEALTHY, SHIFTED, BATCH, REFERENCE = 100, 40, 100, 300
RUNS = 5


#: Starts the program and waits for it. A process's peak memory includes that of the process it was forked from, and
#: this one has made the data: a small one stands between.
_BETWEEN = """
import json, os, subprocess, sys
process = subprocess.Popen(sys.argv[2:])
_, status, used = os.wait4(process.pid, 0)
with open(sys.argv[1], "w") as file:
    json.dump([os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss / 1024], file)
"""


def measure(command: list[str], runs: int = 1) -> dict[str, Any]:
    """Run a program several times; return its median CPU seconds, peak megabytes, and what it printed last."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    cpu, peak, answer = [], [], None
    for _ in range(runs):
        with tempfile.NamedTemporaryFile("r") as used:
            between = [sys.executable, "-S", "-c", _BETWEEN, used.name, *command]
            text = subprocess.run(
                between, stdout=subprocess.PIPE, text=True, cwd=HOME, env=environment, check=True
            ).stdout
            code, seconds, megabytes = json.load(used)
        answer = _last_line(text)
        if code not in (0, 1) or (code == 1 and answer is None):  # 1 is drift, and a traceback
            raise SystemExit(f"{command} ended with {code}: {text[-2000:]}")
        cpu.append(seconds)
        peak.append(megabytes)
    return {
        "cpu_s": round(statistics.median(cpu), 3), "peak_mb": round(statistics.median(peak), 1), "runs": runs,
        "printed": answer,
    }  # fmt: skip


def _last_line(text: str) -> Any:
    """Return the JSON in the last line, behind whatever a library prints; None where there is none."""
    lines = text.strip().splitlines()
    return json.loads(lines[-1]) if lines and lines[-1].startswith("{") else None


def peer(name: str) -> list[str]:
    """Return the command that runs a peer, in its own virtual environment."""
    python = drift_peers.environment(name) / "bin" / "python"
    return [str(python), str(ROOT / "benchmarks" / "drift_speed_peers.py")]


def ours(*arguments: str) -> list[str]:
    """Return our command."""
    return [sys.executable, "-m", "airflow_dlaws.cli", "drift", *arguments]


def make_tables(random: np.random.Generator) -> None:
    """Write the reference and the current rows."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    draws = [random.standard_normal, random.standard_exponential, lambda n: random.gamma(2.0, size=n),
             lambda n: random.standard_t(5, size=n)]  # fmt: skip
    for name, rows, changed in (("reference", ROWS, False), ("current", CURRENT_ROWS, True)):
        table: dict[str, Any] = {f"f{at:02d}": draws[at % 4](rows) for at in range(20)}
        if changed:
            table["f00"] += 0.1
            table["f04"] *= 1.25
            table["f08"] += 0.05
            table["f12"][random.random(rows) < 0.05] = np.nan
        for at, kinds in enumerate((4, 8, 12, 20, 50)):
            share = 1 / np.arange(1, kinds + 1)
            share /= share.sum()
            if changed and at < 2:
                share = 0.9 * share + 0.1 * np.roll(share, 1)
            table[f"c{at}"] = np.array([f"value_{kind}" for kind in range(kinds)])[random.choice(kinds, rows, p=share)]
        parquet.write_table(pa.table(table), HOME / f"{name}.parquet")


CHANGED = ["c0", "c1", "f00", "f04", "f08", "f12"]


def bench_tables(seed: int, _: int) -> tuple[dict[str, Any], list[str]]:
    """Measure the check of a table."""
    make_tables(np.random.default_rng(seed))
    built = measure([*ours("profile", "reference.parquet", "-o", "reference.json")])
    rows = {
        "ours": measure(ours("compare", "reference.json", "current.parquet", "--json"), RUNS),
        "polars PSI": measure([*peer("polars"), "polars", "reference.parquet", "current.parquet"], RUNS),
        "Evidently": measure([*peer("evidently"), "evidently", "reference.parquet", "current.parquet"]),
    }
    verdict = rows["ours"].pop("printed")
    tests = verdict["comparisons"]
    significant = {test["feature"] for test in tests if test["adjusted_p"] <= verdict["level"]}
    found = {
        "ours": {"outcome": verdict["outcome"], "drifted": sorted(verdict["drifted"]), "tests": len(tests),
                 "significant": sorted(significant)},
        **{name: row.pop("printed") for name, row in rows.items() if "printed" in row},
    }  # fmt: skip
    mine, evidently, polars = rows["ours"], rows["Evidently"], rows["polars PSI"]
    bars = {
        f"CPU is at most 1/{1 / EVIDENTLY_CPU:.0f} of Evidently's": mine["cpu_s"] <= evidently["cpu_s"] * EVIDENTLY_CPU,
        "memory is at most 1/8 of Evidently's": mine["peak_mb"] <= evidently["peak_mb"] * EVIDENTLY_MEMORY,
        "CPU is below polars'": mine["cpu_s"] < polars["cpu_s"],
        "memory is below polars'": mine["peak_mb"] < polars["peak_mb"],
        "all six changed columns are significant": set(CHANGED) <= significant,
        "no other column is": significant <= {*CHANGED, "pca"},
    }
    profile = {"cpu_s": built["cpu_s"], "peak_mb": built["peak_mb"],
               "bytes": (HOME / "reference.json").stat().st_size}  # fmt: skip
    ratios = {
        "Evidently CPU": evidently["cpu_s"] / mine["cpu_s"],
        "Evidently memory": evidently["peak_mb"] / mine["peak_mb"],
    }
    return {
        "figures": rows, "building the profile once": profile, "found": found,
        "times as much": {name: round(value, 1) for name, value in ratios.items()}, "bars": bars,
    }, _missed(bars)  # fmt: skip


class Cloud:
    """Embeddings as networks make them: ten classes, and variance that falls from direction to direction."""

    def __init__(self, random: np.random.Generator, dimension: int) -> None:
        self.random, self.dimension = random, dimension
        self._spread = 1 / np.sqrt(np.arange(1, dimension + 1))
        self._turn = np.linalg.qr(random.standard_normal((dimension, dimension)))[0]
        self._centres = 0.7 * random.standard_normal((10, dimension)) * self._spread

    def draw(self, rows: int, share_of_first: float = 0.1) -> np.ndarray:
        """Return rows; `share_of_first` of them are of the first class."""
        shares = np.array([share_of_first, *[(1 - share_of_first) / 9] * 9])
        which = self.random.choice(10, size=rows, p=shares)
        noise = 0.7 * self.random.standard_normal((rows, self.dimension)) * self._spread
        return ((self._centres[which] + noise) @ self._turn).astype(np.float32)

    def shifted(self, shift: str, rows: int) -> np.ndarray:
        """Return rows of changed embeddings."""
        found = self.draw(rows, 0.22 if shift == "class" else 0.1)
        if shift == "mean":
            found += np.float32(0.011)
        elif shift == "scale":
            found *= np.float32(1.07)
        elif shift == "part":
            hit = self.random.random(rows) < 0.1
            found[hit] += self.random.standard_normal((hit.sum(), self.dimension)).astype(np.float32) * 0.2
        elif shift == "dimensions":
            found[:, :8] += np.float32(0.08)
        return found


def bench_embeddings(seed: int, permutations: int) -> tuple[dict[str, Any], list[str]]:
    """Measure the check of embeddings."""
    cloud = Cloud(np.random.default_rng(seed), DIMENSION)
    for name in ("reference", "current"):
        np.save(HOME / f"{name}.npy", cloud.draw(VECTORS))
    built = measure(ours("profile", "reference.npy", "-o", "embedding.json"))
    mine = measure(ours("compare", "embedding.json", "current.npy", "--json"), RUNS)
    theirs = measure([*peer("alibi"), "alibi", "reference.npy", "current.npy", str(permutations)])
    verdict, p_value = mine.pop("printed"), theirs.pop("printed")["p_value"]
    bars = {
        f"CPU is at most {EMBEDDING_CPU_S} s": mine["cpu_s"] <= EMBEDDING_CPU_S,
        f"CPU is at most 1/{1 / ALIBI_CPU:.0f} of alibi-detect's": mine["cpu_s"] <= theirs["cpu_s"] * ALIBI_CPU,
    }
    profile = {"cpu_s": built["cpu_s"], "peak_mb": built["peak_mb"], "bytes": (HOME / "embedding.json").stat().st_size}
    return {
        "figures": {"ours": mine, f"alibi-detect MMD, {permutations} permutations": theirs},
        "building the profile once": profile,
        "found": {"ours": {"outcome": verdict["outcome"], "p": verdict["comparisons"][0]["p_value"]},
                  "alibi-detect": {"p": p_value}},
        "times as much": {"alibi-detect CPU": round(theirs["cpu_s"] / mine["cpu_s"], 1)}, "bars": bars,
    }, _missed(bars)  # fmt: skip


SHIFTS = ("none", "mean", "scale", "class", "part", "dimensions")


def bench_power(seed: int, permutations: int) -> tuple[dict[str, Any], list[str]]:
    """Compare false alarms and power on the same batches."""
    cloud = Cloud(np.random.default_rng(seed + 1), DIMENSION)
    count = {shift: HEALTHY if shift == "none" else SHIFTED for shift in SHIFTS}
    references = np.stack([cloud.draw(REFERENCE) for _ in range(HEALTHY)])
    batches = {shift: np.stack([cloud.shifted(shift, BATCH) for _ in range(count[shift])]) for shift in SHIFTS}
    np.savez(HOME / "batches.npz", reference=references, **batches)
    mine: dict[str, list[float]] = {shift: [] for shift in SHIFTS}
    # By reference, whose frequencies are drawn once.
    for number, rows in enumerate(references):
        profile = build_embedding("embedding", rows, seed=number)
        for shift in SHIFTS:
            for batch in batches[shift][number : number + 1]:
                mine[shift].append(discrepancy(profile, count_images(profile, batch)).p_value)
    theirs = measure([*peer("alibi"), "alibi-power", "batches.npz", str(permutations)])["printed"]
    found = {
        shift: {"ours": _share(mine[shift]), "alibi-detect": _share(theirs[shift]),
                "only ours": _only(mine[shift], theirs[shift]), "only alibi-detect": _only(theirs[shift], mine[shift])}
        for shift in SHIFTS
    }  # fmt: skip
    changed = [found[shift] for shift in SHIFTS[1:]]
    total = {name: statistics.fmean(row[name] for row in changed) for name in ("ours", "alibi-detect")}
    most = _most_by_chance(HEALTHY, ALPHA)
    bars = {
        f"false alarms are at most {most} of {HEALTHY} ({ALPHA:.0%} and chance)": found["none"]["ours"] * HEALTHY
        <= most,
        "power over all shifts is no less than alibi-detect's": total["ours"] >= total["alibi-detect"],
        "no shift is found significantly less often": all(
            _sign_test(row["only alibi-detect"], row["only ours"]) > ALPHA / len(changed) for row in changed
        ),
    }
    return {
        "alpha": ALPHA, "rows of a batch": BATCH, "rows of its reference": REFERENCE, "dimension": DIMENSION,
        "permutations": permutations, "share of batches called drift": found,
        "power over all shifts": {name: round(value, 3) for name, value in total.items()}, "bars": bars,
    }, _missed(bars)  # fmt: skip


def _share(p_values: list[float]) -> float:
    return round(statistics.fmean(p <= ALPHA for p in p_values), 4)


def _only(first: list[float], second: list[float]) -> int:
    """Return how many batches the first finds and the second does not."""
    return sum(a <= ALPHA < b for a, b in zip(first, second, strict=True))


def _sign_test(hits: int, misses: int) -> float:
    """Return the chance of at least so many hits among all where both are equally likely."""
    total = hits + misses
    return sum(math.comb(total, k) for k in range(hits, total + 1)) / 2**total


def _most_by_chance(tries: int, rate: float) -> int:
    """Return the most hits that have at least a chance of 1 %."""
    tail, hits = 1.0, 0
    while tail >= 0.01:
        tail -= math.comb(tries, hits) * rate**hits * (1 - rate) ** (tries - hits)
        hits += 1
    return hits - 1


def _missed(bars: dict[str, bool]) -> list[str]:
    return [bar for bar, held in bars.items() if not held]


SECTIONS: dict[str, Callable[[int, int], tuple[dict[str, Any], list[str]]]] = {
    "tables": bench_tables, "power": bench_power, "embeddings": bench_embeddings,
}  # fmt: skip


def save(section: str, document: dict[str, Any]) -> None:
    """Put this section beside the others."""
    RESULT.parent.mkdir(exist_ok=True)
    kept = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    RESULT.write_text(json.dumps({**kept, section: document}, indent=1, sort_keys=True) + "\n")


def main() -> int:
    """Measure, print, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas between")
    parser.add_argument("--permutations", type=int, default=100)
    chosen = parser.parse_args()
    HOME.mkdir(parents=True, exist_ok=True)
    # What users have; without it imports would cost two to three times as much.
    compileall.compile_dir(ROOT / "airflow_dlaws", quiet=1)
    missed = []
    for section in chosen.only.split(","):
        figures, misses = SECTIONS[section](chosen.seed, chosen.permutations)
        machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
        when = {"date": datetime.now(UTC).date().isoformat(), "seed": chosen.seed, "machine": machine}
        save(section, {**when, **figures})
        print(f"\n{section}")
        for name, row in figures.get("figures", figures.get("share of batches called drift", {})).items():
            print(f"  {name:44} " + "  ".join(f"{key} {value}" for key, value in row.items()))
        print("".join(f"  {'held  ' if held else 'MISSED'} {bar}\n" for bar, held in figures["bars"].items()))
        missed += misses
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
