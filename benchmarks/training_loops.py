"""The two loops that training.py compares, and how they take turns within one run of ours."""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

import sm_runtime
from sm_runtime import optimizers
from sm_runtime.ranks import Group
from sm_runtime.sampler import shuffled
from training_cases import Case

#: Wall seconds of a stretch, about: short enough that a busy machine disturbs two neighbours alike. Reading the
#: clocks and going from one loop to the other takes 30 microseconds, which count as ours.
STRETCH_S = 0.03


@dataclass(frozen=True)
class Spent:
    """Seconds by the wall clock, and of the processor."""

    wall: float
    cpu: float


class Watch:
    """Takes the time from its making; the processor's of this thread, or of all threads."""

    def __init__(self, *, threads: bool = False) -> None:
        self._cpu_now = time.process_time if threads else time.thread_time
        settle()
        self._wall, self._cpu = time.perf_counter(), self._cpu_now()

    def stop(self) -> Spent:
        settle()
        return Spent(time.perf_counter() - self._wall, self._cpu_now() - self._cpu)


def settle() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def bare(case: Case, seed: int, group: Group) -> Iterator[None]:
    """Train as anybody would without any of the runtime, for ever; every item is a step that is done.

    The batches are those of ours, in the same order: they cost as much as their longest sample.
    In a group of processes, each has its part of every batch and DistributedDataParallel adds the gradients up.
    """
    torch.manual_seed(seed)
    rank, size, device = group.rank, group.size, group.device
    network = model = case.network().to(device)
    if size > 1:
        model = DistributedDataParallel(network, gradient_as_bucket_view=True)
    optimizer = optimizers.make("adamw", network.parameters(), learning_rate=1e-3)
    tensors = [tensor.to(device) for tensor in case.tensors]
    order = shuffled(len(tensors[0]), seed)
    for epoch in itertools.count():
        for chosen in torch.from_numpy(order(epoch)).to(device).split(case.batch_size):
            if len(chosen) < size:
                continue  # the last batch of an epoch, in which a process would have nothing
            mine = chosen.tensor_split(size)[rank] if size > 1 else chosen
            loss = case.loss(model, tuple(tensor.index_select(0, mine) for tensor in tensors)).mean()
            optimizer.zero_grad()
            loss.backward()
            if case.clip_norm:
                torch.nn.utils.clip_grad_norm_(network.parameters(), case.clip_norm)
            optimizer.step()
            yield


def run(steps: Iterator[None], count: int) -> Spent:
    """Do so many steps of a bare loop."""
    watch = Watch()
    for _ in range(count):
        next(steps)
    return watch.stop()


class Turns:
    """Lets `count` steps of a bare loop follow on each `count` steps of ours: `Task.on_step`.

    What comes before the first step (imports, building the model) belongs to neither.
    """

    def __init__(self, steps: Iterator[None], count: int) -> None:
        self._steps, self._count = steps, count
        self.ours: list[Spent] = []
        self.theirs: list[Spent] = []
        self._watch: Watch | None = None
        self._since = 0

    def __call__(self, step: int, _: sm_runtime.Step) -> None:
        if self._watch is None:
            run(self._steps, 1)
            self._all, self._watch = Watch(threads=True), Watch()
            return
        self._since += 1
        if self._since == self._count:
            self.ours.append(self._watch.stop())
            self.theirs.append(run(self._steps, self._count))
            self._since, self._watch = 0, Watch()

    def total(self) -> tuple[Spent, Spent]:
        """Return what the bare loop took and what ours did: all of its threads, and the last checkpoint."""
        everything = self._all.stop()
        rest = run(self._steps, self._since)
        theirs = Spent(sum(spent.wall for spent in self.theirs), sum(spent.cpu for spent in self.theirs))
        mine = Spent(everything.wall - theirs.wall, everything.cpu - theirs.cpu)
        return Spent(theirs.wall + rest.wall, theirs.cpu + rest.cpu), mine

    def overhead(self, clock: str) -> float:
        """Return the median over neighbouring stretches of what ours took more, by one of the clocks."""
        pairs = zip(self.ours, self.theirs, strict=True)
        return statistics.median(getattr(mine, clock) / getattr(bare, clock) - 1 for mine, bare in pairs)


class Quiet:
    """Keeps what the runtime reports, instead of printing it."""

    def __enter__(self) -> list[dict[str, float]]:
        self.lines: list[dict[str, float]] = []
        self._report = sm_runtime.loop.report
        sm_runtime.loop.report = self.lines.append
        return self.lines

    def __exit__(self, *exception: object) -> None:
        sm_runtime.loop.report = self._report


def ours(
    case: Case, epochs: int, seed: int, group: Group, on_step: Any = None, **changes: Any
) -> tuple[Spent, dict[str, float]]:
    """Train through the runtime, checkpoints included; return what it took and the last line of metrics."""
    settings = {"clip_norm": case.clip_norm, **changes}
    plan = sm_runtime.Plan(epochs=epochs, batch_size=case.batch_size, seed=seed, deterministic=False, **settings)
    torch.manual_seed(seed)
    task = sm_runtime.Task(
        model=case.network(),
        optimizer=lambda model: optimizers.make("adamw", model.parameters(), learning_rate=1e-3),
        data=sm_runtime.Tensors(*case.tensors).to(group.device),
        loss=case.loss,
        on_step=on_step,
    )
    with tempfile.TemporaryDirectory() as folder, Quiet() as lines:
        watch = Watch(threads=True)
        sm_runtime.fit(plan, group, task, checkpoint_dir=folder)
        return watch.stop(), lines[-1] if lines else {}
