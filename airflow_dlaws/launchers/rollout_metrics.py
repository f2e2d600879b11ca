"""CloudWatch's metrics for one rollout: both fleets minute by minute, and what the endpoint did in the hour before.

Counts above a latency are CloudWatch's trimmed count, "TC(12000:)": how many samples are above 12000 (exclusive).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from airflow_dlaws.launchers.aws_errors import service_errors
from airflow_dlaws.launchers.rollout_watch import dimensions
from airflow_dlaws.rollout.analysis import Minute
from airflow_dlaws.rollout.latency import LEVELS, LatencyReference, reference_of
from airflow_dlaws.rollout.stakes import Traffic

#: SageMaker publishes the metrics of endpoints by the minute.
_MINUTE = 60
_HOUR = 3600
_FLEETS = ("green", "blue")
#: Metrics of one minute need not come at the same time; after so long what has not come is nothing.
_COMPLETE_SECONDS = 180
#: What the report draws of latency.
_QUANTILES = ("p50", "p95")


@dataclass(frozen=True, kw_only=True)
class Past:
    """What an endpoint did in the hour before a rollout."""

    traffic: Traffic | None
    latency: LatencyReference | None


@dataclass
class _Counts:
    plain: dict[str, int] = field(default_factory=dict)
    quantiles: dict[str, float] = field(default_factory=dict)
    over: dict[str, dict[int, int]] = field(default_factory=lambda: {fleet: {} for fleet in _FLEETS})

    def add(self, identifier: str, value: float) -> None:
        fleet, _, name = identifier.partition("_")
        if name.startswith("over"):
            self.over[fleet][int(name[4:])] = round(value)
        elif name in _QUANTILES:
            self.quantiles[identifier] = value
        else:
            self.plain[identifier] = round(value)

    @property
    def lacks_errors(self) -> bool:
        """A fleet's requests are there, and its errors (each request is one, of 0 or 1) have not come yet."""
        return any(f"{fleet}_requests" in self.plain and f"{fleet}_errors" not in self.plain for fleet in _FLEETS)

    def minute(self, start: int, thresholds: int) -> Minute:
        over = {fleet: tuple(self.over[fleet].get(index, 0) for index in range(thresholds)) for fleet in _FLEETS}
        # Dimensions of only one fleet exist in some minutes: the other has no samples, which is no counts.
        timed = {fleet: self.plain.get(f"{fleet}_timed", 0) for fleet in _FLEETS}
        return Minute(
            start=start,
            green_requests=self.plain.get("green_requests", 0),
            green_errors=self.plain.get("green_errors", 0),
            blue_requests=self.plain.get("blue_requests", 0),
            blue_errors=self.plain.get("blue_errors", 0),
            green_timed=timed["green"],
            blue_timed=timed["blue"],
            green_over=over["green"],
            blue_over=over["blue"],
            **self.quantiles,
        )


