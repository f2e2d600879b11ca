"""Saves and restores a run: a snapshot in memory while training stands still, the file by a thread while it goes on."""

import concurrent.futures
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.distributed.tensor import DTensor

from sm_runtime.checkpoint_file import CheckpointFolder, Found
from sm_runtime.ranks import Group

#: Types of values that `torch.load` reads with `weights_only`, beside tensors and containers.
_PLAIN = {bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device}


@dataclass(frozen=True)
class Cost:
    """What a checkpoint has cost, in seconds."""

    stall_s: float
    write_s: float


class Checkpoints:
    """The first process writes and reads; the others are told what it has read. Without a folder it does nothing.

    :param identity: what defines the run; a checkpoint of another one is refused.
    """

    def __init__(self, folder: str | None, group: Group, *, keep: int, identity: dict) -> None:
        self._group = group
        self._folder = CheckpointFolder(folder, keep) if folder else None
        self._identity = json.dumps(identity, sort_keys=True, default=str)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._cost: Cost | None = None
        #: The last step whose checkpoint is on the disk: a run that died now would go on from there.
        self.written_step: int | None = None

    @property
    def wanted(self) -> bool:
        """Whether there is a folder for checkpoints."""
        return self._folder is not None

    @property
    def writing(self) -> bool:
        """Whether the thread of this process is at work."""
        return self._thread is not None and self._thread.is_alive()

    def newest(self) -> dict | None:
        """Return the state to go on from, in every process: what the first process finds, whatever lies elsewhere.

        Raises SystemExit in every process where it was made by another run, or none is whole.
        """
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            reading = thread.submit(self._read) if self._folder and self._group.first else None
            self._group.wait_for(lambda seconds: reading is not None and not _done(reading, seconds))
            found, refusal = reading.result() if reading else (None, None)
        refusal = self._group.from_first(refusal)
        if refusal:
            raise SystemExit(refusal)
        self.written_step = found.step if found else None
        return self._group.state_from_first(found.state if found else None)

    def save(self, step: int, snapshot: Callable[[], dict | None]) -> float:
        """Take a snapshot and start to write it; return the seconds that this took. Waits for the former write.

        :param snapshot: called in every process, as sharded tensors are gathered; counts in the first one.
        """
        if not self._folder:
            return 0.0
        began = time.monotonic()
        self.finish()
        state = to_host(snapshot(), keep=self._group.first)
        stall = time.monotonic() - began
        if not self._group.first:
            return stall
        self._thread = threading.Thread(target=self._write, args=(state, step, stall), name="checkpoint")
        self._thread.start()
        return stall

    def finish_together(self) -> None:
        """Wait in every process until what the first one has saved is on the disk, however long that takes."""
        self._group.wait_for(self._still_writing)
        self.finish()

    def finish(self) -> None:
        """Wait until what was saved is on the disk; raise what kept it from there."""
        if self._thread:
            self._thread.join()
            self._thread = None
        if self._error:
            raise self._error

    def take_cost(self) -> Cost | None:
        """Return what the last finished checkpoint has cost, once."""
        cost, self._cost = self._cost, None
        return cost

    def _still_writing(self, seconds: float) -> bool:
        if self._thread:
            self._thread.join(seconds)
        return self.writing

    def _read(self) -> tuple[Found | None, str | None]:
        """Return what the folder holds, and why it is refused."""
        assert self._folder
        try:
            found = self._folder.newest()
        except SystemExit as error:
            return None, str(error)
        return found, self._refusal(found) if found else None

    def _write(self, state: dict, step: int, stall: float) -> None:
        began = time.monotonic()
        try:
            assert self._folder
            self._folder.write(state, step=step, identity=self._identity)
            self._cost, self.written_step = Cost(stall, time.monotonic() - began), step
        except BaseException as error:  # raised by `finish`, where training hears it
            self._error = error

    def _refusal(self, found: Found) -> str | None:
        if found.identity == self._identity:
            return None
        theirs, ours = json.loads(found.identity), json.loads(self._identity)
        names = sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name))
        differences = "; ".join(f"{name}: {theirs.get(name)!r} there, {ours.get(name)!r} here" for name in names)
        return f"{found.path} was made by another run ({differences}): give this one another folder for checkpoints"


def _done(reading: concurrent.futures.Future, seconds: float) -> bool:
    return bool(concurrent.futures.wait([reading], timeout=seconds).done)


def to_host(state, *, keep: bool = True):
    """Return a copy of a nested state whose tensors are on processors. Copies from a GPU go side by side.

    Sharded tensors are put together, one after the other, so that no device ever holds the whole state: collective,
    where there are any. A process that does not `keep` what it helps to put together gets None.

    Numbers of numpy become Python's. Raises TypeError on what a checkpoint could be written with but not read: files
    are read without running code (`weights_only`), and the run that needs the checkpoint would find that out.
    """
    copied = _copy(state, "state", keep)
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return copied


def _copy(state, place: str, keep: bool):
    if isinstance(state, torch.Tensor):
        return _copy_tensor(state.detach(), keep)
    if isinstance(state, dict):
        return {_plain(name, place): _copy(value, f"{place}.{name}", keep) for name, value in state.items()}
    if type(state) in (list, tuple, torch.Size):
        return type(state)([_copy(value, f"{place}[{number}]", keep) for number, value in enumerate(state)])
    if type(state) is set:
        return {_plain(value, place) for value in state}
    return _plain(state, place)


def _copy_tensor(tensor: torch.Tensor, keep: bool) -> torch.Tensor | None:
    sharded = isinstance(tensor, DTensor)
    if sharded:
        tensor = tensor.full_tensor()
    if not keep:
        return None
    if tensor.device.type != "cuda":
        return tensor if sharded else tensor.clone()
    return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)


def _plain(value, place: str):
    """Return a value that is no container."""
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) not in _PLAIN:
        raise TypeError(
            f"{place} is {type(value).__module__}.{type(value).__qualname__}; a checkpoint holds tensors, numbers, "
            "texts, and dicts, lists and tuples of them: have state_dict() return such (torch.from_numpy for arrays)"
        )
    return value
