"""Is drift believed? False alarms, power and delay of the drift verdict, beside the tools that teams use.

    make bench-drift [SEED=0] [DATASET=digits]      DATASET: digits, mnist5k or flights

digits   One look at batches of 50 to 500 of five kinds, 400 of each, beside Evidently's default; 500 looks at healthy
         traffic, 200 times; delay of the alarm beside ADWIN, KSWIN and a fixed threshold of the stability index.
mnist5k  The protocol of Failing Loudly: ten families of shifts, 10 to 10,000 rows, beside BBSDs (KS of the softmax).
flights  The months of 2013 against the first three, and how often healthy samples of the same months fire.

Writes benchmarks/results/drift_DATASET.json, one entry for each seed (and number of batches where --batches gives one,
so that a trial leaves the figures alone). Exits 1 where a bar is missed: false alarms of at
most 5 % at every n and over all looks (the point estimate), detection of at least 97 % at n = 200, the shortest mean
delay, and no less power than BBSDs by more than twice the standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

# One thread for each process: they share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import drift_flights
import drift_peers
import drift_power
import drift_streams
import drift_table
from drift_data import ROOT, Images, digits, mnist5k
from drift_models import train
from drift_shifts import WARPS, Bank

RESULTS = ROOT / "benchmarks" / "results"
#: Repetitions that Evidently judges too: 1,600 batches take it some minutes.
PEER_BATCHES = 40
RUNS, CALIBRATION_STREAMS, STREAMS = 200, 200, 40
BATCHES, POWER_REPETITIONS, LARGE_REPETITIONS, FLIGHT_BATCHES = 400, 10, 3, 200

#: The models of this run, for the processes forked from this one.
_banks: list[Bank] = []
_numbers: list[drift_streams.Numbers] = []


def prepare(images: Images, seed: int, models: int) -> None:
    """Train the models, a few at a time."""
    for number in range(models):
        model = train(images, 1000 * seed + number)
        _banks.append(Bank(images, model, seed))
    accuracies = [bank.model.accuracy for bank in _banks]
    print(f"{images.name}: {models} models, accuracy {min(accuracies):.3f} to {max(accuracies):.3f}", flush=True)


def spread(work: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Run the jobs in forked processes, one a core; return what they return, in order."""
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("fork")) as pool:
        return list(pool.map(work, *zip(*jobs, strict=True), chunksize=max(1, len(jobs) // 64)))


def _table(seed: int, number: int, keep: bool) -> drift_table.Repetition:
    return drift_table.repeat(_banks[number % len(_banks)], seed, number, keep)


def _looks(seed: int, number: int) -> int | None:
    return drift_streams.first_alarm(_banks[number % len(_banks)], seed, number)


def _stream(seed: int, number: int, shifted: bool) -> drift_streams.Stream:
    at = number % len(_banks)
    return drift_streams.run_stream(
        _banks[at], _numbers[at], seed, number, drift_streams.SHIFTS if shifted else {}
    )  # fmt: skip


def _power(seed: int, number: int, large: bool) -> list[drift_power.Judged]:
    return drift_power.repeat(_banks[number % len(_banks)], seed, number, large)


def run_digits(chosen: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Run the parts asked for on the digits."""
    prepare(digits(drift_peers.site_packages("evidently")), chosen.seed, drift_table.MODELS)
    figures, missed = dict[str, Any](), list[str]()
    for part in chosen.parts:
        figures[part], found = PARTS[part](chosen, folder)
        missed += found
    return figures, missed


def run_table(chosen: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Judge single batches, beside Evidently."""
    kept = spread(_table, [(chosen.seed, number, True) for number in range(PEER_BATCHES)])
    peer = drift_table.start_evidently(kept, folder)
    rest = spread(_table, [(chosen.seed, number, False) for number in range(PEER_BATCHES, chosen.batches or BATCHES)])
    ours = drift_table.shares([*kept, *rest])
    wait_for(peer, folder / "evidently.log")
    peers = drift_table.peer_shares(folder / "evidently.json")
    drift_table.show(ours, peers, PEER_BATCHES + len(rest))
    return {"batches": PEER_BATCHES + len(rest), "ours": ours, "evidently": peers}, drift_table.misses(ours)


def run_looks(chosen: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Look at healthy traffic again and again."""
    first = spread(_looks, [(chosen.seed, number) for number in range(RUNS)])
    alarms = [look for look in first if look is not None]
    ever = len(alarms) / RUNS
    print(f"\n{len(alarms)} of {RUNS} runs of {drift_streams.LOOKS} looks at healthy traffic ever alarm ({ever:.1%})")
    missed = [f"{ever:.1%} of the runs of repeated looks ever alarm, the bar is {drift_streams.RATE:.0%}"]
    figures = {"runs": RUNS, "looks": drift_streams.LOOKS, "rows": drift_streams.LOOK_ROWS, "ever": ever}
    return {**figures, "first_alarms": alarms}, missed if ever > drift_streams.RATE else []


def run_delays(chosen: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Run ours and the peers over the same streams."""
    _numbers.extend(map(drift_streams.Numbers.of, _banks))
    calibration = spread(_stream, [(chosen.seed, number, False) for number in range(CALIBRATION_STREAMS)])
    streams = spread(_stream, [(chosen.seed, 10_000 + number, True) for number in range(STREAMS)])
    drift_streams.write_river(calibration, streams, folder / "river.npz")
    peer = drift_peers.start("river", "drift_river.py", folder / "river.npz", folder / "river.json")
    rows = drift_streams.delays_of(streams)
    for length in drift_streams.PSI_WINDOWS:
        rows[f"PSI of the last {length}"] = drift_streams.psi_delays(calibration, streams, length)
    wait_for(peer, folder / "river.log")
    rows |= drift_streams.read_river(folder / "river.json")
    summaries = {name: drift_streams.summary(row) for name, row in rows.items()}
    drift_streams.show(summaries)
    return summaries, drift_streams.misses(summaries)


def wait_for(peer: subprocess.Popen[str], log: Path) -> None:
    """Wait for a peer's process; end with its last words where it failed."""
    if peer.wait():
        raise SystemExit(f"the peer failed: {log.read_text()[-2000:]}")


PARTS = {"table": run_table, "looks": run_looks, "delays": run_delays}


def run_mnist5k(chosen: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Run the protocol of Failing Loudly."""
    prepare(mnist5k(), chosen.seed, drift_power.MODELS)
    for bank in _banks:
        for how in ("adversarial", *WARPS):
            bank.changed(how)
    jobs = [(chosen.seed, number, False) for number in range(chosen.batches or POWER_REPETITIONS)]
    jobs += [(chosen.seed, 10_000 + number, True) for number in range(LARGE_REPETITIONS)]
    judged = [one for part in spread(_power, jobs) for one in part]
    table = drift_power.powers(judged)
    drift_power.show(table)
    return {"power": {"families": table}}, drift_power.gaps(table)


def run_flights(chosen: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Run the months of 2013."""
    figures = drift_flights.run(chosen.seed, chosen.batches or FLIGHT_BATCHES)
    drift_flights.show(figures)
    return figures, drift_flights.misses(figures)


RUNNERS = {"digits": run_digits, "mnist5k": run_mnist5k, "flights": run_flights}


def save(dataset: str, name: str, document: dict[str, Any]) -> Path:
    """Put this run beside those of other seeds."""
    path = RESULTS / f"drift_{dataset}.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    kept[name] = {**kept.get(name, {}), **document}
    path.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    return path


def main() -> int:
    """Run one data set, print its tables, write its file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dataset", choices=sorted(RUNNERS), default="digits")
    parser.add_argument("--parts", nargs="+", choices=sorted(PARTS), default=list(PARTS), help="of the digits")
    parser.add_argument(
        "--batches", type=int, help="of each kind; 400 digits, 10 for each shift of mnist5k, 200 flights"
    )
    chosen = parser.parse_args()
    began = datetime.now(UTC)
    (ROOT / ".dlaws" / "tmp").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / ".dlaws" / "tmp") as folder:
        figures, missed = RUNNERS[chosen.dataset](chosen, Path(folder))
    about = {
        "date": began.date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "seconds": round((datetime.now(UTC) - began).total_seconds()),
        "misses": missed,
    }
    document = {part: {**about, **found} for part, found in figures.items()}
    name = f"seed {chosen.seed}" + (f", {chosen.batches} batches" if chosen.batches else "")
    path = save(chosen.dataset, name, document)
    print("\n" + ("\n".join(f"MISSED: {miss}" for miss in missed) or "every bar is kept") + f"\nfigures: {path}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
