"""Leaving the group of processes that train together."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[3] / "training_scripts"
#: A model that is let go of after its group, which is where torch can hang; once for each port.
OUTLIVES = """
import os, sys, torch, sm_runtime
from sm_runtime.ranks import Group
for port in sys.argv[1:]:
    os.environ["MASTER_PORT"] = port
    group = Group(sm_runtime.read_environment())
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
    model(torch.ones(1, 2)).sum().backward()
    for _ in range(20):
        group.sum([1.0])
    group.close()
    del model
"""


def free_ports(count: int) -> list[str]:
    """Return ports that listen to nobody, below those from which the kernel takes one for each connection."""
    free: list[str] = []
    for port in random.Random(os.getpid()).sample(range(20_000, 32_000), 100):
        with socket.socket() as probe:
            free += [str(port)] if probe.connect_ex(("127.0.0.1", port)) else []
    return free[:count]


def test_a_model_may_outlive_its_group() -> None:
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "PYTHONPATH": str(SCRIPTS)}
    command = [sys.executable, "-c", OUTLIVES, *free_ports(8)]
    processes = [
        subprocess.Popen(command, env={**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01"
    ]
    try:
        assert [process.wait(timeout=120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait()
