"""A checkpoint is whole or not there; what is broken is found out; another run's is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sm_runtime.checkpoint_file import HEADER, CheckpointFolder
from sm_runtime.checkpoints import Checkpoints
from sm_runtime.environment import read_environment
from sm_runtime.interval import FIRST_S, LONGEST_S, SHORTEST_S, Interval, young_daly
from sm_runtime.ranks import Group


@pytest.fixture
def group() -> Group:
    return Group(read_environment({"OMP_NUM_THREADS": "1", "SAGEMAKER_BASE_DIR": "/nonexistent"}))


def state(step: int) -> dict:
    return {"step": step, "model": {"weight": torch.full((3,), float(step))}, "history": [{"epoch": 1}]}


def written(folder: Path, *steps: int, keep: int = 2) -> CheckpointFolder:
    checkpoints = CheckpointFolder(str(folder), keep)
    for step in steps:
        checkpoints.write(state(step), step=step, identity="run")
    return checkpoints


def test_the_newest_one_is_read_and_no_more_than_asked_for_are_kept(tmp_path: Path) -> None:
    found = written(tmp_path, 3, 7, 12, 20, keep=3).newest()
    assert found is not None
    assert (found.step, found.state["model"]["weight"].tolist()) == (20, [20.0] * 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"checkpoint-{number}.pt" for number in range(3)]


@pytest.mark.parametrize("place", [0, 20, HEADER - 1, HEADER + 40, -30])
def test_a_flipped_byte_is_found_and_the_one_before_is_taken(
    tmp_path: Path, place: int, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = written(tmp_path, 5, 9)
    found = checkpoints.newest()
    assert found is not None
    content = bytearray(found.path.read_bytes())
    content[place] ^= 0xFF
    found.path.write_bytes(content)
    former = checkpoints.newest()
    assert former is not None
    assert former.step == 5
    assert "is not whole" in capsys.readouterr().err


def test_no_byte_of_the_header_can_be_wrong_unnoticed(tmp_path: Path) -> None:
    checkpoints = written(tmp_path, 5, 9)
    whole = checkpoints.newest()
    assert whole is not None
    content = whole.path.read_bytes()
    for place in range(content.index(b"}") + 1):
        for bit in range(8):
            broken = bytearray(content)
            broken[place] ^= 1 << bit
            whole.path.write_bytes(broken)
            assert checkpoints.newest().step == 5, (place, bit)  # type: ignore[union-attr]


def test_a_newest_one_that_is_broken_is_overwritten_before_the_last_that_is_whole(tmp_path: Path) -> None:
    checkpoints = written(tmp_path, 20, 30)
    newest = tmp_path / "checkpoint-1.pt"
    content = bytearray(newest.read_bytes())
    content[-30] ^= 0xFF
    newest.write_bytes(content)
    assert checkpoints.newest().step == 20  # type: ignore[union-attr]
    assert checkpoints.write(state(25), step=25, identity="run") == newest
    newest.write_bytes(b"as half an upload to S3 would leave it")
    assert checkpoints.newest().step == 20, "there are two again"  # type: ignore[union-attr]


@pytest.mark.parametrize("left", [0, 100, HEADER, HEADER + 10])
def test_a_torn_file_is_found_and_overwritten_first(tmp_path: Path, left: int) -> None:
    checkpoints = written(tmp_path, 5, 9)
    found = checkpoints.newest()
    assert found is not None
    found.path.write_bytes(found.path.read_bytes()[:left])
    assert checkpoints.newest().step == 5  # type: ignore[union-attr]
    checkpoints.write(state(11), step=11, identity="run")
    assert found.path.stat().st_size > HEADER
    assert checkpoints.newest().step == 11  # type: ignore[union-attr]


def test_what_defines_a_run_may_be_long(tmp_path: Path, group: Group) -> None:
    identity = {"files": [f"part-{number}.parquet" for number in range(5000)]}
    checkpoints = Checkpoints(str(tmp_path), group, keep=2, identity=identity)
    checkpoints.save(4, lambda: state(4))
    checkpoints.finish()
    assert checkpoints.newest()["step"] == 4  # type: ignore[index]


def test_a_write_that_was_cut_off_leaves_the_former_ones(tmp_path: Path) -> None:
    checkpoints = written(tmp_path, 5, 9)
    (tmp_path / "checkpoint-0.tmp").write_bytes(b"half of it")
    assert checkpoints.newest().step == 9  # type: ignore[union-attr]


def test_where_none_is_whole_training_does_not_start_anew_by_itself(tmp_path: Path) -> None:
    checkpoints = written(tmp_path, 5)
    (tmp_path / "checkpoint-0.pt").write_bytes(b"nothing of it")
    with pytest.raises(SystemExit, match=r"none of the checkpoints .* is whole: remove them"):
        checkpoints.newest()


def test_another_run_s_checkpoint_is_refused_with_the_difference(tmp_path: Path, group: Group) -> None:
    ours = Checkpoints(str(tmp_path), group, keep=2, identity={"lr": 0.1, "seed": 1})
    ours.save(4, lambda: state(4))
    ours.finish()
    assert ours.newest()["step"] == 4  # type: ignore[index]
    other = Checkpoints(str(tmp_path), group, keep=2, identity={"lr": 0.2, "seed": 1})
    with pytest.raises(SystemExit, match=r"another run \(lr: 0.1 there, 0.2 here\): give this one another folder"):
        other.newest()


def test_what_is_saved_is_the_state_at_that_moment(tmp_path: Path, group: Group) -> None:
    checkpoints = Checkpoints(str(tmp_path), group, keep=2, identity={})
    weights = torch.zeros(1000)
    checkpoints.save(1, lambda: {"step": 1, "model": weights})
    weights.add_(1)
    checkpoints.finish()
    assert checkpoints.newest()["model"].sum() == 0  # type: ignore[index]
    cost = checkpoints.take_cost()
    assert cost is not None
    assert cost.write_s > 0


def test_what_could_be_written_and_not_read_again_is_refused_at_once(tmp_path: Path, group: Group) -> None:
    checkpoints = Checkpoints(str(tmp_path), group, keep=2, identity={})
    generator = np.random.RandomState(0).get_state(legacy=False)
    with pytest.raises(TypeError, match=r"state.also.order.state.key is numpy.ndarray; a checkpoint holds tensors"):
        checkpoints.save(1, lambda: {"also": {"order": generator}})
    checkpoints.save(
        1, lambda: {"step": np.int64(1), "score": np.float64(0.5), "parts": {3, 4}, "by": {np.int64(7): 1}}
    )
    checkpoints.finish()
    assert checkpoints.newest() == {"step": 1, "score": 0.5, "parts": {3, 4}, "by": {7: 1}}


def test_a_write_that_fails_is_heard(tmp_path: Path, group: Group) -> None:
    (tmp_path / "file").write_text("")
    checkpoints = Checkpoints(str(tmp_path / "file" / "folder"), group, keep=2, identity={})
    checkpoints.save(1, lambda: {"step": 1})
    with pytest.raises(NotADirectoryError):
        checkpoints.finish()


def test_the_interval_is_young_s_and_daly_s_within_bounds() -> None:
    assert young_daly(2.0, 3600.0) == 120.0
    interval = Interval(mtbf_s=7200, hosts=2, now=0.0)
    assert interval.seconds == FIRST_S
    interval.measured(stall_s=2.0, write_s=1.0)
    assert interval.seconds == 120.0
    interval.saved(50.0)
    assert not interval.due(169.9)
    assert interval.due(170.0)
    interval.measured(stall_s=1e9, write_s=1.0)
    assert interval.seconds == LONGEST_S


def test_a_cheap_checkpoint_is_not_made_all_the_time_nor_before_the_last_is_written() -> None:
    cheap, slow = Interval(mtbf_s=60, now=0.0), Interval(mtbf_s=60, now=0.0)
    cheap.measured(stall_s=1e-6, write_s=0.01)
    slow.measured(stall_s=1e-6, write_s=40.0)
    assert (cheap.seconds, slow.seconds) == (SHORTEST_S, 80.0)
    assert Interval(mtbf_s=60, fixed_s=0.0, now=3.0).due(3.0)
