"""Datapoints of CloudWatch metrics, aggregated per second as they come in, found by exact dimensions.

CloudWatch treats each combination of dimensions as a metric of its own; a query never matches a subset. Buckets keep
their values as packed doubles, so percentiles are exact. Nothing here knows moto, and nothing reads the clock.
"""

from __future__ import annotations

import math
import re
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

#: CloudWatch keeps standard metrics by the minute; only StorageResolution 1 keeps seconds.
STANDARD_RESOLUTION = 60

PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d{1,10})?|100)")
#: Trimmed count between absolute values: exclusive below, inclusive above, either may be left out.
TRIMMED_COUNT = re.compile(r"TC\((\d+(?:\.\d{1,10})?)?:(\d+(?:\.\d{1,10})?)?\)")

Dimensions = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class MetricName:
    """What CloudWatch calls a metric: namespace, name and the exact set of dimensions (sorted)."""

    namespace: str
    name: str
    dimensions: Dimensions = ()


def dimensions_of(pairs: Iterable[Mapping[str, str]]) -> Dimensions:
    """Turn `[{"Name": ..., "Value": ...}]` into the sorted form that identifies a metric."""
    return tuple(sorted((pair["Name"], pair["Value"]) for pair in pairs))


@dataclass
class Bucket:
    """All samples of one span of time: count, sum, extremes, and the single values where they are known."""

    count: float = 0.0
    total: float = 0.0
    lowest: float = math.inf
    highest: float = -math.inf
    values: array[float] = field(default_factory=lambda: array("d"))

    def add(self, value: float) -> None:
        """Add one sample."""
        self.count += 1
        self.total += value
        self.lowest = min(self.lowest, value)
        self.highest = max(self.highest, value)
        self.values.append(value)

    def add_set(self, *, count: float, total: float, lowest: float, highest: float) -> None:
        """Add a StatisticSet, whose single values are unknown."""
        self.count += count
        self.total += total
        self.lowest = min(self.lowest, lowest)
        self.highest = max(self.highest, highest)

    def merge(self, other: Bucket) -> None:
        """Add everything another bucket holds."""
        self.add_set(count=other.count, total=other.total, lowest=other.lowest, highest=other.highest)
        self.values.extend(other.values)

    def percentile(self, rank: float) -> float | None:
        """Interpolate linearly between the two closest samples; None where samples came only as statistic sets.

        As CloudWatch, a statistic set of one sample, or of equal extremes, counts as its value.
        """
        if len(self.values) < self.count:
            return self.lowest if self.lowest == self.highest else None
        ordered = sorted(self.values)
        position = (len(ordered) - 1) * rank / 100
        low = math.floor(position)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (ordered[high] - ordered[low]) * (position - low)

    def count_between(self, low: float, high: float) -> float | None:
        """Count samples above `low` and up to `high`; None where samples came only as statistic sets."""
        if len(self.values) < self.count:
            return None
        return float(sum(low < value <= high for value in self.values))


_PLAIN: dict[str, Callable[[Bucket], float]] = {
    "SampleCount": lambda bucket: bucket.count,
    "Sum": lambda bucket: bucket.total,
    "Average": lambda bucket: bucket.total / bucket.count,
    "Minimum": lambda bucket: bucket.lowest,
    "Maximum": lambda bucket: bucket.highest,
}


def is_statistic(name: str) -> bool:
    """Whether this statistic can be computed here: the five plain ones, percentiles (p99.9), counts (TC(100:200))."""
    counts = TRIMMED_COUNT.fullmatch(name)
    return name in _PLAIN or PERCENTILE.fullmatch(name) is not None or bool(counts and any(counts.groups()))


def statistic(bucket: Bucket, name: str) -> float | None:
    """Compute a statistic of a bucket that is not empty; None if it is a percentile of unknown values."""
    if name in _PLAIN:
        return _PLAIN[name](bucket)
    if counts := TRIMMED_COUNT.fullmatch(name):
        low, high = counts.groups()
        return bucket.count_between(float(low) if low else -math.inf, float(high) if high else math.inf)
    return bucket.percentile(float(name[1:]))


@dataclass
class Series:
    """One metric's buckets by epoch second."""

    buckets: dict[int, Bucket] = field(default_factory=dict)
    unit: str | None = None
    last: int = 0

    def at(self, second: int) -> Bucket:
        """Return the bucket of this second, making it if need be."""
        bucket = self.buckets.get(second)
        if bucket is None:
            bucket = self.buckets[second] = Bucket()
            self.last = max(self.last, second)
        return bucket

    def between(self, start: int, end: int) -> Iterator[tuple[int, Bucket]]:
        """Return seconds and buckets of `start <= second < end`, by the cheaper of two walks; in no order."""
        if end - start < len(self.buckets):
            return ((second, self.buckets[second]) for second in range(start, end) if second in self.buckets)
        return ((second, bucket) for second, bucket in self.buckets.items() if start <= second < end)


class MetricStore:
    """All metrics of one account and region. Safe for many threads."""

    def __init__(self) -> None:
        self._series: dict[MetricName, Series] = {}
        self._lock = threading.Lock()

    def record(
        self,
        samples: Iterable[tuple[MetricName, float, str | None]],
        second: int,
        resolution: int = STANDARD_RESOLUTION,
    ) -> None:
        """Add single samples (metric, value, unit) at one moment; `resolution` in seconds, as published."""
        second -= second % resolution
        with self._lock:
            for name, value, unit in samples:
                self._find(name, unit).at(second).add(value)

    def record_set(
        self, name: MetricName, values: Mapping[str, Any], second: int, resolution: int, unit: str | None
    ) -> None:
        """Add a StatisticSet `{"SampleCount", "Sum", "Minimum", "Maximum"}`."""
        with self._lock:
            self._find(name, unit).at(second - second % resolution).add_set(
                count=float(values["SampleCount"]),
                total=float(values["Sum"]),
                lowest=float(values["Minimum"]),
                highest=float(values["Maximum"]),
            )

    def periods(self, name: MetricName, start: int, end: int, period: int) -> list[tuple[int, Bucket]]:
        """Return (period start, merged bucket), ascending, of the periods of `start <= t < end` that have samples.

        Periods are aligned to `start`.
        """
        merged: dict[int, Bucket] = {}
        with self._lock:
            series = self._series.get(name)
            for second, bucket in series.between(start, end) if series else ():
                merged.setdefault(second - (second - start) % period, Bucket()).merge(bucket)
        return sorted(merged.items())

    def unit_of(self, name: MetricName) -> str | None:
        """Return the unit of the metric's last sample, None if it has none."""
        series = self._series.get(name)
        return series.unit if series else None

    def names(self) -> list[MetricName]:
        """Return every metric that has data."""
        with self._lock:
            return list(self._series)

    def _find(self, name: MetricName, unit: str | None) -> Series:
        series = self._series.get(name)
        if series is None:
            series = self._series[name] = Series()
        series.unit = unit or series.unit
        return series