class RolloutMetrics:
    """Requests, errors and latencies of both fleets. `client` is a boto3 CloudWatch client."""

    def __init__(self, client: Any, *, endpoint_name: str, variant_name: str) -> None:
        self._client = client
        self._endpoint, self._variant = endpoint_name, variant_name

    def minutes(
        self,
        *,
        green: str,
        blue: str,
        since: float,
        until: float,
        latency: LatencyReference | None = None,
        green_variant: str | None = None,
    ) -> tuple[Minute, ...]:
        """Return the minutes that have any request, of the configurations `green` and `blue` (epoch seconds).

        One whose requests have come without their errors is left for the next look: a burst that both fleets met
        would be green's alone.

        :param green_variant: where green is another variant than blue, as a shadow is.
        """
        thresholds = latency.thresholds if latency else ()
        queries = [
            query
            for fleet, config, variant in zip(_FLEETS, (green, blue), (green_variant, None), strict=True)
            if config
            for query in self._fleet_queries(fleet, config, thresholds, variant or self._variant)
        ]
        start = int(since) // _MINUTE * _MINUTE
        end = (int(until) // _MINUTE + 1) * _MINUTE
        counts: dict[int, _Counts] = {}
        for identifier, at, value in self._read(queries, start, end):
            counts.setdefault(at, _Counts()).add(identifier, value)
        return tuple(
            found.minute(at, len(thresholds))
            for at, found in sorted(counts.items())
            if not found.lacks_errors or at + _MINUTE <= until - _COMPLETE_SECONDS
        )

    def past(self, config_name: str, *, now: float) -> Past:
        """Return what the configuration in service did in the busiest of the last whole and the current hour."""
        queries = [
            self._query("requests", "Invocations", config_name, "Sum", _HOUR),
            self._query("errors", "Invocation5XXErrors", config_name, "Sum", _HOUR),
            self._query("answers", "ModelLatency", config_name, "SampleCount", _HOUR),
            self._query("minutes", "Invocations", config_name, "SampleCount", _MINUTE),
            *(
                self._query(f"q{round(level * 1000)}", "ModelLatency", config_name, f"p{level * 100:g}", _HOUR)
                for level in LEVELS
            ),
        ]
        end = (int(now) // _MINUTE + 1) * _MINUTE
        start = int(now) // _HOUR * _HOUR - _HOUR
        hours: dict[int, dict[str, float]] = {}
        busy: dict[int, int] = {}
        for identifier, at, value in self._read(queries, start, end):
            hour = at // _HOUR * _HOUR
            if identifier == "minutes":
                busy[hour] = busy.get(hour, 0) + 1
            else:
                hours.setdefault(hour, {})[identifier] = value
        if not hours:
            return Past(traffic=None, latency=None)
        best = max(hours, key=lambda hour: hours[hour].get("requests", 0.0))
        return _past(hours[best], busy.get(best, 0))

    def _read(self, queries: list[Mapping[str, Any]], start: int, end: int) -> Iterator[tuple[str, int, float]]:
        with service_errors(f"read the metrics of endpoint {self._endpoint}"):
            pages = self._client.get_paginator("get_metric_data").paginate(
                MetricDataQueries=queries,
                StartTime=datetime.fromtimestamp(start, UTC),
                EndTime=datetime.fromtimestamp(end, UTC),
                ScanBy="TimestampAscending",
            )
            for page in pages:
                for row in page["MetricDataResults"]:
                    for at, value in zip(row["Timestamps"], row["Values"], strict=True):
                        yield row["Id"], int(at.timestamp()), value

    def _fleet_queries(
        self, fleet: str, config: str, thresholds: tuple[float, ...], variant: str
    ) -> Iterator[Mapping[str, Any]]:
        def query(name: str, metric: str, statistic: str) -> Mapping[str, Any]:
            return self._query(f"{fleet}_{name}", metric, config, statistic, _MINUTE, variant)

        yield query("requests", "Invocations", "Sum")
        yield query("errors", "Invocation5XXErrors", "Sum")
        for quantile in _QUANTILES:
            yield query(quantile, "ModelLatency", quantile)
        if thresholds:
            yield query("timed", "ModelLatency", "SampleCount")
        for index, threshold in enumerate(thresholds):
            yield query(f"over{index}", "ModelLatency", f"TC({threshold:.10g}:)")

    def _query(
        self, identifier: str, metric: str, config_name: str, statistic: str, period: int, variant: str | None = None
    ) -> Mapping[str, Any]:
        names = dimensions(
            EndpointName=self._endpoint, VariantName=variant or self._variant, EndpointConfigName=config_name
        )
        return {
            "Id": identifier,
            "MetricStat": {
                "Metric": {"Namespace": "AWS/SageMaker", "MetricName": metric, "Dimensions": names},
                "Period": period,
                "Stat": statistic,
            },
        }


def _past(found: Mapping[str, float], minutes: int) -> Past:
    requests = found.get("requests", 0.0)
    traffic = None
    if requests and minutes:
        rate = min(1.0, found.get("errors", 0.0) / requests)
        traffic = Traffic(requests_per_minute=requests / minutes, error_rate=rate)
    quantiles = {level: found[f"q{round(level * 1000)}"] for level in LEVELS if f"q{round(level * 1000)}" in found}
    return Past(traffic=traffic, latency=reference_of(quantiles, round(found.get("answers", 0.0))))
