"""Simulated hours of two fleets: requests, errors and latencies by the minute, as CloudWatch would count them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from airflow_dlaws.rollout.analysis import Minute

#: Standard deviation of the logarithm of a latency: p95 is 2.3 times the median.
LATENCY_SIGMA = 0.5
#: Blue's traffic for each request of green: a canary of a tenth.
_BLUE_PER_GREEN = 9
_MEDIAN_MICROSECONDS = 40_000
_NORMAL = NormalDist()


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """How green behaves, and how traffic and rates move."""

    name: str
    #: Requests of green a minute.
    requests: int
    error_rate: float = 0.01
    #: Green's error rate over blue's.
    harm: float = 1.0
    #: Green's latency over blue's, at every quantile.
    slowdown: float = 1.0
    #: "constant", "cycle", "bursts" or "slow spells"; what moves, moves for both fleets.
    shape: str = "constant"
    must_find: bool = False
    timed: bool = False

    @property
    def is_harmful(self) -> bool:
        """Whether green is to be rolled back."""
        return self.harm > 1 or self.slowdown > 1


@dataclass(frozen=True)
class Hour:
    """One rollout. Arrays have one entry a minute."""

    green: np.ndarray
    green_errors: np.ndarray
    blue: np.ndarray
    blue_errors: np.ndarray
    #: (minutes, thresholds): answers slower than each.
    green_over: np.ndarray
    blue_over: np.ndarray
    #: Sum over green's answers of the standardised logarithm of the latency, for the test that knows the law.
    green_scores: np.ndarray

    def minute(self, index: int) -> Minute:
        """Return one minute as the analysis takes it."""
        return Minute(
            start=index * 60,
            green_requests=int(self.green[index]),
            green_errors=int(self.green_errors[index]),
            blue_requests=int(self.blue[index]),
            blue_errors=int(self.blue_errors[index]),
            green_timed=int(self.green[index]),
            green_over=tuple(self.green_over[index].tolist()),
            blue_timed=int(self.blue[index]),
            blue_over=tuple(self.blue_over[index].tolist()),
        )


def hours(scenario: Scenario, count: int, minutes: int, thresholds: Sequence[float], seed: int) -> Iterator[Hour]:
    """Yield simulated rollouts.

    :param thresholds: microseconds, increasing.
    """
    random = np.random.default_rng([seed, scenario.requests, *scenario.name.encode()])
    scores = np.array([math.log(threshold / _MEDIAN_MICROSECONDS) / LATENCY_SIGMA for threshold in thresholds])
    for _ in range(count):
        traffic, rates, delays = _shape(scenario, minutes, random)
        green = random.poisson(scenario.requests * traffic)
        blue = random.poisson(scenario.requests * _BLUE_PER_GREEN * traffic)
        slower = np.full(minutes, math.log(scenario.slowdown) / LATENCY_SIGMA)
        green_over, green_scores = _latencies(random, green, delays + slower, scores)
        blue_over, _ = _latencies(random, blue, delays, scores)
        yield Hour(
            green=green,
            green_errors=random.binomial(green, np.minimum(1.0, rates * scenario.harm)),
            blue=blue,
            blue_errors=random.binomial(blue, rates),
            green_over=green_over,
            blue_over=blue_over,
            green_scores=green_scores,
        )


def _shape(scenario: Scenario, minutes: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return traffic (1 is usual), error rates and delays (in standard deviations of the log latency) by the minute."""
    ones, rates, delays = np.ones(minutes), np.full(minutes, scenario.error_rate), np.zeros(minutes)
    if scenario.shape == "cycle":
        phase = np.sin(2 * np.pi * (np.arange(minutes) / minutes + random.random()))
        return 1 + 0.8 * phase, rates * (1 - 0.9 * phase), 0.5 * phase
    spells = random.random(minutes) < 0.1
    if scenario.shape == "bursts":
        return ones, np.where(spells, np.minimum(1.0, rates * random.uniform(5, 30, minutes)), rates), delays
    if scenario.shape == "slow spells":
        return ones, rates, np.where(spells, random.uniform(0.5, 3.0, minutes), 0.0)
    return ones, rates, delays


def _latencies(
    random: np.random.Generator, answers: np.ndarray, delays: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    single = random.standard_normal(int(answers.sum())) + np.repeat(delays, answers)
    minute = np.repeat(np.arange(len(answers)), answers)
    over = np.stack([np.bincount(minute[single > score], minlength=len(answers)) for score in scores], axis=1)
    return over, np.bincount(minute, weights=single, minlength=len(answers))
