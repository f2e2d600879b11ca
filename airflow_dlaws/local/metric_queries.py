"""GetMetricStatistics and GetMetricData over the metric store, and what of their requests CloudWatch refuses."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from airflow_dlaws.local.metric_store import MetricName, MetricStore, dimensions_of, is_statistic, statistic

#: Periods under a minute that CloudWatch knows.
SHORT_PERIODS = frozenset({1, 5, 10, 20, 30})
#: Most datapoints of one GetMetricStatistics answer.
DATAPOINT_LIMIT = 1440


class BadQuery(Exception):
    """A request CloudWatch refuses; the message says why."""


def epoch(moment: datetime) -> int:
    """Seconds since 1970; a time without zone is UTC."""
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def check_period(period: int) -> None:
    """Refuse a period that is neither a multiple of 60 nor one of the short ones.

    :raises BadQuery: it is.
    """
    if period not in SHORT_PERIODS and (period < 60 or period % 60):
        raise BadQuery(f"Period must be 1, 5, 10, 20, 30 or a multiple of 60 seconds, not {period}.")


def statistics(store: MetricStore, request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Answer GetMetricStatistics.

    :raises BadQuery: the request is one CloudWatch refuses.
    """
    plain, extended = list(request.get("Statistics") or ()), list(request.get("ExtendedStatistics") or ())
    if not plain and not extended:
        raise BadQuery("Must specify either Statistics or ExtendedStatistics")
    name = MetricName(request["Namespace"], request["MetricName"], dimensions_of(request.get("Dimensions") or ()))
    start, end, period = _range(request["StartTime"], request["EndTime"], int(request["Period"]))
    if (end - start) / period > DATAPOINT_LIMIT:
        raise BadQuery(
            f"You have requested up to {(end - start) // period} datapoints, which exceeds the limit of "
            f"{DATAPOINT_LIMIT}. You may reduce them by increasing Period, or decreasing the time range."
        )
    _check_statistics([*plain, *extended])
    unit = store.unit_of(name)
    if request.get("Unit") not in (None, unit):
        return []
    datapoints = []
    for moment, bucket in store.periods(name, start, end, period):
        point: dict[str, Any] = {"Timestamp": datetime.fromtimestamp(moment, UTC), "Unit": unit or "None"}
        point |= {wanted: statistic(bucket, wanted) for wanted in plain}
        if extended:
            ranks = {wanted: statistic(bucket, wanted) for wanted in extended}
            point["ExtendedStatistics"] = {wanted: value for wanted, value in ranks.items() if value is not None}
        datapoints.append(point)
    return datapoints


def metric_data(store: MetricStore, request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Answer GetMetricData, without metric math.

    :raises BadQuery: the request is one CloudWatch refuses, or it has an expression.
    """
    newest_first = request.get("ScanBy", "TimestampDescending") == "TimestampDescending"
    results = [_result(store, query, request, newest_first) for query in request.get("MetricDataQueries") or ()]
    return [result for result in results if result is not None]


def _result(
    store: MetricStore, query: Mapping[str, Any], request: Mapping[str, Any], newest_first: bool
) -> dict[str, Any] | None:
    if "Expression" in query:
        raise BadQuery(
            f"The local AWS does not support metric math ({query['Expression']!r}); ask for the metrics and compute."
        )
    if "MetricStat" not in query:
        raise BadQuery("The parameter MetricDataQueries.member.1.MetricStat is required.")
    stat = query["MetricStat"]
    metric, wanted = stat["Metric"], stat["Stat"]
    _check_statistics([wanted])
    start, end, period = _range(request["StartTime"], request["EndTime"], int(stat["Period"]))
    if not query.get("ReturnData", True):
        return None
    name = MetricName(metric["Namespace"], metric["MetricName"], dimensions_of(metric.get("Dimensions") or ()))
    points = [(moment, statistic(bucket, wanted)) for moment, bucket in store.periods(name, start, end, period)]
    points = [(moment, value) for moment, value in points if value is not None]
    if stat.get("Unit") not in (None, store.unit_of(name)):
        points = []
    points.sort(reverse=newest_first)
    return {
        "Id": query["Id"],
        "Label": query.get("Label") or metric["MetricName"],
        "Timestamps": [datetime.fromtimestamp(moment, UTC) for moment, _ in points],
        "Values": [value for _, value in points],
        "StatusCode": "Complete",
    }


def _range(start: datetime, end: datetime, period: int) -> tuple[int, int, int]:
    """CloudWatch rounds the start down to whole periods; the end is exclusive."""
    check_period(period)
    first, last = epoch(start), epoch(end)
    if first >= last:
        raise BadQuery("The parameter StartTime must be less than the parameter EndTime.")
    return first - first % period, last, period


def _check_statistics(names: list[str]) -> None:
    for name in names:
        if not is_statistic(name):
            raise BadQuery(
                f"The local AWS does not support the statistic {name!r}; it has SampleCount, Average, Sum, Minimum, "
                "Maximum, percentiles such as p90 and trimmed counts between values such as TC(100:200)."
            )
