"""Progress from metric lines: what is told, how often, and when it will end."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.jobs.metric_line import format_line
from airflow_dlaws.jobs.progress import (
    ProgressMeter,
    ProgressReports,
    document,
    estimated_end,
    fraction_done,
    sentence,
)

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def line(**metrics: Any) -> str:
    return f"[algo-1] {format_line(metrics)}"


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def test_a_training_that_says_all_is_told_in_one_sentence() -> None:
    meter = ProgressMeter()
    meter.read([line(step=1000, steps=10_000, epoch=1)], NOON)
    last = line(step=2000, steps=10_000, epoch=2, loss=0.3123, samples_per_second=5812.3, checkpoint_step=1500)
    progress = meter.read(["[algo-1] warming up", last], after(600))
    assert progress is not None
    assert sentence(progress) == (
        "Progress: step 2,000 of 10,000, epoch 2, 20% done, loss 0.3123, 5,812 samples/s, checkpoint at step 1,500, "
        "about 1:20:00 left, training ends about 2026-11-24 13:30 UTC"
    )


def test_epochs_will_do_where_there_are_no_steps() -> None:
    meter = ProgressMeter()
    meter.read([line(epoch=1, epochs=4)], NOON)
    progress = meter.read([line(epoch=2, epochs=4, **{"train:loss": 1.5})], after(60))
    assert progress is not None
    assert (progress.fraction, progress.loss, progress.ends_at) == (0.5, 1.5, after(180))


def test_other_lines_and_other_metrics_tell_nothing() -> None:
    assert ProgressMeter().read(["step 5", '{"dlaws_metrics": broken', line(accuracy=0.5)], NOON) is None


def test_a_resumed_job_is_measured_anew() -> None:
    meter = ProgressMeter()
    meter.read([line(step=900, steps=1000)], NOON)
    back = meter.read([line(step=500, steps=1000)], after(100))
    assert back is not None
    assert back.ends_at is None
    on = meter.read([line(step=600, steps=1000)], after(150))
    assert on is not None
    assert on.ends_at == after(350)


def test_a_loss_that_is_no_number_is_json_all_the_same() -> None:
    progress = ProgressMeter().read([line(step=3, steps=9, loss=float("nan"))], NOON)
    assert progress is not None
    assert json.loads(json.dumps(document(progress), allow_nan=False))["loss"] == "nan"
    assert "loss nan" in sentence(progress)


@given(st.floats(allow_nan=True), st.floats(allow_nan=True), st.floats(allow_nan=True), st.floats(allow_nan=True))
def test_whatever_is_printed_the_fraction_is_one(step: float, steps: float, epoch: float, epochs: float) -> None:
    fraction = fraction_done(step, steps, epoch, epochs)
    assert fraction is None or 0 <= fraction <= 1


@given(
    st.lists(st.dictionaries(st.sampled_from(["step", "steps", "epoch", "epochs", "loss"]), st.floats()), max_size=8)
)
def test_whatever_is_printed_can_be_told(reports: list[dict[str, float]]) -> None:
    meter = ProgressMeter()
    for number, report in enumerate(reports):
        if progress := meter.read([line(**report)], after(number)):
            assert sentence(progress).startswith("Progress: ")
            json.dumps(document(progress), allow_nan=False)


@given(st.integers(1, 10**6), st.integers(2, 10**6), st.floats(0.01, 3600))
def test_at_a_steady_pace_the_end_is_exact(done: int, steps: int, step_s: float) -> None:
    done = min(done, steps - 1)
    points = [(NOON, 0.0), (after(done * step_s), done / steps)]
    end = estimated_end(points)
    assert end is not None
    assert (end - NOON).total_seconds() == pytest.approx(steps * step_s, rel=1e-6, abs=1e-3)


def test_no_pace_no_end() -> None:
    assert estimated_end([]) is None
    assert estimated_end([(NOON, 0.1)]) is None
    assert estimated_end([(NOON, 0.1), (after(60), 0.1)]) is None
    assert estimated_end([(NOON, 0.1), (NOON, 0.2)]) is None


def test_progress_is_told_at_once_then_rarely_and_the_last_always() -> None:
    reports = ProgressReports(every_s=60)
    told = [
        reports.take([line(step=step, steps=100)], after(seconds), last=seconds == 95)
        for step, seconds in [(1, 0), (2, 30), (3, 59), (4, 60), (5, 90), (6, 95)]
    ]
    assert [progress.step if progress else None for progress in told] == [1, None, None, 4, None, 6]


def test_what_was_held_back_is_told_when_it_is_time_and_nothing_twice() -> None:
    reports = ProgressReports(every_s=60)
    assert reports.take([line(step=1)], NOON)
    assert reports.take([line(step=2)], after(10)) is None
    held_back = reports.take([], after(61))
    assert held_back is not None
    assert held_back.step == 2
    assert reports.take([], after(200)) is None
