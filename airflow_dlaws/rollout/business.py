"""A number that the user's business lives by, for both fleets: is green worse by more than is worthwhile?

Whoever rolls out names a function or a CloudWatch metric that gives, for a window of time, a total and a number of
units for each configuration: orders among visits, minutes watched among sessions. A unit is worth 0 to `largest`. Harm
is a mean of green's that is worse than blue's by more than `smallest_loss` of it; `margin` tests that on each window,
with bets made of what blue's earlier windows came to, so looking at every window costs nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.rollout.harm import log_sum
from airflow_dlaws.rollout.margin import Margin, RateWindow, log_factor
from airflow_dlaws.rollout.shifts import grew

#: package.module.function, with a colon before the function if one likes.
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*[.:][A-Za-z_]\w*")
#: Losses that bets are on, in units of the smallest worthwhile one.
_TIMES_SMALLEST = (1.5, 3.0, 8.0)
_LARGEST_LOSS = 0.95
#: Before blue has served so many units no bet is made: its mean is not known.
_FEWEST_BLUE_UNITS = 20


@dataclass(frozen=True, kw_only=True)
class BusinessMetric:
    """Where the numbers come from, and what is a loss. Names `function`, or `namespace` and `metric`."""

    #: Dotted path of a function of (endpoint_name, window); see `launchers.business_metric`.
    function: str = ""
    #: A CloudWatch metric of one value a unit; in its dimensions {endpoint} and {config} are filled in.
    namespace: str = ""
    metric: str = ""
    dimensions: Mapping[str, str] = field(default_factory=dict)
    higher_is_better: bool = True
    #: The smallest loss worth a rollback, as a share of blue's mean.
    smallest_loss: float = 0.1
    #: The largest value of one unit; 1 for what happens or does not.
    largest: float = 1.0
    #: Below so many units of green there is no verdict.
    min_units: int = 100

    def __post_init__(self) -> None:
        if bool(self.function) == bool(self.metric) or bool(self.metric) != bool(self.namespace):
            raise SpecificationError(
                f"business_metric: give function, or namespace and metric of CloudWatch; there are function="
                f"{self.function!r}, namespace={self.namespace!r}, metric={self.metric!r}"
            )
        if self.function and not _DOTTED.fullmatch(self.function):
            raise SpecificationError(
                f"business_metric: {self.function!r} is no dotted path; name a function of a module that workers and "
                "triggerer can import, such as 'shop.metrics.orders'"
            )
        checks = (("smallest_loss", self.smallest_loss, 0.001, 0.9), ("min_units", self.min_units, 1, 10**9))
        for name, value, low, high in checks:
            if not low <= value <= high:
                raise SpecificationError(f"business_metric: {name}={value} is outside what is allowed, {low} to {high}")
        if not (self.largest > 0 and math.isfinite(self.largest)):
            raise SpecificationError(f"business_metric: largest={self.largest} must be a number above 0")

    @property
    def name(self) -> str:
        """What it is called."""
        return self.function or f"{self.namespace} {self.metric}"


def read_metric(value: object) -> BusinessMetric | None:
    """Read the operator's argument: a dotted path, a mapping of `BusinessMetric`'s fields, or None.

    :raises SpecificationError: it is something else (a lambda, a function), or a field is unknown.
    """
    if value in (None, "", "None"):
        return None
    if isinstance(value, BusinessMetric):
        return value
    if isinstance(value, str):
        return BusinessMetric(function=value)
    if not isinstance(value, Mapping):
        raise SpecificationError(
            f"business_metric={value!r}: the triggerer is another process, so name the function by its dotted path, "
            "such as 'shop.metrics.orders', or give a mapping of the fields of BusinessMetric"
        )
    known = sorted(each.name for each in fields(BusinessMetric))
    if unknown := sorted(set(map(str, value)) - set(known)):
        raise SpecificationError(f"business_metric has no field {unknown}; its fields are {known}")
    return BusinessMetric(**{str(name): _field(str(name), part) for name, part in value.items()})


def _field(name: str, value: Any) -> Any:
    readers: Mapping[str, Any] = {"smallest_loss": float, "largest": float, "min_units": int}
    try:
        return readers[name](value) if name in readers else value
    except (TypeError, ValueError) as error:
        raise SpecificationError(f"business_metric: {name}={value!r} is no number") from error


@dataclass(frozen=True, kw_only=True)
class BusinessSums:
    """What one fleet came to in a window."""

    total: float
    units: int


@dataclass(frozen=True, kw_only=True)
class BusinessWindow:
    """Both fleets, in one window. `start` is in epoch seconds."""

    start: int
    green: BusinessSums
    blue: BusinessSums


@dataclass(frozen=True, kw_only=True)
class BusinessEvidence:
    """How far the business metric speaks against green."""

    log_evidence: float
    green: BusinessSums
    blue: BusinessSums
    #: Units of green that stand beside units of blue; only these are compared.
    compared_units: int = 0
    #: Whether these are as many as a verdict needs.
    is_enough: bool
    sentence: str


def judge_business(metric: BusinessMetric, windows: Sequence[BusinessWindow]) -> BusinessEvidence:
    """Return the evidence of all windows, each used once."""
    logs = [-math.log(len(_TIMES_SMALLEST))] * len(_TIMES_SMALLEST)
    green = blue = BusinessSums(total=0.0, units=0)
    before, compared = None, 0
    for window in sorted(windows, key=lambda window: window.start):
        is_known = blue.units >= _FEWEST_BLUE_UNITS
        if is_known and window.green.units and window.blue.units and not _moved(metric, before, window):
            compared += window.green.units
            mean = (blue.total + metric.largest / 2) / (blue.units + 1) / metric.largest
            logs = [log + _log_factor(metric, n, mean, window) for log, n in zip(logs, _TIMES_SMALLEST, strict=True)]
        green, blue, before = _plus(green, window.green), _plus(blue, window.blue), window
    return BusinessEvidence(
        log_evidence=log_sum(logs),
        green=green,
        blue=blue,
        compared_units=compared,
        is_enough=compared >= metric.min_units,
        sentence=f"{metric.name}: {_mean(green)} of green, {_mean(blue)} of blue",
    )


def _moved(metric: BusinessMetric, before: BusinessWindow | None, window: BusinessWindow) -> bool:
    """Tell whether traffic moved to green within the window: a spell that began then would meet green more."""
    if before is None:
        return False
    if not before.green.units:
        # A function is asked from the moment green had traffic; CloudWatch counts whole minutes.
        return bool(metric.metric)
    return grew((before.green.units, before.blue.units), (window.green.units, window.blue.units))


def _log_factor(metric: BusinessMetric, times: float, mean: float, window: BusinessWindow) -> float:
    loss = metric.smallest_loss
    bet = min(loss * times, _LARGEST_LOSS) if metric.higher_is_better else loss * times
    green, blue = (sums.total / metric.largest for sums in (window.green, window.blue))
    if metric.higher_is_better:
        # In terms of what is missing to the largest value: a loss is more of it.
        return log_factor(
            Margin(intercept=loss, slope=1 - loss),
            1 - mean * (1 - bet),
            1 - mean,
            RateWindow(
                green=window.green.units,
                green_hits=window.green.units - green,
                blue=window.blue.units,
                blue_hits=window.blue.units - blue,
            ),
        )
    return log_factor(
        Margin(intercept=0.0, slope=1 + loss),
        mean * (1 + bet),
        mean,
        RateWindow(green=window.green.units, green_hits=green, blue=window.blue.units, blue_hits=blue),
    )


def _plus(left: BusinessSums, right: BusinessSums) -> BusinessSums:
    return BusinessSums(total=left.total + right.total, units=left.units + right.units)


def _mean(sums: BusinessSums) -> str:
    return f"{sums.total / sums.units:.4g} a unit among {sums.units}" if sums.units else "nothing"
