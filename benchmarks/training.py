"""What the shared runtime costs: each training script beside a bare torch loop on the same data, model and batch.

    python benchmarks/training.py [--seed 0] [--dataset audio_speakers] [--rounds 5]

For each script, in turns so that a noisy machine disturbs both alike: a bare loop (shuffle, index, forward, backward,
step, nothing else: it can neither be stopped nor resumed) and sm_runtime.fit with checkpoints, in one process with one
thread. Bar: at most 3 % more, by the median over the turns. On processors this is CPU time of the whole process (the
thread that writes checkpoints included), as other work on a shared machine spoils the wall clock; on a GPU wall time.
Samples a second are by the wall clock. Then 1 against 2 gloo processes with one thread each, and
where there is a CUDA GPU, float32 against bfloat16 and torch.compile. Exits 1 where a script misses the bar.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "training_scripts"
sys.path.insert(0, str(SCRIPTS))

import sm_runtime  # noqa: E402
from airflow_dlaws.local.demo import flights, mnist, snippets, vowels  # noqa: E402
from sm_runtime import optimizers  # noqa: E402
from sm_runtime.ranks import Group  # noqa: E402

CACHE = ROOT / ".dlaws" / "cache"
RESULTS = ROOT / "benchmarks" / "results" / "training.json"
#: Of the bare loop's time: what stopping, resuming, reporting and exact sharing may cost.
BAR = 0.03
#: Seconds that an epoch of the measurement takes at least: shorter ones measure the clock.
LEAST_S = 2.0


@dataclass(frozen=True)
class Spent:
    """Seconds by the wall clock, and of the processor."""

    wall: float
    cpu: float


class Watch:
    """Takes the time from its making."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def stop(self) -> Spent:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return Spent(time.perf_counter() - self._wall, time.process_time() - self._cpu)


@dataclass(frozen=True)
class Case:
    """A script's data, network and loss, as its train.py sets them up."""

    tensors: tuple[torch.Tensor, ...]
    network: Callable[[], torch.nn.Module]
    loss: Callable[[torch.nn.Module, tuple[torch.Tensor, ...]], torch.Tensor]
    batch_size: int
    clip_norm: float | None
    channels: dict[str, Path]


