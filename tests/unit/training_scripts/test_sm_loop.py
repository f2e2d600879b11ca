"""The training loop of one process: what it computes, refuses, reports and leaves behind."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sm_runtime
from sm_runtime import stopping
from sm_runtime.checkpoint_file import CheckpointFolder
from sm_runtime.feed import Ahead

SAMPLES = 50
SCRIPTS = Path(sm_runtime.__file__).parent.parent


@pytest.fixture(autouse=True)
def torch_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What `join` changes for its process must not reach other tests."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)
    stopping._wanted.clear()
    torch.use_deterministic_algorithms(False)


def environment(tmp_path: Path) -> sm_runtime.Environment:
    (tmp_path / "output").mkdir(exist_ok=True)
    return sm_runtime.read_environment({"SAGEMAKER_BASE_DIR": str(tmp_path)})


def task(**changes: Any) -> sm_runtime.Task:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(SAMPLES, 6, generator=generator)
    targets = inputs @ torch.arange(6.0) + 1
    torch.manual_seed(0)
    whole: dict[str, Any] = {
        "model": torch.nn.Linear(6, 1),
        "optimizer": lambda model: torch.optim.SGD(model.parameters(), lr=0.02),
        "data": sm_runtime.Tensors(inputs, targets),
        "loss": lambda model, batch: (model(batch[0]).squeeze(1) - batch[1]).square(),
    }
    return sm_runtime.Task(**{**whole, **changes})


def wide(samples: int, **changes: Any) -> sm_runtime.Task:
    inputs = torch.ones(samples, 6)
    return task(data=sm_runtime.Tensors(inputs, inputs.sum(dim=1)), **changes)


def fit(tmp_path: Path, plan: sm_runtime.Plan, what: sm_runtime.Task, **options: Any) -> sm_runtime.Outcome:
    with sm_runtime.join(environment(tmp_path), plan) as group:
        return sm_runtime.fit(plan, group, what, **options)


def plan(**changes: Any) -> sm_runtime.Plan:
    return sm_runtime.Plan(**{"epochs": 2, "batch_size": 8, **changes})


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, float]]:
    return [json.loads(line)["dlaws_metrics"] for line in capsys.readouterr().out.splitlines()]


def test_it_computes_what_a_bare_loop_computes(tmp_path: Path) -> None:
    outcome = fit(tmp_path, plan(seed=3), task())
    bare = task()
    order, optimizer = sm_runtime.shuffled(SAMPLES, 3), bare.optimizer(bare.model)
    for epoch in range(2):
        for chosen in torch.from_numpy(order(epoch)).split(8):
            optimizer.zero_grad()
            bare.loss(bare.model, [tensor[chosen] for tensor in bare.data.tensors]).mean().backward()  # type: ignore[attr-defined]
            optimizer.step()
    for name, tensor in bare.model.state_dict().items():
        torch.testing.assert_close(outcome.weights[name], tensor, rtol=1e-5, atol=1e-6)
    assert (outcome.finished, outcome.exit_code, outcome.steps) == (True, 0, 14)


@pytest.mark.parametrize("changes", [{"micro_batches": 3}, {"micro_batches": 20}, {"prefetch": 2}])
def test_accumulation_and_reading_ahead_change_nothing(tmp_path: Path, changes: dict[str, Any]) -> None:
    one, other = fit(tmp_path, plan(), task()), fit(tmp_path, plan(**changes), task())
    for name, tensor in one.weights.items():
        torch.testing.assert_close(other.weights[name], tensor, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("changes", [{"precision": "bfloat16"}, {"clip_norm": 0.01}])
def test_bfloat16_and_clipping_do_what_they_say(tmp_path: Path, changes: dict[str, Any]) -> None:
    full, changed = fit(tmp_path, plan(), task()), fit(tmp_path, plan(**changes), task())
    assert not torch.equal(full.weights["weight"], changed.weights["weight"])
    if "clip_norm" in changes:
        moved = changed.weights["weight"] - task().model.weight.detach()
        assert 0 < moved.norm() <= 14 * 0.02 * 0.01 * 1.001


def test_each_epoch_is_validated_written_and_reported_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written: list[int] = []

    def write(weights: dict[str, torch.Tensor], history: list[dict]) -> None:
        assert set(weights) == {"weight", "bias"}
        written.append(len(history))
        print(json.dumps({"dlaws_metrics": {"written": len(history)}}))

    outcome = fit(tmp_path, plan(), task(validate=lambda _model: {"validation:error": 0.5}, write=write))
    assert written == [1, 2]
    assert [entry["epoch"] for entry in outcome.history] == [1, 2]
    assert outcome.history[1]["train:loss"] < outcome.history[0]["train:loss"]
    first, second, *_ = lines(capsys)
    assert first == {"written": 1}
    assert {"epoch", "train:loss", "validation:error", "step", "steps", "loss", "samples_per_second"} <= set(second)
    assert {"data_wait_share", "checkpoint_stall_share", "peak_memory_mb"} <= set(second)


def test_a_line_for_every_step_where_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path, plan(report_s=0.0), task())
    assert [line["step"] for line in lines(capsys)] == list(range(1, 15))


def test_the_lines_tell_the_last_checkpoint_that_is_on_the_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, on_disk = CheckpointFolder(str(tmp_path / "checkpoints"), keep=2), []

    def look(_number: int, _step: sm_runtime.Step) -> None:
        found = folder.newest()
        on_disk.append(found.step if found else 0)

    every_step = plan(report_s=0.0, checkpoint_s=0.0)
    fit(tmp_path, every_step, task(on_step=look), checkpoint_dir=str(folder.folder))
    told = [line.get("checkpoint_step", 0) for line in lines(capsys)]
    assert told == sorted(told)
    # What the line of a step tells is there by the next one.
    assert all(step <= there for step, there in zip(told, on_disk[1:], strict=False)), (told, on_disk)
    fit(tmp_path, plan(epochs=3, report_s=0.0, checkpoint_s=1e6), task(), checkpoint_dir=str(folder.folder))
    resumed = [line["checkpoint_step"] for line in lines(capsys) if line["epoch"] == 3]
    assert resumed == [14] * 7, "a run that goes on knows where it came from"


def test_a_finished_run_is_told_again_and_not_trained_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "checkpoints")
    first = fit(tmp_path, plan(), task(), checkpoint_dir=folder)
    capsys.readouterr()
    written: list[int] = []
    again = fit(tmp_path, plan(), task(write=lambda _w, history: written.append(len(history))), checkpoint_dir=folder)
    assert torch.equal(first.weights["weight"], again.weights["weight"])
    assert [line["epoch"] for line in lines(capsys)] == [1, 2]
    assert written == [2]
    longer = fit(tmp_path, plan(epochs=3), task(), checkpoint_dir=folder)
    assert torch.equal(longer.weights["weight"], fit(tmp_path, plan(epochs=3), task()).weights["weight"])


def test_sigterm_ends_after_the_step_and_the_next_run_goes_on(tmp_path: Path) -> None:
    def interrupt(number: int, _step: sm_runtime.Step) -> None:
        if number == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    folder = str(tmp_path / "checkpoints")
    stopped = fit(tmp_path, plan(report_s=0.0), task(on_step=interrupt), checkpoint_dir=folder)
    assert (stopped.finished, stopped.exit_code, stopped.steps) == (False, 143, 5)
    stopping._wanted.clear()
    resumed = fit(tmp_path, plan(), task(), checkpoint_dir=folder)
    whole = fit(tmp_path, plan(), task())
    assert torch.equal(resumed.weights["weight"], whole.weights["weight"])
    assert resumed.history == whole.history


def test_a_read_that_hangs_does_not_keep_a_stopped_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(sm_runtime.Tensors):
        free, asked = threading.Event(), 0

        def batch(self, indices: np.ndarray) -> tuple[torch.Tensor, ...]:
            self.asked += 1
            if self.asked > 4 and not self.free.wait(60):
                raise AssertionError("the run has waited for the read")
            return super().batch(indices)

    def interrupt(number: int, _step: sm_runtime.Step) -> None:
        if number == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("sm_runtime.feed.CLOSE_S", 0.2)
    data = Hanging(*task().data.tensors)  # type: ignore[attr-defined]
    stopped = fit(tmp_path, plan(prefetch=2), task(data=data, on_step=interrupt), checkpoint_dir=str(tmp_path / "c"))
    data.free.set()
    assert (stopped.finished, stopped.steps) == (False, 2)


@pytest.mark.parametrize("last", [7, 14])
def test_sigterm_at_the_end_of_an_epoch_saves_before_it_validates(tmp_path: Path, last: int) -> None:
    folder = CheckpointFolder(str(tmp_path / "checkpoints"), keep=2)
    saved: list[int] = []

    def interrupt(number: int, _step: sm_runtime.Step) -> None:
        if number == last:
            os.kill(os.getpid(), signal.SIGTERM)

    def validate(_model: torch.nn.Module) -> dict[str, float]:
        if stopping.stop_wanted():
            deadline = time.monotonic() + 20
            while not (found := folder.newest()):
                assert time.monotonic() < deadline, "it validates before it has saved"
                time.sleep(0.01)
            saved.append(found.step)
        return {"drawn": torch.rand(()).item()}

    stopped = fit(tmp_path, plan(), task(on_step=interrupt, validate=validate), checkpoint_dir=str(folder.folder))
    # What is left of the whole run after its last step is little: it is done, once all is safe.
    assert (stopped.finished, saved) == ((True, [14]) if last == 14 else (False, []))
    assert folder.newest().step == last  # type: ignore[union-attr]
    stopping._wanted.clear()
    resumed = fit(tmp_path, plan(), task(validate=validate), checkpoint_dir=str(folder.folder))
    whole = fit(tmp_path, plan(), task(validate=validate))
    assert torch.equal(resumed.weights["weight"], whole.weights["weight"])
    assert resumed.history == whole.history
    assert len(resumed.history) == 2


def test_a_checkpoint_of_other_hyperparameters_is_refused(tmp_path: Path) -> None:
    folder = str(tmp_path / "checkpoints")
    fit(tmp_path, plan(), task(identity={"lr": 0.02}), checkpoint_dir=folder)
    with pytest.raises(SystemExit, match=r"another run \(lr: 0.02 there, 0.5 here\)"):
        fit(tmp_path, plan(), task(identity={"lr": 0.5}), checkpoint_dir=folder)


def test_a_loss_that_is_no_number_ends_the_run_and_leaves_word(tmp_path: Path) -> None:
    with pytest.raises(sm_runtime.Diverged, match="lower the learning rate"):
        fit(tmp_path, plan(epochs=40), task(optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=1e20)))
    words = (tmp_path / "output" / "failure").read_text()
    assert words.startswith("Diverged: the training loss is")
    assert "process 0 of 1 on localhost" in words


def test_weights_that_the_last_step_has_made_no_numbers_are_no_model(tmp_path: Path) -> None:
    written: list[list[dict]] = []
    huge = task(
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=1e38),
        loss=lambda model, batch: 100 * model(batch[0]).squeeze(1),
        write=lambda _weights, history: written.append(history),
    )
    with pytest.raises(sm_runtime.Diverged, match="weights are no numbers in epoch 1: lower the learning rate"):
        fit(tmp_path, plan(epochs=1, batch_size=SAMPLES), huge)
    assert not written


def test_metrics_may_be_numbers_of_numpy_and_torch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "checkpoints")
    what = task(
        validate=lambda _model: {"numpy": np.mean([1.0, 2.0]), "single": np.float32(2), "torch": torch.tensor(3)}
    )
    fit(tmp_path, plan(), what, checkpoint_dir=folder)
    resumed = fit(tmp_path, plan(epochs=3), what, checkpoint_dir=folder)
    assert [(line["numpy"], line["single"], line["torch"]) for line in resumed.history] == [(1.5, 2.0, 3)] * 3
    assert len(lines(capsys)) == 2 + 2 + 1


def test_fewer_epochs_than_a_checkpoint_has_seen_are_refused(tmp_path: Path) -> None:
    folder = str(tmp_path / "checkpoints")
    fit(tmp_path, plan(epochs=3), task(), checkpoint_dir=folder)
    with pytest.raises(SystemExit, match="made after 21 steps, and 2 epochs are 14: ask for as many epochs as before"):
        fit(tmp_path, plan(epochs=2), task(), checkpoint_dir=folder)


def test_sigterm_is_heard_at_once_though_the_steps_have_become_slow(tmp_path: Path) -> None:
    def slow_from(number: int, _step: sm_runtime.Step) -> None:
        if number == 400:
            os.kill(os.getpid(), signal.SIGTERM)
        assert number <= 401, "it went on for as many steps as took half a second when they were quick"

    outcome = fit(tmp_path, plan(epochs=1, batch_size=1), wide(2000, on_step=slow_from))
    assert (outcome.finished, outcome.steps) == (False, 400)


def test_a_loss_over_the_batch_is_refused(tmp_path: Path) -> None:
    what = dataclasses.replace(task(), loss=lambda model, batch: model(batch[0]).mean())
    with pytest.raises(ValueError, match=r"loss returned \(\) for 8 samples: it must return the loss of each sample"):
        fit(tmp_path, plan(), what)


def test_what_a_reader_raises_ahead_is_raised_in_the_loop() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    ahead = iter(Ahead(items(), 2))
    assert next(ahead) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(ahead)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"epochs": 0}, "epochs is 0"), ({"precision": "float8"}, "precision is 'float8'"), ({"keep": 0}, "keep is 0")],
)
def test_a_plan_that_cannot_be_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SystemExit, match=words):
        plan(**changes)


def test_the_environment_falls_back_to_the_files_of_the_container(tmp_path: Path) -> None:
    for folder in ("input/config", "input/data/train", "model", "checkpoints", "output/data"):
        (tmp_path / folder).mkdir(parents=True)
    resources = {"current_host": "algo-2", "hosts": ["algo-1", "algo-2"]}
    (tmp_path / "input/config/resourceconfig.json").write_text(json.dumps(resources))
    (tmp_path / "input/config/hyperparameters.json").write_text('{"seed": "7"}')
    variables = {"SAGEMAKER_BASE_DIR": str(tmp_path), "RANK": "1", "WORLD_SIZE": "2"}
    found = sm_runtime.read_environment(variables)
    assert (found.rank, found.world_size, found.host, found.hosts) == (1, 2, "algo-2", ("algo-1", "algo-2"))
    assert (found.seed, found.channels) == (7, {"train": str(tmp_path / "input/data/train")})
    assert found.checkpoint_dir == str(tmp_path / "checkpoints")
    with pytest.raises(SystemExit, match="RANK=3 with WORLD_SIZE=2"):
        sm_runtime.read_environment({**variables, "RANK": "3"})


def test_the_runtime_needs_nothing_but_torch_and_numpy() -> None:
    program = "import sys, sm_runtime; print([n for n in ('airflow', 'airflow_dlaws', 'boto3') if n in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    answer = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"
