"""The global order of an epoch where samples lie in blocks that are read whole: shuffled in windows of blocks."""

from collections.abc import Callable

import numpy as np

Order = Callable[[int], np.ndarray]


def shuffled_windows(sizes: np.ndarray, seed: int, window: int) -> Order:
    """Shuffle the blocks, then the samples of each `window` neighbouring blocks among each other.

    Whoever walks along this order touches at most `window` blocks at a time (twice that around a seam), so
    a cache of them reads each block once. A batch mixes samples of `window` blocks. The order depends on nothing but
    the arguments and the epoch: every process computes the same one.

    :param sizes: samples of each block, in the order in which they lie.
    """
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def order(epoch: int) -> np.ndarray:
        generator = np.random.default_rng([seed, epoch])
        blocks = generator.permutation(len(sizes))
        ordered = []
        for first in range(0, len(blocks), window):
            chosen = blocks[first : first + window]
            samples = np.concatenate([np.arange(starts[block], starts[block + 1]) for block in chosen])
            ordered.append(generator.permutation(samples))
        return np.concatenate(ordered) if ordered else np.empty(0, np.int64)

    return order
