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
#: A seed that kills after 22 steps, with a checkpoint after each, so that there is one by then.
LATE = 18


def train_and_kill(
    folder: Path, ways: list[str], seeds: list[int], *, width: int = 32
) -> dict[int, list[dict[str, Any]]]:
    """Return the attempts of each seed; the runs without a fault lie beside them.

    :param ways: of each attempt: its processes and what they share, as in "2 ddp".
    """
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS), "OMP_NUM_THREADS": "1"}
    environment["SMALL_TRAINING_WIDTH"] = str(width)
    command = [sys.executable, str(HERE / "killing_bench.py"), str(folder), json.dumps(ways), json.dumps(seeds)]
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


def share_held(folder: Path) -> float:
    """Return which part of the model's parameters the first process has held."""
    words = (folder / "log-0-0.txt").read_text().partition("holds ")[2].split()
    return int(words[0]) / int(words[2])


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
    runs = train_and_kill(tmp_path, ["2 ddp", "2 ddp"], list(range(20)))
    assert_the_same_bits(tmp_path, runs, tmp_path / "whole-2-ddp")
    resumed = {attempt["from"] for attempts in runs.values() for attempt in attempts[1:]}
    assert len(resumed) > 10, "the kills came at many different steps"
    assert {attempts[0]["killed"][0] for attempts in runs.values()} == {0, 1}, "each process has been the victim"


@pytest.mark.slow
def test_killed_twice_with_three_processes_the_bits_are_the_same_too(tmp_path: Path) -> None:
    # So wide that its gradients fill buckets: with narrow layers the order of additions does not matter.
    runs = train_and_kill(tmp_path, ["3 ddp"] * 3, [1], width=301)
    assert_the_same_bits(tmp_path, runs, tmp_path / "whole-3-ddp")


@pytest.mark.slow
@pytest.mark.parametrize("number", range(3))
def test_a_run_goes_on_with_more_or_fewer_processes(tmp_path: Path, number: int) -> None:
    ways = (["2 ddp", "1 ddp"], ["1 ddp", "3 ddp"], ["3 ddp", "2 ddp", "1 ddp"])[number]
    assert_it_goes_on_otherwise(tmp_path, ways, number)


@pytest.mark.slow
def test_sharded_as_fsdp2_two_processes_have_the_losses_and_weights_of_ddp_and_go_on_with_the_same_bits(
    tmp_path: Path,
) -> None:
    sharded, ddp = tmp_path / "whole-2-fsdp2", tmp_path / "whole-2-ddp"
    runs = train_and_kill(tmp_path, ["2 fsdp2", "2 fsdp2"], [0, 1, 2, 3])
    train_and_kill(tmp_path, ["2 ddp"], [])
    assert (share_held(sharded), share_held(ddp)) == (0.5, 1.0)
    assert_the_same_within_tolerance(sharded, 1, ddp)
    assert_every_sample_counts_once_an_epoch(committed(sharded, [{"world": 2, "from": 0}]))
    assert_the_same_bits(tmp_path, runs, sharded)


@pytest.mark.slow
@pytest.mark.parametrize("ways", [["2 fsdp2", "2 ddp"], ["2 ddp", "2 fsdp2"], ["2 fsdp2", "1 fsdp2"]])
def test_what_was_sharded_goes_on_whole_and_the_other_way_round(tmp_path: Path, ways: list[str]) -> None:
    attempts = assert_it_goes_on_otherwise(tmp_path, ways, LATE)
    assert attempts[1]["from"] > 0, "there was something to go on from"


def assert_the_same_bits(tmp_path: Path, runs: dict[int, list[dict[str, Any]]], whole: Path) -> None:
    expected = bits(whole)
    for seed, attempts in runs.items():
        folder = tmp_path / str(seed)
        assert bits(folder) == expected, (seed, attempts)
        assert losses(folder, len(attempts)) == losses(whole, 1), seed
        assert_every_sample_counts_once_an_epoch(committed(folder, attempts))


def assert_it_goes_on_otherwise(tmp_path: Path, ways: list[str], seed: int) -> list[dict[str, Any]]:
    attempts = train_and_kill(tmp_path, ways, [seed])[seed]
    folder = tmp_path / str(seed)
    assert_every_sample_counts_once_an_epoch(committed(folder, attempts))
    for way in set(ways):
        assert_the_same_within_tolerance(folder, len(attempts), tmp_path / f"whole-{way.replace(' ', '-')}")
    return attempts
