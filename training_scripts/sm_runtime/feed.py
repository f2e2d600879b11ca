"""Brings the batches to the loop, reads ahead where asked to, and measures how long the loop waits for them."""

import itertools
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from sm_runtime.data import Data, pinned, to_device
from sm_runtime.sampler import MicroBatch, Sampler, Step

#: Number of the micro-batch among those of this process, its step, itself, and its samples.
Item = tuple[int, Step, MicroBatch, Any]

#: Steps that are planned at once. Between two steps of training, with the processor's caches full of other things,
#: planning one takes 40 microseconds; right after another one it takes 8.
AT_ONCE = 64
#: Seconds for a read that is under way when training ends: of SIGTERM's 120 a store that hangs must not take more.
CLOSE_S = 10.0


class Feed:
    """Iterates over the micro-batches of this process up to the end of the last epoch.

    :param ahead: batches that a thread reads ahead; 0: none.
    """

    def __init__(self, sampler: Sampler, data: Data, *, epochs: int, device: torch.device, ahead: int) -> None:
        self._data = data
        self._away = None if device.type == "cpu" else device
        items = self._read(_at_once(sampler.steps(epochs)), pin=ahead > 0 and device.type == "cuda")
        self._ahead = Ahead(items, ahead) if ahead else None
        self._items: Iterator[Item] = iter(self._ahead or items)
        #: Seconds that the loop has waited.
        self.waited = 0.0

    def __iter__(self) -> "Feed":
        return self

    def __next__(self) -> Item:
        began = time.perf_counter()
        number, step, micro, batch = next(self._items)
        if self._away:
            batch = to_device(batch, self._away)
        self.waited += time.perf_counter() - began
        return number, step, micro, batch

    def close(self) -> None:
        """End the thread."""
        if self._ahead:
            self._ahead.close()

    def _read(self, steps: Iterable[Step], pin: bool) -> Iterator[Item]:
        for step in steps:
            for number, micro in enumerate(step.micro_batches):
                batch = self._data.batch(micro.indices)
                yield number, step, micro, pinned(batch) if pin else batch


def _at_once(steps: Iterator[Step]) -> Iterator[Step]:
    while planned := list(itertools.islice(steps, AT_ONCE)):
        yield from planned


class Ahead:
    """Runs an iterator in a thread, `depth` items ahead. What it raises is raised where its items are taken."""

    _END = object()

    def __init__(self, items: Iterator, depth: int) -> None:
        self._items, self._queue = items, queue.Queue(maxsize=depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator:
        while True:
            item, error = self._queue.get()
            if error is not None:
                raise error
            if item is self._END:
                return
            yield item

    def close(self) -> None:
        """End the thread after the item it is at; leave it where that takes longer than CLOSE_S."""
        self._closed.set()
        deadline = time.monotonic() + CLOSE_S
        while self._thread.is_alive() and time.monotonic() < deadline:
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue

    def _run(self) -> None:
        try:
            for item in self._items:
                if self._closed.is_set():
                    return
                self._queue.put((item, None))
            self._queue.put((self._END, None))
        except BaseException as error:  # raised again in the loop
            self._queue.put((None, error))
