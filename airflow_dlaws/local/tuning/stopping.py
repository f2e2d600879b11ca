"""Which children of a tuning job are stopped early by AWS's median rule. Pure decisions.

A job's series is what it has reported of the objective metric, in order, all hosts together; its length is the resource
that it has used ("epochs").
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

Series = Sequence[float]

#: The fewest completed jobs whose median says anything; AWS does not name its own figure.
_FEWEST_COMPLETED = 3


@dataclass(frozen=True, kw_only=True)
class Running:
    """A job that runs: its number in the tuning job (from 0), and its series so far."""

    number: int
    series: Series


class StoppingRule(Protocol):
    """Decides about a running job each time its series has grown."""

    def stops(self, job: Running, completed: Iterable[Series]) -> bool:
        """Tell whether to stop `job`; `completed` are the series of the jobs that ran to their end."""


class NeverStop:
    """TrainingJobEarlyStoppingType Off."""

    def stops(self, job: Running, completed: Iterable[Series]) -> bool:
        """See `StoppingRule`."""
        return False


class MedianRule:
    """TrainingJobEarlyStoppingType Auto, as AWS documents it ("Stop Training Jobs Early").

    The value at an epoch is compared with the median, over the completed jobs, of the running average up to that epoch.
    """

    def __init__(self, *, minimize: bool) -> None:
        self._minimize = minimize
        self._judged: dict[int, int] = {}

    def stops(self, job: Running, completed: Iterable[Series]) -> bool:
        """See `StoppingRule`."""
        others = [series for series in completed if series]
        start = self._judged.get(job.number, 0)
        self._judged[job.number] = len(job.series)
        if len(others) < _FEWEST_COMPLETED:
            return False
        return any(
            worse(job.series[epoch - 1], _median_of_averages(others, epoch), minimize=self._minimize)
            for epoch in range(start + 1, len(job.series) + 1)
        )


def _median_of_averages(others: Iterable[Series], epoch: int) -> float:
    return statistics.median(statistics.fmean(series[:epoch]) for series in others)


def worse(value: float, than: float, *, minimize: bool) -> bool:
    """Tell whether a value is worse than another."""
    return value > than if minimize else value < than
