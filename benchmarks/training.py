"""What the shared runtime costs: each training script beside a bare torch loop on the same data, model and batch.

    python benchmarks/training.py [--seed 0] [--dataset audio_speakers] [--part scaling]

A bare loop shuffles, indexes, goes forward and backward, and steps; it can neither be stopped nor resumed.
sm_runtime.fit does the same with checkpoints, control messages and exact sharing. Both in one process with one thread,
and in turns of about 0.03 s within one run, so that a busy machine disturbs both alike: after some steps of ours as
many of the bare loop. Bar: at most 3 % more. A round's figure is all that ours took from its first step on, the
thread that writes checkpoints and the last checkpoint included, over what as many bare steps took; the median over
the rounds counts. On processors this is CPU time, as other work on a shared machine spoils the wall clock; on a GPU it
is wall time. Both are in the file, and so is the median over neighbouring turns, which leaves checkpoints out.

Then, in two gloo processes with one thread each, in turns: one process alone and both with half a batch each, bare
(DistributedDataParallel) and ours. And where there is a CUDA GPU, float32 against bfloat16 and torch.compile.
Exits 1 where a script misses the bar. With --dataset or --part, the other results in the file are kept.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import numpy as np
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "training_scripts"))

import sm_runtime  # noqa: E402
from sm_runtime.ranks import Group  # noqa: E402
from training_cases import CASES, Case  # noqa: E402
from training_loops import STRETCH_S, Spent, Turns, bare, ours, run  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "training.json"
#: Of the bare loop's time: what stopping, resuming, reporting and exact sharing may cost.
BAR = 0.03
#: CPU seconds that ours trains in a round, which has one checkpoint at least: Young and Daly ask for no more.
ROUND_S = 10.0
#: Turns of one and two processes, and CPU seconds of each.
SCALING_ROUNDS, SCALING_S = 3, 1.5


def alone() -> Group:
    """Return the group of this process alone, with one thread."""
    group = Group(sm_runtime.read_environment({}))
    torch.set_num_threads(1)
    return group


def epochs_for(case: Case, step_s: float, seconds: float) -> int:
    """Return how many epochs take about so many seconds."""
    steps = -(-len(case.tensors[0]) // case.batch_size)
    return max(1, round(seconds / step_s / steps))


def measure(case: Case, rounds: int, seed: int) -> dict[str, Any]:
    """Take turns; return medians over the rounds."""
    group = alone()
    steps = bare(case, seed, group)
    run(steps, 5)  # the first steps allocate
    trial = run(steps, 20)
    step_s = (trial.wall if group.device.type == "cuda" else trial.cpu) / 20
    count, epochs = max(1, round(STRETCH_S / step_s)), epochs_for(case, step_s, ROUND_S)
    found: list[tuple[Spent, Spent, Turns]] = []
    line: dict[str, float] = {}
    for number in range(rounds):
        turns = Turns(bare(case, seed + number, group), count)
        _, line = ours(case, epochs, seed + number, group, turns)
        found.append((*turns.total(), turns))
    samples = epochs * len(case.tensors[0]) - case.batch_size  # without the first step, from which on it counts
    wall = statistics.median(mine.wall / theirs.wall - 1 for theirs, mine, _ in found)
    cpu = statistics.median(mine.cpu / theirs.cpu - 1 for theirs, mine, _ in found)
    return {
        "step_ms_cpu": round(step_s * 1e3, 3),
        "bare_samples_per_second": round(statistics.median(samples / theirs.wall for theirs, _, _ in found), 1),
        "samples_per_second": round(statistics.median(samples / mine.wall for _, mine, _ in found), 1),
        "overhead": round(wall if group.device.type == "cuda" else cpu, 4),
        "overhead_cpu": round(cpu, 4),
        "overhead_wall": round(wall, 4),
        "overhead_of_turns_cpu": round(statistics.median(turns.overhead("cpu") for _, _, turns in found), 4),
        "overhead_of_turns_wall": round(statistics.median(turns.overhead("wall") for _, _, turns in found), 4),
        "rounds_cpu_s": [[round(theirs.cpu, 3), round(mine.cpu, 3)] for theirs, mine, _ in found],
        "rounds_wall_s": [[round(theirs.wall, 3), round(mine.wall, 3)] for theirs, mine, _ in found],
        "turns": sum(len(turns.ours) for _, _, turns in found),
        "data_wait_share": line["data_wait_share"],
        "checkpoint_stall_share": line["checkpoint_stall_share"],
    }


def scaling(name: str, seed: int) -> dict[str, Any]:
    """Return how many times as many samples a second two processes train as one; bare and ours."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launcher, __file__, "--dataset", name, "--seed", str(seed), "--scaling"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    if done.returncode:
        raise RuntimeError(f"two processes of {name} failed: {done.stderr[-2000:]}")
    return json.loads(next(text for text in done.stdout.splitlines() if text.startswith("{")))


