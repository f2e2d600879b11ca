"""Asks the user's function, or CloudWatch, what the business made of both fleets in a window of time.

A function gets the endpoint's name and a `Window`, and returns {"green": (total, units), "blue": (total, units)}. It is
asked once more for a window that has just ended, because orders arrive late. What it raises is an error, never a No.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from airflow_dlaws.errors import ServiceUnavailable, SpecificationError
from airflow_dlaws.launchers.aws_errors import service_errors
from airflow_dlaws.rollout.business import BusinessMetric, BusinessSums, BusinessWindow

#: A window: CloudWatch counts by the minute.
_SECONDS = 60
#: Windows that ended so long ago have all their events, and are not asked for again.
_SETTLED_SECONDS = 120
_FLEETS = ("green", "blue")


@dataclass(frozen=True, kw_only=True)
class Window:
    """What a function is asked about: two configurations of one endpoint, from `start` (included) to `end`, in UTC."""

    green_config: str
    blue_config: str
    start: datetime
    end: datetime


def business_function(metric: BusinessMetric) -> Callable[[str, Window], Any]:
    """Import the function.

    :raises SpecificationError: there is none of that name.
    """
    module, _, name = metric.function.replace(":", ".").rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise SpecificationError(
            f"business_metric {metric.function!r} cannot be imported here: {error!r}; workers and the triggerer must "
            "have its module on their path"
        ) from error
    if not callable(found):
        raise SpecificationError(f"business_metric {metric.function!r} is no function but {found!r}")
    return found  # type: ignore[no-any-return]


class BusinessReader:
    """Reads one metric for one rollout. `cloudwatch` is a boto3 client."""

    def __init__(self, metric: BusinessMetric, cloudwatch: Any, *, endpoint_name: str) -> None:
        self._metric, self._client, self._endpoint = metric, cloudwatch, endpoint_name

    def read(
        self, known: tuple[BusinessWindow, ...], *, green: str, blue: str, since: float, until: float
    ) -> tuple[BusinessWindow, ...]:
        """Return all windows so far; those of `known` that are settled are not asked for again.

        :param green: configurations' names, like `blue`; :param since: epoch seconds, like `until`, which is now. A
            function is asked for no time before, so that both fleets serve all through the first window.
        :raises ServiceUnavailable: the function raised, or returned something else than sums.
        """
        settled = [window for window in known if window.start + _SECONDS <= until - _SETTLED_SECONDS]
        start = settled[-1].start + _SECONDS if settled else int(since) // _SECONDS * _SECONDS
        starts = range(start, int(until) + 1, _SECONDS)
        if self._metric.function:
            return (*settled, *self._called(starts, green, blue, since))
        return (*settled, *self._counted(list(starts), green, blue))

    def _called(self, starts: Iterable[int], green: str, blue: str, since: float) -> list[BusinessWindow]:
        function = business_function(self._metric)
        windows = []
        for start in starts:
            window = Window(
                green_config=green,
                blue_config=blue,
                start=datetime.fromtimestamp(max(start, since), UTC),
                end=datetime.fromtimestamp(start + _SECONDS, UTC),
            )
            try:
                answer = function(self._endpoint, window)
            except Exception as error:
                raise ServiceUnavailable(
                    f"business_metric {self._metric.name} raised {error!r} for {window}"
                ) from error
            windows.append(BusinessWindow(start=start, green=self._sums(answer, 0), blue=self._sums(answer, 1)))
        return windows

    def _sums(self, answer: Any, fleet: int) -> BusinessSums:
        try:
            total, units = answer[_FLEETS[fleet]] if isinstance(answer, Mapping) else answer[fleet]
            sums = BusinessSums(total=float(total), units=int(units))
        except (TypeError, ValueError, KeyError, IndexError) as error:
            raise ServiceUnavailable(
                f"business_metric {self._metric.name} returned {answer!r}, not "
                "{'green': (total, units), 'blue': (total, units)}"
            ) from error
        if not 0 <= sums.total <= self._metric.largest * sums.units * (1 + 1e-9):
            raise ServiceUnavailable(
                f"business_metric {self._metric.name} says a total of {sums.total:g} in {sums.units} units, and a unit "
                f"is worth 0 to largest={self._metric.largest:g}: set largest"
            )
        return sums

    def _counted(self, starts: list[int], green: str, blue: str) -> list[BusinessWindow]:
        queries = [
            self._query(f"{fleet}_{statistic.lower()}", config, statistic)
            for fleet, config in zip(_FLEETS, (green, blue), strict=True)
            for statistic in ("Sum", "SampleCount")
        ]
        found: dict[int, dict[str, float]] = {start: {} for start in starts}
        with service_errors(f"read the business metric {self._metric.name}"):
            pages = self._client.get_paginator("get_metric_data").paginate(
                MetricDataQueries=queries,
                StartTime=datetime.fromtimestamp(starts[0], UTC),
                EndTime=datetime.fromtimestamp(starts[-1] + _SECONDS, UTC),
            )
            for row in (row for page in pages for row in page["MetricDataResults"]):
                for at, value in zip(row["Timestamps"], row["Values"], strict=True):
                    found.setdefault(int(at.timestamp()), {})[row["Id"]] = value
        return [self._window(start, values) for start, values in sorted(found.items())]

    def _window(self, start: int, values: Mapping[str, float]) -> BusinessWindow:
        pairs = [(values.get(f"{fleet}_sum", 0.0), values.get(f"{fleet}_samplecount", 0.0)) for fleet in _FLEETS]
        return BusinessWindow(start=start, green=self._sums(pairs, 0), blue=self._sums(pairs, 1))

    def _query(self, identifier: str, config: str, statistic: str) -> Mapping[str, Any]:
        words = {"endpoint": self._endpoint, "config": config}
        dimensions = [{"Name": name, "Value": text.format_map(words)} for name, text in self._metric.dimensions.items()]
        metric = {
            "Namespace": self._metric.namespace,
            "MetricName": self._metric.metric,
            "Dimensions": dimensions,
        }
        return {"Id": identifier, "MetricStat": {"Metric": metric, "Period": _SECONDS, "Stat": statistic}}
