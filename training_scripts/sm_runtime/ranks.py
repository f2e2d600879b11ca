"""The processes that train together, and what they tell each other.

Control messages (flags, losses, states) travel on processors through gloo; gradients through NCCL where there are GPUs.
"""

import datetime
import os
import pathlib
import platform
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist

from sm_runtime.environment import Environment

#: A peer that died must not hold the others for torch's default of 30 minutes; rank 0 alone may validate this long.
PEER_TIMEOUT = datetime.timedelta(minutes=10)

#: Characters of a value in a message, of the 1,024 of a failure file.
_SHOWN = 300

#: Groups that this process has left, kept to its end. A DistributedDataParallel model that outlived its group would
#: otherwise end gloo's threads while it holds the interpreter, for which one of them may be waiting: for ever
#: (https://github.com/pytorch/pytorch/issues/56297).
_LEFT: list[dist.ProcessGroup | None] = []


class Group:
    """All processes of the job; of one process, where torchrun did not start this.

    Every method but the properties is collective: all processes must call it, in the same order.

    :param timeout: how long one waits for the others before it fails.
    """

    def __init__(self, environment: Environment, *, timeout: datetime.timedelta = PEER_TIMEOUT) -> None:
        self.rank, self.size = environment.rank, environment.world_size
        self._beat_s = timeout.total_seconds() / 20
        cuda = torch.cuda.is_available()
        self.device = torch.device(f"cuda:{environment.local_rank}" if cuda else "cpu")
        if cuda:
            torch.cuda.set_device(self.device)
        if self.size > 1:
            dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=timeout)
        if self.size > 1 or "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // self._on_this_machine()))

    @property
    def first(self) -> bool:
        """Whether this is the process that writes, prints and decides."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sums over all processes, in double precision."""
        return self._reduce(values, dist.ReduceOp.SUM)

    def max(self, values: Sequence[float]) -> list[float]:
        """Return the maxima over all processes."""
        return self._reduce(values, dist.ReduceOp.MAX)

    def any(self, flag: bool) -> bool:
        """Tell every process whether the flag is up in one of them."""
        return self.max([float(flag)])[0] > 0

    def gather(self, value: object) -> list:
        """Return the values of all processes, by rank, in every process."""
        if self.size == 1:
            return [value]
        values: list = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def from_first(self, value: object) -> object:
        """Return the first process's value in every process. For large states use `state_from_first`."""
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def state_from_first(self, state: object) -> object:
        """Return the first process's nested dicts, lists and tensors in every process; tensors on processors, one
        after the other, so that no more than one copy is held."""
        if self.size == 1:
            return state
        tensors: list[torch.Tensor] = []
        shape = self.from_first(_take_out(state, tensors) if self.first else None)
        return _put_back(shape, iter(tensors), self._broadcast)

    def must_agree(self, what: str, value: object) -> None:
        """End the job unless all processes have the same value."""
        values = self.gather(value)
        if any(other != values[0] for other in values):
            rank = next(rank for rank, other in enumerate(values) if other != values[0])
            raise SystemExit(
                f"the processes have different {what}: every host needs the same code and the whole channels "
                f"(FullyReplicated). Process 0 has {_shortly(values[0])}; process {rank} has {_shortly(values[rank])}"
            )

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            dist.barrier()

    def wait_for(self, busy: Callable[[float], bool]) -> None:
        """Wait until no process is busy, however long: who waits hears of it often enough not to give up.

        :param busy: waits so many seconds at most; returns whether there is still something to do.
        """
        while self.any(busy(self._beat_s)):
            continue

    def close(self) -> None:
        """Leave the group."""
        if self.size > 1:
            _LEFT.append(dist.group.WORLD)
            dist.destroy_process_group()

    def _reduce(self, values: Sequence[float], operation: dist.ReduceOp) -> list[float]:
        if self.size == 1:
            return list(values)
        numbers = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(numbers, op=operation)
        return numbers.tolist()

    def _broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        dist.broadcast(tensor.view(-1).view(torch.uint8), src=0)  # as bytes: gloo knows few types
        return tensor

    def _on_this_machine(self) -> int:
        """Count the processes that share these cores: those of other "hosts" too, where the hosts are one machine."""
        machine = pathlib.Path("/proc/sys/kernel/random/boot_id")
        mine = machine.read_text() if machine.exists() else platform.node()
        return self.gather(mine).count(mine)


def _shortly(value: object) -> str:
    """Return a value as text that leaves room for others in a failure file."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


class _Hole:
    """Stands for a tensor in a state that travels."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.shape, self.dtype = tensor.shape, tensor.dtype


def _take_out(state, tensors: list[torch.Tensor]):
    if isinstance(state, torch.Tensor):
        tensors.append(state.detach().cpu().contiguous())
        return _Hole(state)
    if isinstance(state, dict):
        return {name: _take_out(value, tensors) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)([_take_out(value, tensors) for value in state])
    return state


def _put_back(state, tensors, broadcast):
    if isinstance(state, _Hole):
        return _fill(state, tensors, broadcast)
    if isinstance(state, dict):
        return {name: _put_back(value, tensors, broadcast) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)([_put_back(value, tensors, broadcast) for value in state])
    return state


def _fill(hole: _Hole, tensors, broadcast) -> torch.Tensor:
    tensor = next(tensors, None)
    return broadcast(torch.empty(hole.shape, dtype=hole.dtype) if tensor is None else tensor)
