"""Batches for a loop of one's own, read ahead by a thread; `sm_runtime.fit` has the same built in.

Processes that hand over small samples cost more than reading them, so there are none: batches are read whole.
"""

import time
from collections.abc import Iterator

import torch

from sm_runtime.feed import Feed
from sm_runtime.readers.dataset import Dataset
from sm_runtime.readers.fields import Batch
from sm_runtime.sampler import Order, Sampler


class Loader:
    """Iterates over the batches of this process up to the end of the epoch it is in.

    Every sample of an epoch comes once, at any number of processes; `state_dict` names the position after the batch
    handed out last (what was read ahead does not count), and may be loaded at another number of processes.

    :param batch_size: samples of a step, over all processes.
    :param ahead: batches that the thread reads ahead; 0: none.
    """

    def __init__(
        self, dataset: Dataset, batch_size: int, *, order: Order, rank: int = 0, size: int = 1, ahead: int = 2
    ) -> None:
        self._dataset, self._ahead = dataset, ahead
        self._arguments = {"order": order, "rank": rank, "size": size}
        self._batch_size = batch_size
        self._state = self._sampler().state_dict()
        #: Seconds spent waiting for data, and in all, since the first batch.
        self.waited = self.elapsed = 0.0

    @property
    def data_wait_share(self) -> float:
        """Share of the time that the loop has waited for data."""
        return self.waited / self.elapsed if self.elapsed else 0.0

    def __iter__(self) -> Iterator[Batch]:
        sampler = self._sampler()
        sampler.load_state_dict(self._state)
        epochs = sampler.epoch + 1
        feed = Feed(sampler, self._dataset, epochs=epochs, device=torch.device("cpu"), ahead=self._ahead)
        began, waited, elapsed = time.perf_counter(), self.waited, self.elapsed
        try:
            for number, step, micro, batch in feed:
                if number == len(step.micro_batches) - 1:
                    self._state = step.after
                self.waited, self.elapsed = waited + feed.waited, elapsed + time.perf_counter() - began
                if micro.weight:
                    yield batch
        finally:
            feed.close()

    def state_dict(self) -> dict[str, int]:
        """Return the position."""
        return dict(self._state)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a position, from the next iteration on."""
        self._sampler().load_state_dict(state)
        self._state = dict(state)

    def _sampler(self) -> Sampler:
        # One micro-batch for each process: its batch of a step is read whole.
        size = self._arguments["size"]
        return Sampler(len(self._dataset), self._batch_size, size, **self._arguments)
