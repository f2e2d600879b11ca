"""A run that is killed goes on where it was: the same weights, no sample lost or repeated, at any number of processes.

Tolerances: at the same number of processes all bits are equal. At another number the same numbers are added in another
order: the mean loss of each step agrees within LOSS_TOLERANCE, each weight within WEIGHT_TOLERANCE.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import EPOCHS, SAMPLES, STEPS

from airflow_dlaws.jobs.metric_line import parse_line

HERE = Path(__file__).parent
SCRIPTS = HERE.parents[1] / "training_scripts"
#: Single precision holds 1e-7; 39 steps with momentum carry that on. Measured: below 2e-6 in both.
LOSS_TOLERANCE = WEIGHT_TOLERANCE = 2e-5


def train_and_kill(
    folder: Path, worlds: list[int], seeds: list[int], *, width: int = 32
) -> dict[int, list[dict[str, Any]]]:
    """Return the attempts of each seed; the runs without a fault lie beside them."""
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS), "OMP_NUM_THREADS": "1"}
    environment["SMALL_TRAINING_WIDTH"] = str(width)
    command = [sys.executable, str(HERE / "killing_bench.py"), str(folder), json.dumps(worlds), json.dumps(seeds)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return dict(zip(seeds, map(json.loads, done.stdout.splitlines()), strict=True))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(folder / "weights.pt", weights_only=True)
    return loaded


def bits(folder: Path) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in weights(folder).items()}


def committed(folder: Path, attempts: list[dict[str, Any]]) -> list[tuple[int, list[int]]]:
    """Return the steps whose result is in the final weights, with the samples that all processes have added.

    A step of an attempt counts unless the next attempt has begun before it.
    """
    ends = [attempt["from"] for attempt in attempts[1:]] + [STEPS]
    steps: dict[int, list[int]] = {}
    for number, (attempt, end) in enumerate(zip(attempts, ends, strict=True)):
        for rank in range(attempt["world"]):
            for line in (folder / f"steps-{number}-{rank}.txt").read_text().splitlines():
                step, *samples = map(int, line.split())
                if attempt["from"] < step <= end:
                    steps.setdefault(step, []).extend(samples)
    return sorted(steps.items())


def losses(folder: Path, attempts: int) -> dict[int, float]:
    """Return the mean loss of each step, as the last attempt that did it has reported it."""
    reported = {}
    for attempt in range(attempts):
        for line in (folder / f"log-{attempt}-0.txt").read_text().splitlines():
            metrics = parse_line(line)
            if metrics and "step" in metrics:
                reported[int(metrics["step"])] = metrics["loss"]
    return reported


def assert_every_sample_counts_once_an_epoch(steps: list[tuple[int, list[int]]]) -> None:
    assert [number for number, _ in steps] == list(range(1, STEPS + 1))
    for epoch in range(EPOCHS):
        of_epoch = steps[epoch * STEPS // EPOCHS : (epoch + 1) * STEPS // EPOCHS]
        assert Counter(sample for _, samples in of_epoch for sample in samples) == Counter(range(SAMPLES))


def assert_the_same_within_tolerance(folder: Path, attempts: int, whole: Path) -> None:
    there, here = losses(whole, 1), losses(folder, attempts)
    assert here.keys() == there.keys() == set(range(1, STEPS + 1))
    assert max(abs(here[step] - there[step]) for step in here) < LOSS_TOLERANCE
    expected = weights(whole)
    for name, tensor in weights(folder).items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=WEIGHT_TOLERANCE)


@pytest.mark.slow
def test_killed_at_a_random_step_a_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    runs = train_and_kill(tmp_path, [2, 2], list(range(20)))
    expected = bits(tmp_path / "whole-2")
    for seed, attempts in runs.items():
        folder = tmp_path / str(seed)
        assert bits(folder) == expected, (seed, attempts)
        assert losses(folder, len(attempts)) == losses(tmp_path / "whole-2", 1), seed
        assert_every_sample_counts_once_an_epoch(committed(folder, attempts))
    resumed = {attempt["from"] for attempts in runs.values() for attempt in attempts[1:]}
    assert len(resumed) > 10, "the kills came at many different steps"
    assert {attempts[0]["killed"][0] for attempts in runs.values()} == {0, 1}, "each process has been the victim"


@pytest.mark.slow
def test_killed_twice_with_three_processes_the_bits_are_the_same_too(tmp_path: Path) -> None:
    # So wide that its gradients fill buckets: with narrow layers the order of additions does not matter.
    runs = train_and_kill(tmp_path, [3, 3, 3], [1], width=301)
    for seed, attempts in runs.items():
        assert bits(tmp_path / str(seed)) == bits(tmp_path / "whole-3"), (seed, attempts)
        assert_every_sample_counts_once_an_epoch(committed(tmp_path / str(seed), attempts))


@pytest.mark.slow
def test_a_run_goes_on_with_more_or_fewer_processes(tmp_path: Path) -> None:
    for number, worlds in enumerate(([2, 1], [1, 3], [3, 2, 1])):
        runs = train_and_kill(tmp_path / str(number), worlds, [number])
        for seed, attempts in runs.items():
            folder = tmp_path / str(number) / str(seed)
            assert_every_sample_counts_once_an_epoch(committed(folder, attempts))
            for world in sorted(set(worlds)):
                whole = tmp_path / str(number) / f"whole-{world}"
                assert_the_same_within_tolerance(folder, len(attempts), whole)