def scaling_process(case: Case, seed: int) -> None:
    """Be one of the two processes; the first one prints what it found. Alone, the other one waits without a CPU."""
    single, group = alone(), Group(sm_runtime.read_environment())
    torch.set_num_threads(1)
    steps = bare(case, seed, single) if group.first else None
    both = bare(case, seed, group)
    epochs = epochs_for(case, group.sum([_step_s(case, both)])[0] / group.size, SCALING_S)
    count = epochs * -(-len(case.tensors[0]) // case.batch_size)
    rows = []
    for _ in range(SCALING_ROUNDS):
        rows.append(
            {
                "bare_one": _together(group, lambda: run(steps, count), first_only=True),
                "bare_two": _together(group, lambda: run(both, count)),
                "ours_one": _together(group, lambda: ours(case, epochs, seed, single)[0], first_only=True),
                "ours_two": _together(group, lambda: ours(case, epochs, seed, group)[0]),
            }
        )
    if group.first:
        print(json.dumps(_scaled(rows)), flush=True)
    group.close()


def _step_s(case: Case, steps: Any) -> float:
    run(steps, 5)
    return run(steps, 10).cpu / 10


def _together(group: Group, work: Any, *, first_only: bool = False) -> Spent:
    """Return the longest wall time and the sum of the CPU times."""
    group.wait()
    spent = work() if group.first or not first_only else Spent(0.0, 0.0)
    group.wait()
    return Spent(group.max([spent.wall])[0], group.sum([spent.cpu])[0])


def _scaled(rows: list[dict[str, Spent]]) -> dict[str, float]:
    found = {}
    for loop in ("bare", "ours"):
        one, two = f"{loop}_one", f"{loop}_two"
        found[f"{loop}_times_as_fast"] = statistics.median(row[one].wall / row[two].wall for row in rows)
        found[f"{loop}_cpu_of_two_over_one"] = statistics.median(row[two].cpu / row[one].cpu for row in rows)
    return {name: round(value, 3) for name, value in found.items()}


def gpu(case: Case, seed: int) -> dict[str, float]:
    """Return samples a second on the GPU by precision, with and without torch.compile."""
    rows, group = {}, alone()
    for precision in ("float32", "bfloat16"):
        for compiled in (False, True):
            ours(case, 1, seed, group, precision=precision, compile=compiled)
            spent, _ = ours(case, 4, seed, group, precision=precision, compile=compiled)
            rows[f"{precision}{', compiled' if compiled else ''}"] = round(4 * len(case.tensors[0]) / spent.wall, 1)
    return rows


def overhead_row(name: str, rounds: int, seed: int) -> dict[str, Any]:
    """Measure what the runtime costs a script, and print its line of the table."""
    case, load = CASES[name](), os.getloadavg()[0]
    found = measure(case, rounds, seed)
    print(f"{name:17} {found['bare_samples_per_second']:8.0f} {found['samples_per_second']:8.0f}", end="")
    print(f" {found['overhead_cpu']:8.1%} {found['overhead_wall']:8.1%} {found['data_wait_share']:8.1%}", end="")
    print(f" {found['checkpoint_stall_share']:8.2%}", flush=True)
    if torch.cuda.is_available():
        found["gpu_samples_per_second"] = gpu(case, seed)
        print(f"{'':17} {found['gpu_samples_per_second']}")
    return {**found, "load": [round(load, 2), round(os.getloadavg()[0], 2)]}


def scaling_row(name: str, seed: int) -> dict[str, Any]:
    """Measure how a script scales, and print it."""
    load = os.getloadavg()[0]
    found = scaling(name, seed)
    print(f"{name:17} two processes: bare {found['bare_times_as_fast']:.2f} times as fast as one,", end="")
    print(f" ours {found['ours_times_as_fast']:.2f}; CPU {found['ours_cpu_of_two_over_one']:.2f} times", flush=True)
    return {"two_processes": {**found, "load": [round(load, 2), round(os.getloadavg()[0], 2)]}}


def write(name: str, found: dict[str, Any], seed: int) -> None:
    """Add what was found of a script to the file."""
    kept = json.loads(RESULTS.read_text())["scripts"] if RESULTS.exists() else {}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    document = {
        "date": today,
        "machine": f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}",
        "gpu": device or "none at hand: no rows for bfloat16 and torch.compile",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "bar": BAR,
        "judged_by": "wall time" if device else "CPU time: other work on a shared machine spoils the wall clock",
        "seed": seed,
        "scripts": {**kept, name: {**kept.get(name, {}), **found, "date": today}},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")


def overheads(names: list[str], rounds: int, seed: int) -> list[str]:
    """Measure scripts; return those that miss the bar."""
    print(f"{'':17} {'bare/s':>8} {'ours/s':>8} {'+ CPU':>8} {'+ wall':>8} {'waiting':>8} {'stall':>8}")
    missed = []
    for name in names:
        found = overhead_row(name, rounds, seed)
        write(name, found, seed)
        missed += [name] if found["overhead"] > BAR else []
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dataset", choices=CASES, help="one script only; all if left out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--part", choices=("overhead", "scaling"), help="one half only; both if left out")
    parser.add_argument("--scaling", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.scaling:
        scaling_process(CASES[args.dataset](), args.seed)
        return 0
    names = [args.dataset] if args.dataset else list(CASES)
    missed = overheads(names, args.rounds, args.seed) if args.part != "scaling" else []
    for name in names if args.part != "overhead" else ():
        write(name, scaling_row(name, args.seed), args.seed)
    if not torch.cuda.is_available():
        print("No CUDA GPU at hand: no rows for bfloat16 and torch.compile.")
    if args.part != "scaling":
        print(f"missed the bar of {BAR:.0%}: {', '.join(missed)}" if missed else f"all within {BAR:.0%} of a bare loop")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
