"""Which samples a process works on: a function of the global order, the position, and how many processes there are.

The samples of an epoch stand in one global order. A step takes the next `batch_size` of them (the last step of an epoch
takes what is left) and cuts them into micro-batches. Micro-batches belong to the run and not to machines: however many
processes share them, the same samples meet the same random numbers in the same step. No sample is dropped or repeated.
(The same idea: EasyScale, arXiv 2208.14228.)
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

#: epoch, from 0 -> the order of all samples, int64[n].
Order = Callable[[int], np.ndarray]


def shuffled(samples: int, seed: int) -> Order:
    """Return a new permutation of all samples for each epoch."""
    return lambda epoch: np.random.default_rng([seed, epoch]).permutation(samples)


def shuffled_blocks(samples: int, seed: int, block: int) -> Order:
    """Shuffle blocks of neighbours, and the samples inside each block: nearly sequential reads for data on disk or S3.

    :param block: samples that lie side by side in the data; a batch should see many blocks' worth of variety, so choose
        it well below the batch size times the number of steps that one block may colour.
    """

    def order(epoch: int) -> np.ndarray:
        generator = np.random.default_rng([seed, epoch])
        starts = generator.permutation(np.arange(0, samples, block))
        return np.concatenate([start + generator.permutation(min(block, samples - start)) for start in starts])

    return order


def order_of(data: Any, seed: int) -> Order:
    """Return the order that data have of their own, as readers of files do; else shuffle all samples."""
    return data.order(seed) if hasattr(data, "order") else shuffled(len(data), seed)


def in_order(samples: int) -> Order:
    """Return the samples as they lie, in every epoch."""
    return lambda _epoch: np.arange(samples)


# Tuples: made in every step, and a frozen dataclass takes three times as long.
class MicroBatch(NamedTuple):
    """Samples that go through the model together.

    :param number: which micro-batch of the step this is; names its random numbers.
    :param weight: 0 where the process has no part of this step: it still runs, as its peers wait for its gradients.
    """

    number: int
    indices: np.ndarray
    weight: int = 1


class Step(NamedTuple):
    """One step of one process.

    :param count: samples of the step over all processes.
    :param last: whether the step ends the epoch.
    :param after: the sampler's state once this step is done. What is read ahead does not count.
    """

    epoch: int
    count: int
    last: bool
    after: dict[str, int]
    micro_batches: tuple[MicroBatch, ...]

    @property
    def indices(self) -> np.ndarray:
        """The samples whose gradients this process adds."""
        return np.concatenate([micro.indices[: len(micro.indices) * micro.weight] for micro in self.micro_batches])


class Sampler:
    """Walks through the epochs; `epoch` and `offset`, both in samples of the global order, say where it is.

    :param samples: samples of an epoch, over all processes.
    :param batch_size: samples of a step, over all processes.
    :param micro_batches: pieces that each step is cut into, over all processes.
    :param even: every process works on as many micro-batches as the others, some with the weight 0: FSDP2's processes
        wait for each other in every forward pass, DDP's once a step.
    """

    def __init__(
        self,
        samples: int,
        batch_size: int,
        micro_batches: int,
        *,
        order: Order,
        rank: int = 0,
        size: int = 1,
        even: bool = False,
    ) -> None:
        if min(samples, batch_size, micro_batches) < 1:
            raise SystemExit(
                f"{samples} samples in batches of {batch_size}, {micro_batches} micro-batches: each must be at least 1"
            )
        self.samples, self.batch_size, self.micro_batches = samples, batch_size, micro_batches
        self.rank, self.size, self.even = rank, size, even
        self.epoch = self.offset = 0
        self._order, self._ordered, self._epoch_of_order = order, np.empty(0, np.int64), -1

    @property
    def steps_per_epoch(self) -> int:
        """Steps that an epoch takes from its start."""
        return -(-self.samples // self.batch_size)

    def next(self) -> Step:
        """Return the next step, and move on."""
        chosen = self._epoch_order()[self.offset : self.offset + self.batch_size]
        epoch, self.offset = self.epoch, self.offset + len(chosen)
        last = self.offset >= self.samples
        if last:
            self.epoch, self.offset = self.epoch + 1, 0
        mine = share(chosen, self.micro_batches, self.rank, self.size, even=self.even)
        return Step(epoch, len(chosen), last, self.state_dict(), mine)

    def steps(self, epochs: int) -> Iterator[Step]:
        """Return the steps up to the end of so many epochs."""
        while self.epoch < epochs:
            yield self.next()

    def state_dict(self) -> dict[str, int]:
        """Return the position; it means the same at any number of processes."""
        return {"epoch": self.epoch, "offset": self.offset, "samples": self.samples}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a position. Raises SystemExit where it is one of other data."""
        if state["samples"] != self.samples:
            raise SystemExit(f"the checkpoint was made with {state['samples']} samples an epoch, not {self.samples}")
        self.epoch, self.offset = state["epoch"], state["offset"]

    def _epoch_order(self) -> np.ndarray:
        if self._epoch_of_order != self.epoch:
            ordered = np.asarray(self._order(self.epoch))
            if len(ordered) != self.samples:
                raise SystemExit(f"the order of epoch {self.epoch} has {len(ordered)} samples, not {self.samples}")
            self._ordered, self._epoch_of_order = ordered, self.epoch
        return self._ordered


def share(
    chosen: np.ndarray, micro_batches: int, rank: int, size: int, *, even: bool = False
) -> tuple[MicroBatch, ...]:
    """Return the micro-batches of process `rank` of `size`: neighbours, as equal in number as they can be."""
    count = len(chosen)
    pieces = min(micro_batches, count)
    mine = tuple(
        MicroBatch(number, chosen[number * count // pieces : (number + 1) * count // pieces])
        for number in range(rank * pieces // size, (rank + 1) * pieces // size)
    )
    missing = (-(-pieces // size) if even else 1) - len(mine)
    if missing <= 0:
        return mine
    # A whole micro-batch, as some layers refuse a single sample.
    idle = MicroBatch(pieces + rank, chosen[: count // pieces], weight=0)
    return (*mine, *[idle] * missing)
