"""The sampler neither drops nor repeats a sample, at any number of processes, however often that changes."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sm_runtime.sampler import Sampler, Step, in_order, share, shuffled, shuffled_blocks


def samplers(samples: int, batch: int, micro: int, size: int, *, even: bool = False) -> list[Sampler]:
    order = shuffled(samples, 7)
    return [Sampler(samples, batch, micro, order=order, rank=rank, size=size, even=even) for rank in range(size)]


def together(steps: list[Step]) -> list[int]:
    """Return the samples of a step over all processes, in their order."""
    return [int(sample) for step in steps for sample in step.indices]


@settings(max_examples=200, deadline=None)
@given(
    samples=st.integers(1, 60),
    batch=st.integers(1, 70),
    micro=st.integers(1, 9),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    cuts=st.lists(st.integers(1, 20), min_size=4, max_size=4),
)
def test_runs_that_stop_and_change_their_processes_see_what_one_process_sees(
    samples: int, batch: int, micro: int, sizes: list[int], cuts: list[int]
) -> None:
    (alone,) = samplers(samples, batch, micro, 1)
    expected = [together([step]) for step in alone.steps(3)]
    seen: list[list[int]] = []
    state = {"epoch": 0, "offset": 0, "samples": samples}
    for size, cut in zip([*sizes, 2], [*cuts[: len(sizes)], 10_000], strict=True):
        group = samplers(samples, batch, micro, size)
        for sampler in group:
            sampler.load_state_dict(json.loads(json.dumps(state)))
        while cut and group[0].epoch < 3:
            steps = [sampler.next() for sampler in group]
            assert len({(step.epoch, step.count, step.last) for step in steps}) == 1
            assert len(together(steps)) == steps[0].count
            seen.append(together(steps))
            state, cut = steps[0].after, cut - 1
    assert seen == expected
    assert Counter(sample for step in seen for sample in step) == Counter(dict.fromkeys(range(samples), 3))


@given(count=st.integers(1, 40), micro=st.integers(1, 12), size=st.integers(1, 6))
def test_micro_batches_are_the_same_whoever_works_on_them(count: int, micro: int, size: int) -> None:
    chosen = np.arange(100, 100 + count)
    alone = {each.number: each.indices.tolist() for each in share(chosen, micro, 0, 1)}
    shared = [each for rank in range(size) for each in share(chosen, micro, rank, size)]
    assert {each.number: each.indices.tolist() for each in shared if each.weight} == alone
    assert all(len(each.indices) for each in shared)


@given(count=st.integers(1, 40), micro=st.integers(1, 12), size=st.integers(1, 6))
def test_every_process_has_work_and_equally_much_where_that_matters(count: int, micro: int, size: int) -> None:
    chosen = np.arange(count)
    assert all(share(chosen, micro, rank, size) for rank in range(size))
    assert len({len(share(chosen, micro, rank, size, even=True)) for rank in range(size)}) == 1


def test_each_epoch_has_another_order_and_each_seed_too() -> None:
    first, second = shuffled(50, 1)(0), shuffled(50, 1)(1)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first.tolist() != second.tolist()
    assert shuffled(50, 2)(0).tolist() != first.tolist()


@given(samples=st.integers(1, 100), block=st.integers(1, 30))
def test_blocks_are_shuffled_whole(samples: int, block: int) -> None:
    order = shuffled_blocks(samples, 3, block)(0)
    assert sorted(order) == list(range(samples))
    changes = np.count_nonzero(np.diff(order // block))
    assert changes == -(-samples // block) - 1
    assert in_order(samples)(5).tolist() == list(range(samples))


def test_a_position_in_other_data_is_refused() -> None:
    (sampler,) = samplers(10, 2, 1, 1)
    with pytest.raises(SystemExit, match="made with 11 samples an epoch, not 10"):
        sampler.load_state_dict({"epoch": 0, "offset": 4, "samples": 11})
