"""CloudWatch: metrics by exact dimensions, and alarms that ring by themselves."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.cloudwatch.responses import CloudWatchResponse
from serving import VARIANT, Serving, unique
from sns_inbox import Inbox

from airflow_dlaws.local.cloudwatch import LocalCloudWatch


def total(serving: Serving, metric: str, *dimensions: tuple[str, str], statistic: str = "Sum") -> float:
    now = datetime.now(UTC)
    points = serving.cloudwatch.get_metric_statistics(
        Namespace="AWS/SageMaker",
        MetricName=metric,
        Dimensions=[{"Name": name, "Value": value} for name, value in dimensions],
        StartTime=now - timedelta(minutes=5),
        EndTime=now + timedelta(minutes=1),
        Period=600,
        Statistics=[statistic],
    )["Datapoints"]
    return float(sum(point[statistic] for point in points))


def test_invocations_are_counted_once_by_variant_and_once_by_configuration(serving: Serving) -> None:
    config = serving.config_of("blue")
    endpoint = serving.endpoint(config)
    for _ in range(7):
        serving.invoke(endpoint)
    for status in (b"400", b"500", b"501"):
        with pytest.raises(ClientError):
            serving.invoke(endpoint, status, "application/x-status")
    variant = (("EndpointName", endpoint), ("VariantName", VARIANT))
    for dimensions in (variant, (*variant, ("EndpointConfigName", config))):
        counts = {
            metric: total(serving, metric, *dimensions)
            for metric in (
                "Invocations",
                "InvocationsPerInstance",
                "Invocation4XXErrors",
                "Invocation5XXErrors",
                "InvocationModelErrors",
            )
        }
        assert counts == {
            "Invocations": 10,
            "InvocationsPerInstance": 10,
            "Invocation4XXErrors": 1,
            "Invocation5XXErrors": 2,
            "InvocationModelErrors": 3,
        }
        assert total(serving, "Invocation5XXErrors", *dimensions, statistic="SampleCount") == 10
    assert total(serving, "Invocations", ("EndpointName", endpoint)) == 0


def test_latencies_are_in_microseconds(serving: Serving) -> None:
    endpoint = serving.endpoint(serving.config_of("slow", seconds=0.2))
    serving.invoke(endpoint)
    variant = (("EndpointName", endpoint), ("VariantName", VARIANT))
    assert 200_000 <= total(serving, "ModelLatency", *variant) < 2_000_000
    assert 0 < total(serving, "OverheadLatency", *variant) < 1_000_000


def test_metric_data_answers_many_questions_at_once(serving: Serving) -> None:
    namespace, now = unique("Tests"), datetime.now(UTC).replace(second=0, microsecond=0)
    data = [
        {"MetricName": "m", "Timestamp": now - timedelta(minutes=age), "Values": [1.0, 9.0], "Counts": [9, 1]}
        for age in (1, 2)
    ]
    serving.cloudwatch.put_metric_data(Namespace=namespace, MetricData=data)
    stat = {"Metric": {"Namespace": namespace, "MetricName": "m"}, "Period": 60}
    results = serving.cloudwatch.get_metric_data(
        MetricDataQueries=[
            {"Id": wanted.lower(), "MetricStat": {**stat, "Stat": wanted}} for wanted in ("Average", "p50", "Maximum")
        ],
        StartTime=now - timedelta(minutes=5),
        EndTime=now,
        ScanBy="TimestampAscending",
    )["MetricDataResults"]
    assert {one["Id"]: one["Values"] for one in results} == {
        "average": [1.8, 1.8],
        "p50": [1.0, 1.0],
        "maximum": [9.0, 9.0],
    }
    assert results[0]["Timestamps"] == [now - timedelta(minutes=2), now - timedelta(minutes=1)]


def test_extended_statistics_are_percentiles(serving: Serving) -> None:
    namespace, now = unique("Tests"), datetime.now(UTC)
    serving.cloudwatch.put_metric_data(
        Namespace=namespace, MetricData=[{"MetricName": "m", "Value": float(value)} for value in range(101)]
    )
    (point,) = serving.cloudwatch.get_metric_statistics(
        Namespace=namespace,
        MetricName="m",
        StartTime=now - timedelta(minutes=5),
        EndTime=now + timedelta(minutes=5),
        Period=3600,
        ExtendedStatistics=["p90", "p99"],
    )["Datapoints"]
    assert point["ExtendedStatistics"] == {"p90": 90.0, "p99": 99.0}


def test_an_alarm_rings_by_its_data_tells_its_topic_and_remembers(serving: Serving, inbox: Inbox) -> None:
    topic = serving.sns.create_topic(Name=unique("topic"))["TopicArn"]
    serving.sns.subscribe(TopicArn=topic, Protocol="http", Endpoint=inbox.url)
    metric = unique("metric")
    alarm = serving.alarm(
        MetricName=metric, Period=10, AlarmActions=[topic], TreatMissingData="missing", DatapointsToAlarm=1
    )
    assert serving.alarm_state(alarm) == "INSUFFICIENT_DATA"
    datum = {
        "MetricName": metric,
        "Value": 5.0,
        "StorageResolution": 1,
        "Timestamp": datetime.now(UTC) - timedelta(seconds=10),
    }
    serving.cloudwatch.put_metric_data(Namespace="Tests", MetricData=[datum])
    wait_for_state(serving, alarm, "ALARM")
    notice = json.loads(inbox.wait_for("AlarmName")["Message"])
    assert (notice["AlarmName"], notice["NewStateValue"]) == (alarm, "ALARM")
    deadline = time.monotonic() + 20
    while len(items := serving.cloudwatch.describe_alarm_history(AlarmName=alarm)["AlarmHistoryItems"]) < 3:
        assert time.monotonic() < deadline, items
    assert [item["HistoryItemType"] for item in items] == ["Action", "StateUpdate", "ConfigurationUpdate"]
    assert items[1]["HistorySummary"] == "Alarm updated from INSUFFICIENT_DATA to ALARM"
    assert json.loads(items[1]["HistoryData"])["newState"]["stateReasonData"]["recentDatapoints"] == [5.0]


@pytest.mark.slow
def test_a_state_set_by_hand_lasts_until_the_data_says_otherwise(serving: Serving) -> None:
    metric = unique("metric")
    alarm = serving.alarm(MetricName=metric, Period=10, TreatMissingData="notBreaching")
    wait_for_state(serving, alarm, "OK")
    serving.cloudwatch.set_alarm_state(AlarmName=alarm, StateValue="ALARM", StateReason="by hand")
    assert serving.alarm_state(alarm) == "ALARM"
    wait_for_state(serving, alarm, "OK")


def test_changing_an_alarm_keeps_its_state(serving: Serving) -> None:
    alarm = serving.alarm()
    serving.cloudwatch.set_alarm_state(AlarmName=alarm, StateValue="ALARM", StateReason="by hand")
    serving.alarm(AlarmName=alarm, Threshold=7.0)
    (described,) = serving.cloudwatch.describe_alarms(AlarmNames=[alarm])["MetricAlarms"]
    assert (described["StateValue"], described["Threshold"]) == ("ALARM", 7.0)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"Period": 45}, "multiple of 60"),
        ({"DatapointsToAlarm": 2}, "at most EvaluationPeriods"),
        ({"ExtendedStatistic": "p90"}, "Exactly one"),
        ({"TreatMissingData": "maybe"}, "TreatMissingData must be one of"),
        ({"EvaluationPeriods": 2000}, "86400"),
        ({"ComparisonOperator": "GreaterThanUpperThreshold"}, "does not support ComparisonOperator"),
    ],
)
def test_alarms_that_could_never_work_are_refused(serving: Serving, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ClientError, match=says):
        serving.alarm(**changes)


def test_a_composite_alarm_is_refused(serving: Serving) -> None:
    with pytest.raises(ClientError, match="composite"):
        serving.cloudwatch.put_composite_alarm(AlarmName=unique("alarm"), AlarmRule="ALARM(x)")


def test_alarms_are_found_by_name_prefix_and_state_until_they_are_deleted(serving: Serving) -> None:
    alarm = serving.alarm()
    for question in ({"AlarmNames": [alarm]}, {"AlarmNamePrefix": alarm}, {"StateValue": "INSUFFICIENT_DATA"}):
        found = serving.cloudwatch.describe_alarms(**question, MaxRecords=100)["MetricAlarms"]
        assert alarm in [one["AlarmName"] for one in found]
    serving.cloudwatch.delete_alarms(AlarmNames=[alarm])
    assert serving.cloudwatch.describe_alarms(AlarmNames=[alarm])["MetricAlarms"] == []


def test_moto_still_has_the_methods_that_ours_replace() -> None:
    ours = {name for name, value in vars(LocalCloudWatch).items() if callable(value) and not name.startswith("_")}
    added = {"put_composite_alarm", "describe_alarm_history"}
    assert ours - set(dir(CloudWatchResponse)) <= added
    assert {"get_metric_data", "put_metric_alarm", "set_alarm_state"} <= ours


def wait_for_state(serving: Serving, alarm: str, state: str) -> None:
    deadline = time.monotonic() + 40
    while serving.alarm_state(alarm) != state:
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    with Inbox().opened() as box:
        yield box