def folder_module(example: str, name: str) -> Any:
    """Import NAME.py of an example; every folder has an inference.py, so one after the other."""
    folder = str(SCRIPTS / example)
    sys.path.insert(0, folder)
    for other in ("inference", "tables", "preprocessing", "measures", "snippets", "utterances", "images", "baseline"):
        sys.modules.pop(other, None)
    try:
        spec = importlib.util.spec_from_file_location(f"{example}_{name}", f"{folder}/{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(folder)


def image_classifier() -> Case:
    train = folder_module("image_classifier", "train")
    files = mnist.split_files(CACHE)
    data = train.images.read(str(files["train"].parent))
    tensors = torch.from_numpy(data.pixels), torch.from_numpy(data.labels)
    return Case(
        tensors,
        lambda: train.inference.Network(16, 0.25),
        lambda model, batch: cross_entropy(model(train.move(batch[0], 1)), batch[1], reduction="none"),
        64,
        None,
        {split: files[split].parent for split in ("train", "validation")},
    )


def flight_delays() -> Case:
    train = folder_module("flight_delays", "train")
    month = flights.monthly_files(CACHE)["2013-01"].parent
    rows = train.tables.read(str(month))
    shape = {"hidden": [128, 64], "embed": 8, "dropout": 0.1}
    learned = train.preprocessing.learn(rows, ["hour", "weekday", "carrier", "origin", "dest"], shape)
    encoder = train.inference.Encoder(learned)
    tensors = (*encoder(rows.columns), torch.from_numpy(rows.labels))
    return Case(
        tensors,
        lambda: train.inference.Network(encoder.width, encoder.embeddings, len(encoder.places), **shape),
        lambda model, batch: binary_cross_entropy_with_logits(model(*batch[:2]), batch[2], reduction="none"),
        1024,
        None,
        {"train": month},
    )


def audio_speakers() -> Case:
    train = folder_module("audio_speakers", "train")
    files = vowels.split_files(CACHE)
    data = train.utterances.read(str(files["train"].parent))
    return Case(
        (data.frames, data.lengths, data.labels),
        lambda: train.inference.Network(32, 1, 0.3),
        lambda model, batch: train.loss(model, batch, 0.6),
        16,
        1.0,
        {split: files[split].parent for split in ("train", "validation")},
    )


def text_sentiment() -> Case:
    train = folder_module("text_sentiment", "train")
    files = snippets.split_files(CACHE)
    data = train.snippets.read(str(files["train"].parent))
    vocabulary = train.snippets.choose_vocabulary(data.texts, 2)
    places, lengths = data.encode(vocabulary)
    few = slice(0, 4000)
    return Case(
        (places[few], lengths[few], data.ratings[few]),
        lambda: train.inference.Network(len(vocabulary) + 2, 64, 64, 0.4),
        lambda model, batch: mse_loss(model(batch[0][:, : int(batch[1].max())], batch[1]), batch[2], reduction="none"),
        64,
        1.0,
        {split: files[split].parent for split in ("train", "validation")},
    )


CASES = {case.__name__: case for case in (flight_delays, image_classifier, audio_speakers, text_sentiment)}


def bare(case: Case, epochs: int, seed: int, device: torch.device) -> Spent:
    """Train as anybody would without any of the runtime; return what it took."""
    torch.manual_seed(seed)
    network = case.network().to(device)
    optimizer = optimizers.make("adamw", network.parameters(), learning_rate=1e-3)
    tensors = [tensor.to(device) for tensor in case.tensors]
    count = len(tensors[0])
    watch = Watch()
    for _ in range(epochs):
        for chosen in torch.randperm(count, device=device).split(case.batch_size):
            loss = case.loss(network, tuple(tensor.index_select(0, chosen) for tensor in tensors)).mean()
            optimizer.zero_grad()
            loss.backward()
            if case.clip_norm:
                torch.nn.utils.clip_grad_norm_(network.parameters(), case.clip_norm)
            optimizer.step()
    return watch.stop()


class Quiet:
    """Keeps what the runtime reports, instead of printing it."""

    def __enter__(self) -> list[dict[str, float]]:
        self.lines: list[dict[str, float]] = []
        self._report = sm_runtime.loop.report
        sm_runtime.loop.report = self.lines.append
        return self.lines

    def __exit__(self, *exception: object) -> None:
        sm_runtime.loop.report = self._report


def ours(case: Case, epochs: int, seed: int, **changes: Any) -> tuple[Spent, dict[str, float]]:
    """Train through the runtime, checkpoints included; return what it took and the last line of metrics."""
    environment = sm_runtime.read_environment({})
    settings = {"clip_norm": case.clip_norm, **changes}
    plan = sm_runtime.Plan(epochs=epochs, batch_size=case.batch_size, seed=seed, deterministic=False, **settings)
    group = Group(environment)
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    task = sm_runtime.Task(
        model=case.network(),
        optimizer=lambda model: optimizers.make("adamw", model.parameters(), learning_rate=1e-3),
        data=sm_runtime.Tensors(*case.tensors).to(group.device),
        loss=case.loss,
    )
    with tempfile.TemporaryDirectory() as folder, Quiet() as lines:
        watch = Watch()
        sm_runtime.fit(plan, group, task, checkpoint_dir=folder)
        return watch.stop(), lines[-1]


def measure(name: str, case: Case, rounds: int, seed: int) -> dict[str, Any]:
    """Take turns, and return medians."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    epochs = max(2, round(LEAST_S / bare(case, 1, seed, device).cpu))
    pairs: list[tuple[Spent, Spent]] = []
    line: dict[str, float] = {}
    for number in range(rounds + 1):
        if number % 2:
            theirs = bare(case, epochs, seed, device)
            mine, line = ours(case, epochs, seed)
        else:
            mine, line = ours(case, epochs, seed)
            theirs = bare(case, epochs, seed, device)
        if number:  # the first turn warms caches up
            pairs.append((theirs, mine))
    samples = len(case.tensors[0]) * epochs
    bare_s, ours_s = (statistics.median(spent.wall for spent in column) for column in zip(*pairs, strict=True))
    # Of the two loops of one turn, so that a machine that slows down between turns counts for neither.
    wall = statistics.median(mine.wall / theirs.wall - 1 for theirs, mine in pairs)
    overhead = wall if device.type == "cuda" else statistics.median(mine.cpu / theirs.cpu - 1 for theirs, mine in pairs)
    print(f"{name:18} {samples / bare_s:10.0f} {samples / ours_s:10.0f} {overhead:9.1%}", end="", flush=True)
    print(f" {line['data_wait_share']:9.1%} {line['checkpoint_stall_share']:9.2%}", end="", flush=True)
    return {
        "epochs": epochs,
        "bare_samples_per_second": round(samples / bare_s, 1),
        "samples_per_second": round(samples / ours_s, 1),
        "overhead": round(overhead, 4),
        "overhead_wall": round(wall, 4),
        "turns_wall_s": [[round(theirs.wall, 3), round(mine.wall, 3)] for theirs, mine in pairs],
        "turns_cpu_s": [[round(theirs.cpu, 3), round(mine.cpu, 3)] for theirs, mine in pairs],
        "data_wait_share": line["data_wait_share"],
        "checkpoint_stall_share": line["checkpoint_stall_share"],
    }


def scaling(name: str, case: Case, seed: int) -> float:
    """Return how many times as many samples a second two processes train as one, in the script itself."""
    rates = []
    for processes in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
            options = {**case.channels, "model-dir": folder, "epochs": 2, "seed": seed}
            words = [str(word) for option, value in options.items() for word in (f"--{option}", value)]
            command = [sys.executable, *launcher, str(SCRIPTS / name / "train.py"), *words]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPTS)}
            run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        lines = [json.loads(text)["dlaws_metrics"] for text in run.stdout.splitlines() if "dlaws_metrics" in text]
        rates.append([line["samples_per_second"] for line in lines if "train:loss" in line][-1])
    print(f" {rates[1] / rates[0]:8.2f}", flush=True)
    return round(rates[1] / rates[0], 3)


def gpu(case: Case, seed: int) -> dict[str, float]:
    """Return samples a second on the GPU by precision, with and without torch.compile."""
    rows = {}
    for precision in ("float32", "bfloat16"):
        for compiled in (False, True):
            ours(case, 1, seed, precision=precision, compile=compiled)
            spent, _ = ours(case, 4, seed, precision=precision, compile=compiled)
            rows[f"{precision}{', compiled' if compiled else ''}"] = round(4 * len(case.tensors[0]) / spent.wall, 1)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dataset", choices=CASES, help="one script only; all if left out")
    parser.add_argument("--rounds", type=int, default=7, help="turns of the bare loop and ours")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    print(f"{'':18} {'bare/s':>10} {'ours/s':>10} {'overhead':>9} {'waiting':>9} {'stall':>9} {'2 procs':>8}")
    results: dict[str, Any] = {}
    for name in [args.dataset] if args.dataset else CASES:
        case = CASES[name]()
        results[name] = measure(name, case, args.rounds, args.seed)
        results[name]["two_processes"] = scaling(name, case, args.seed)
        if torch.cuda.is_available():
            results[name]["gpu_samples_per_second"] = gpu(case, args.seed)
            print(f"{'':18} {results[name]['gpu_samples_per_second']}")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    print(f"GPU: {device}" if device else "No CUDA GPU at hand: no rows for bfloat16 and torch.compile.")
    document = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "gpu": device,
        "machine": f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "bar": BAR,
        "seed": args.seed,
        "load": round(os.getloadavg()[0], 2),
        "scripts": results,
    }
    if not args.dataset:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(document, indent=1) + "\n")
    missed = [name for name, row in results.items() if row["overhead"] > BAR]
    print(f"missed the bar of {BAR:.0%}: {', '.join(missed)}" if missed else f"all within {BAR:.0%} of a bare loop")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
