"""How far a training has come, read from the metric lines it prints. Pure: lines and times in, a sentence out.

A script prints (`metric_line`) what it knows of: `step` and `steps` (all of them), `epoch` and `epochs`, `loss` or
`train:loss`, `samples_per_second`, `checkpoint_step` (the last one saved). The rest is arithmetic.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_dlaws.jobs.metric_line import parse_line
from airflow_dlaws.jobs.wire import to_json

#: The XCom that shows a task's progress while it waits.
PROGRESS_XCOM = "progress"
#: Looks over which the pace is measured: long enough to be steady, short enough to follow another batch size.
WINDOW = 20

#: Names of metrics, the preferred first.
_STEP, _STEPS, _EPOCH, _EPOCHS = ("step",), ("steps", "total_steps"), ("epoch",), ("epochs",)
_LOSS = ("loss", "train:loss")
_PACE = ("samples_per_second",)
_CHECKPOINT = ("checkpoint_step",)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a training has last said of itself; None for what it has not.

    :param fraction: 0 to 1, of all steps or else of all epochs.
    :param ends_at: when it has done all steps, at the pace of the last looks; without upload and what follows.
    :param checkpoint_step: the last step whose checkpoint is saved.
    """

    step: float | None = None
    steps: float | None = None
    epoch: float | None = None
    epochs: float | None = None
    loss: float | None = None
    samples_per_second: float | None = None
    fraction: float | None = None
    checkpoint_step: float | None = None
    observed_at: datetime
    ends_at: datetime | None = None


def estimated_end(points: Sequence[tuple[datetime, float]]) -> datetime | None:
    """Return when the fraction done will be 1, if it goes on at the pace between the first and the last point.

    :param points: (moment, fraction done), in order of time. None where no pace can be told from them.
    """
    if len(points) < 2:
        return None
    (began, first), (now, last) = points[0], points[-1]
    elapsed = (now - began).total_seconds()
    if elapsed <= 0 or last <= first:
        return None
    remaining = max(0.0, 1 - last) * elapsed / (last - first)
    try:
        return now + timedelta(seconds=remaining)
    except OverflowError:  # a pace so slow that there is no such date
        return None


def fraction_done(step: float | None, steps: float | None, epoch: float | None, epochs: float | None) -> float | None:
    """Return the share that is done, 0 to 1; of the steps where they are known, else of the epochs."""
    for done, everything in ((step, steps), (epoch, epochs)):
        if done is not None and everything is not None and math.isfinite(done) and 0 < everything < math.inf:
            return min(1.0, max(0.0, done / everything))
    return None


class ProgressMeter:
    """Reads the lines of one look after the other."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}
        self._points: deque[tuple[datetime, float]] = deque(maxlen=WINDOW)

    def read(self, lines: Iterable[str], now: datetime) -> Progress | None:
        """Take in new lines; return the progress where they tell of any.

        :param now: when they were seen; hosts' own clocks are not asked.
        """
        reports = [report for line in lines if (report := parse_line(line))]
        told = [report for report in reports if any(name in report for name in (*_STEP, *_EPOCH, *_CHECKPOINT))]
        if not told:
            return None
        for report in told:
            self._said.update(report)
        fraction = fraction_done(self._get(_STEP), self._get(_STEPS), self._get(_EPOCH), self._get(_EPOCHS))
        self._note(now, fraction)
        return Progress(
            step=self._get(_STEP),
            steps=self._get(_STEPS),
            epoch=self._get(_EPOCH),
            epochs=self._get(_EPOCHS),
            loss=self._get(_LOSS),
            samples_per_second=self._get(_PACE),
            fraction=fraction,
            checkpoint_step=self._get(_CHECKPOINT),
            observed_at=now,
            ends_at=estimated_end(tuple(self._points)),
        )

    def _get(self, names: Sequence[str]) -> float | None:
        return next((self._said[name] for name in names if name in self._said), None)

    def _note(self, now: datetime, fraction: float | None) -> None:
        """Keep a point of the curve; what went back (a resumed job) begins a new one."""
        if fraction is None:
            return
        if self._points and fraction < self._points[-1][1]:
            self._points.clear()
        self._points.append((now, fraction))


def sentence(progress: Progress) -> str:
    """Say how far the training has come, in one line."""
    parts = [
        _of("step", progress.step, progress.steps),
        _of("epoch", progress.epoch, progress.epochs),
        f"{progress.fraction:.0%} done" if progress.fraction is not None else "",
        f"loss {progress.loss:.4g}" if progress.loss is not None else "",
        f"{progress.samples_per_second:,.0f} samples/s" if progress.samples_per_second is not None else "",
        f"checkpoint at step {progress.checkpoint_step:,.0f}" if progress.checkpoint_step is not None else "",
        _end(progress.ends_at, progress.observed_at),
    ]
    return "Progress: " + ", ".join(part for part in parts if part)


def document(progress: Progress) -> dict[str, Any]:
    """Return the progress as JSON with its sentence; a loss that is no number is said in words, as JSON has none."""

    def plain(value: Any) -> Any:
        return str(value) if isinstance(value, float) and not math.isfinite(value) else value

    return {name: plain(value) for name, value in to_json(progress).items()} | {"sentence": sentence(progress)}


def _of(noun: str, done: float | None, everything: float | None) -> str:
    if done is None:
        return ""
    return f"{noun} {done:,.10g}" + (f" of {everything:,.10g}" if everything is not None else "")


def _end(ends_at: datetime | None, now: datetime) -> str:
    if ends_at is None:
        return ""
    left = timedelta(seconds=round((ends_at - now).total_seconds()))
    return f"about {left} left, training ends about {ends_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


class ProgressReports:
    """Decides when progress is told again: at most once in `every_s` seconds, the first time at once."""

    def __init__(self, every_s: float) -> None:
        self._meter, self._every = ProgressMeter(), timedelta(seconds=every_s)
        self._last_told: datetime | None = None
        self._newest: Progress | None = None

    def take(self, lines: Iterable[str], now: datetime, *, last: bool = False) -> Progress | None:
        """Take in new lines; return the progress that is to be told now, if any is.

        :param last: the job has ended: what is not told now never will be.
        """
        self._newest = self._meter.read(lines, now) or self._newest
        due = self._last_told is None or last or now - self._last_told >= self._every
        if self._newest is None or not due:
            return None
        told, self._newest, self._last_told = self._newest, None, now
        return told
