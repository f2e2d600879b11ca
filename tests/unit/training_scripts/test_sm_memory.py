"""Freed memory stays with the process for the next step."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[3] / "training_scripts"
#: Takes and frees 80 MB, in pieces that glibc never keeps by itself; prints the page faults of rounds 6 to 15.
PROGRAM = """
import ctypes, resource, sys
import torch
from sm_runtime.memory import keep_freed_memory

print(keep_freed_memory() if sys.argv[1] == "kept" else None)
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for number in range(15):
    if number == 5:
        began = faults()
    tensors = [torch.ones(10_000_000) for _ in range(2)]
    del tensors
print(faults() - began)
"""


def run(way: str, **environment: str) -> tuple[str, int]:
    """Return what `keep_freed_memory` said, and the page faults of ten rounds."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, way],
        env={**inherited, "PYTHONPATH": str(SCRIPTS), **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    said, faults = done.stdout.split()
    return said, int(faults)


def test_what_a_step_has_freed_is_not_taken_from_the_system_again() -> None:
    _, before = run("as it is")
    said, after = run("kept")
    assert said == "True"
    assert before > 100_000  # 80 MB are 19,500 pages of 4 KiB
    assert after < before / 50


def test_who_has_chosen_a_threshold_is_left_alone() -> None:
    assert run("kept", MALLOC_TRIM_THRESHOLD_="131072")[0] == "False"
