"""What several processes share: the data they must agree on, what a checkpoint costs the others, and any tensor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from test_sm_group import SCRIPTS, free_ports

#: Every process prints a line of JSON with what it has seen.
HEAD = """
import json, sys, torch, sm_runtime
from sm_runtime.ranks import Group
environment, folder = sm_runtime.read_environment(), sys.argv[1]
"""

#: 16 layers of 4 MB, and Adam's two moments of each.
SHARDED = """
plan = sm_runtime.Plan(epochs=1, batch_size=4, parallel="fsdp2", checkpoint_s=1e6)
def memory(of):
    return int(open("/proc/self/status").read().partition(of)[2].split()[0]) / 1024
with sm_runtime.join(environment, plan) as group:
    task = sm_runtime.Task(
        model=torch.nn.Sequential(*[torch.nn.Linear(1024, 1024, bias=False) for _ in range(16)]),
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=1e-4),
        data=sm_runtime.Tensors(torch.randn(16, 1024)),
        loss=lambda model, batch: model(batch[0]).square().mean(dim=1),
    )
    run = sm_runtime.loop._Run(plan, group, task, folder, 1)
    run.checkpoints.save, save = lambda *_: 0.0, run.checkpoints.save
    run.train()
    open("/proc/self/clear_refs", "w").write("5")  # the peak (VmHWM) counts from here
    before = memory("VmRSS:")
    save(run.step, run.snapshot)
    run.checkpoints.finish()
    group.wait()
    print(json.dumps({"grown_mb": memory("VmHWM:") - before}))
"""

UNEQUAL = """
plan = sm_runtime.Plan(epochs=1, batch_size=4)
with sm_runtime.join(environment, plan) as group:
    task = sm_runtime.Task(
        model=torch.nn.Linear(1, 1),
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
        data=sm_runtime.Tensors(torch.ones(16 + 4 * group.rank, 1)),
        loss=lambda model, batch: model(batch[0]).squeeze(1),
    )
    try:
        sm_runtime.fit(plan, group, task)
    except SystemExit as error:
        print(json.dumps({"refused": str(error)}))
"""

DIVERGED_MEMBER = """
from sm_runtime import gadam
plan = sm_runtime.Plan(epochs=3, batch_size=4, parallel="population", report_s=0.0)
with sm_runtime.join(environment, plan) as group:
    gadam.seed_member(plan, group)
    steps, network = [], torch.nn.Linear(1, 1)
    def loss(model, batch):
        broken = float("nan") if group.rank == 2 and len(steps) == 1 else 1.0
        return (model(batch[0]).squeeze(1) - 2).square() * broken
    task = sm_runtime.Task(
        model=network,
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=0.1),
        data=sm_runtime.Tensors(torch.ones(12, 1)),
        loss=loss,
        validate=lambda model: {"validation:loss": (model(torch.ones(1, 1)) - 2).square().item()},
        on_step=lambda *_: steps.append(1),
    )
    task = gadam.breed(task, plan, group)
    outcome = sm_runtime.fit(plan, group, task)
    first = task.also["population"].history[0]
    finite = all(bool(torch.isfinite(weights).all()) for weights in outcome.weights.values())
    print(json.dumps({"finite": finite, "losses": [str(each) for each in first.losses], "survivors": first.survivors}))
"""

#: Three times as long as a process waits for another.
SLOW_DISK = """
import datetime, time
from sm_runtime.checkpoint_file import CheckpointFolder
from sm_runtime.checkpoints import Checkpoints
group = Group(environment, timeout=datetime.timedelta(seconds=2))
def slowly(work):
    def slow(*arguments, **options):
        time.sleep(6)
        return work(*arguments, **options)
    return slow
CheckpointFolder.write, CheckpointFolder.newest = slowly(CheckpointFolder.write), slowly(CheckpointFolder.newest)
checkpoints = Checkpoints(folder, group, keep=2, identity={})
checkpoints.save(3, lambda: {"weights": torch.ones(2)})
checkpoints.finish_together()
print(json.dumps({"found": checkpoints.newest()["weights"].tolist(), "step": checkpoints.written_step}))
"""

STATES = """
with sm_runtime.join(environment, sm_runtime.Plan(epochs=1, batch_size=1)) as group:
    kinds = [torch.bool, torch.int16, torch.uint32, torch.float16, torch.bfloat16, torch.complex64, torch.float8_e5m2]
    state = [torch.arange(6).reshape(shape).to(kind) for kind in kinds for shape in ((2, 3), (6,))]
    state += [torch.tensor(7, dtype=torch.int16), torch.empty(0)]
    found = group.state_from_first(state if group.first else None)
    same = [(a.dtype, a.shape) == (b.dtype, b.shape) and a.tolist() == b.tolist() for a, b in zip(found, state)]
    print(json.dumps({"same": same}))
"""


def run(program: str, folder: Path, *, processes: int = 2) -> list[dict[str, Any]]:
    """Run a program in several processes; return what each has printed last."""
    shared = {
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_ports(1)[0],
        "OMP_NUM_THREADS": "1",
    }
    shared["MALLOC_MMAP_THRESHOLD_"] = "65536"  # so that what is freed is free
    running = [
        subprocess.Popen(
            [sys.executable, "-c", HEAD + program, str(folder)],
            env={**os.environ, **shared, "PYTHONPATH": str(SCRIPTS), "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in map(str, range(processes))
    ]
    try:
        said = [process.communicate(timeout=120) for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert all(out for out, _ in said), said
    return [json.loads(out.splitlines()[-1]) for out, _ in said]


def test_who_does_not_write_a_sharded_state_never_holds_it_whole(tmp_path: Path) -> None:
    first, other = run(SHARDED, tmp_path)
    assert first["grown_mb"] > 100, "the first process has it all"
    assert other["grown_mb"] < 50, "the state has 192 MB; one tensor is there at a time"


def test_hosts_with_other_numbers_of_samples_are_refused(tmp_path: Path) -> None:
    for said in run(UNEQUAL, tmp_path):
        assert said["refused"].startswith("the processes have different data: every host needs")
        assert said["refused"].endswith("Process 0 has [16, None]; process 1 has [20, None]")


def test_tensors_of_every_type_reach_the_other_processes(tmp_path: Path) -> None:
    for said in run(STATES, tmp_path):
        assert said["same"]
        assert all(said["same"])


def test_a_member_that_diverges_is_bred_out_and_the_others_go_on(tmp_path: Path) -> None:
    for said in run(DIVERGED_MEMBER, tmp_path, processes=3):
        assert said["losses"][2] == "nan"
        assert 2 not in said["survivors"]
        assert said["finite"]


def test_a_disk_may_be_slower_than_processes_wait_for_each_other(tmp_path: Path) -> None:
    first, other = run(SLOW_DISK, tmp_path)
    assert (first, other) == ({"found": [1, 1], "step": 3}, {"found": [1, 1], "step": None})
