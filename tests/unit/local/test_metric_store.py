"""Metrics are found by exact dimensions, and their statistics are right."""

from __future__ import annotations

import statistics
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.local import metric_queries
from airflow_dlaws.local.metric_queries import BadQuery
from airflow_dlaws.local.metric_store import Bucket, MetricName, MetricStore, statistic

NOON = 1_700_049_600
ENDPOINT = MetricName("AWS/SageMaker", "Invocations", (("EndpointName", "e"), ("VariantName", "v")))
WITH_CONFIG = MetricName("AWS/SageMaker", "Invocations", (("EndpointConfigName", "c"), *ENDPOINT.dimensions))


def filled() -> MetricStore:
    store = MetricStore()
    for second in range(120):
        store.record([(ENDPOINT, 1.0, "None"), (WITH_CONFIG, 1.0, "None")], NOON + second, 1)
    return store


def question(**changes: Any) -> dict[str, Any]:
    noon = datetime.fromtimestamp(NOON, UTC)
    return {
        "Namespace": "AWS/SageMaker",
        "MetricName": "Invocations",
        "Dimensions": [{"Name": "VariantName", "Value": "v"}, {"Name": "EndpointName", "Value": "e"}],
        "StartTime": noon,
        "EndTime": noon + timedelta(minutes=2),
        "Period": 60,
        "Statistics": ["Sum"],
        **changes,
    }


def test_a_metric_with_one_dimension_more_is_another_metric() -> None:
    assert [point["Sum"] for point in metric_queries.statistics(filled(), question())] == [60.0, 60.0]


def test_fewer_dimensions_than_a_metric_has_find_nothing() -> None:
    assert metric_queries.statistics(filled(), question(Dimensions=[{"Name": "EndpointName", "Value": "e"}])) == []


def test_the_start_is_rounded_down_to_whole_periods() -> None:
    start = datetime.fromtimestamp(NOON + 37, UTC)
    points = metric_queries.statistics(filled(), question(StartTime=start))
    assert [(point["Timestamp"].timestamp(), point["Sum"]) for point in points] == [(NOON, 60.0), (NOON + 60, 60.0)]


def test_standard_resolution_puts_a_minute_into_its_first_second() -> None:
    store = MetricStore()
    store.record([(ENDPOINT, 1.0, None)], NOON + 59)
    assert store.periods(ENDPOINT, NOON, NOON + 10, 10)[0][0] == NOON


def test_metric_data_comes_newest_first_unless_asked_otherwise() -> None:
    stat = {"Metric": {"Namespace": ENDPOINT.namespace, "MetricName": ENDPOINT.name}, "Period": 60, "Stat": "Sum"}
    stat["Metric"]["Dimensions"] = question()["Dimensions"]  # type: ignore[index]
    request = question(MetricDataQueries=[{"Id": "a", "MetricStat": stat}])
    (newest,) = metric_queries.metric_data(filled(), request)
    (oldest,) = metric_queries.metric_data(filled(), {**request, "ScanBy": "TimestampAscending"})
    assert newest["Timestamps"] == oldest["Timestamps"][::-1]
    assert newest["Values"] == [60.0, 60.0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"Period": 45}, "multiple of 60"),
        ({"Statistics": []}, "Statistics or ExtendedStatistics"),
        ({"Statistics": [], "ExtendedStatistics": ["tm90"]}, "'tm90'"),
        ({"EndTime": datetime.fromtimestamp(NOON, UTC)}, "less than"),
        ({"StartTime": datetime.fromtimestamp(NOON - 200_000, UTC)}, "exceeds the limit of 1440"),
    ],
)
def test_questions_cloudwatch_refuses_are_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(BadQuery, match=says):
        metric_queries.statistics(filled(), question(**change))


def test_metric_math_is_refused_and_not_guessed() -> None:
    with pytest.raises(BadQuery, match="metric math"):
        metric_queries.metric_data(filled(), question(MetricDataQueries=[{"Id": "a", "Expression": "b/c"}]))


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50))
def test_percentiles_agree_with_the_standard_library(values: list[float]) -> None:
    bucket = Bucket()
    for value in values:
        bucket.add(value)
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    for rank in (1, 50, 90, 99):
        assert statistic(bucket, f"p{rank}") == pytest.approx(cuts[rank - 1], abs=1e-6)


@given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), min_size=1, max_size=5))
def test_merging_buckets_is_the_same_as_one_bucket(parts: list[list[float]]) -> None:
    merged, single = Bucket(), Bucket()
    for part in parts:
        bucket = Bucket()
        for value in part:
            bucket.add(value)
            single.add(value)
        merged.merge(bucket)
    for name in ("SampleCount", "Minimum", "Maximum", "p50"):
        assert statistic(merged, name) == statistic(single, name)
    assert statistic(merged, "Sum") == pytest.approx(statistic(single, "Sum"), abs=1e-3)


def test_a_percentile_of_statistic_sets_is_unknown_unless_they_are_one_value() -> None:
    bucket = Bucket()
    bucket.add_set(count=3, total=6, lowest=1, highest=3)
    assert statistic(bucket, "p90") is None
    assert statistic(bucket, "Average") == 2.0
