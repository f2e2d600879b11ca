"""Asking others for their evidence: Model Monitor's files in S3, a metric in CloudWatch. drift/outside.py judges it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from airflow_dlaws.drift.outside import (
    Evidence,
    MetricRule,
    OutsideFinding,
    Violations,
    judge_metric,
    judge_violations,
    read_violations,
)
from airflow_dlaws.launchers.aws_errors import service_errors
from airflow_dlaws.storage import ObjectStore, S3Uri

_VIOLATIONS, _STATISTICS = "constraint_violations.json", "statistics.json"


def gather(
    client: Callable[[str], Any], evidence: Sequence[Evidence], start: datetime, end: datetime
) -> tuple[OutsideFinding, ...]:
    """Ask each source about the time from `start` to `end`.

    :param client: gives the boto3 client of a service by name.
    :raises ServiceRefused: a source may not be asked.
    """
    return tuple(
        _violations(ObjectStore(client("s3")), each)
        if isinstance(each, Violations)
        else judge_metric(each, _values(client("cloudwatch"), each, start, end))
        for each in evidence
    )


def _violations(store: ObjectStore, rule: Violations) -> OutsideFinding:
    location = S3Uri.parse(rule.s3_uri)
    if not location.key.endswith("/"):
        names = [location] if store.exists(location) else []
        executions = len(names)
    else:
        listed = [row.uri for row in store.list(location)]
        names = [uri for uri in listed if uri.key.endswith(f"/{_VIOLATIONS}")]
        executions = len({uri.parent for uri in listed if uri.key.endswith((f"/{_VIOLATIONS}", f"/{_STATISTICS}"))})
    return judge_violations(rule, executions, [(str(uri), read_violations(store.read(uri), str(uri))) for uri in names])


def _values(cloudwatch: Any, rule: MetricRule, start: datetime, end: datetime) -> list[tuple[datetime, float]]:
    metric = {
        "Namespace": rule.namespace,
        "MetricName": rule.metric,
        "Dimensions": [{"Name": key, "Value": value} for key, value in sorted(rule.dimensions.items())],
    }
    query = {"Id": "value", "MetricStat": {"Metric": metric, "Period": rule.period_s, "Stat": rule.statistic}}
    values: list[tuple[datetime, float]] = []
    with service_errors(f"read {rule.name}"):
        pages = cloudwatch.get_paginator("get_metric_data").paginate(
            MetricDataQueries=[query], StartTime=start, EndTime=end, ScanBy="TimestampAscending"
        )
        for page in pages:
            for result in page["MetricDataResults"]:
                values += zip(result["Timestamps"], result["Values"], strict=True)
    return values
