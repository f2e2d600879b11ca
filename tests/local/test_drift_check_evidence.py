"""The evidence of others that DriftCheckOperator tells beside its own: Model Monitor and CloudWatch."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException


def test_what_model_monitor_found_is_told_and_decides_where_it_is_said_to(healthy_check):
    violations = {"violations": [{"feature_name": "temp", "constraint_check_type": "baseline_drift_check"}]}
    healthy_check.put("monitor/2013/07/01/12/statistics.json", "{}")
    there = {"kind": "model_monitor", "s3_uri": healthy_check.uri("monitor/")}
    data = {"data": healthy_check.uri("data/")}
    _, summary = healthy_check.ends(AirflowSkipException, **data, evidence=[there])
    assert summary.evidence[0].outcome == "within"

    healthy_check.put("monitor/2013/07/01/12/constraint_violations.json", json.dumps(violations))
    _, summary = healthy_check.ends(AirflowSkipException, **data, evidence=[there])
    assert (summary.outcome, summary.evidence[0].outcome) == ("no_drift", "crossed")
    assert healthy_check.run(**data, evidence=[{**there, "decides": True}]).outcome == "drift"
    # Alone, without data of one's own, it decides as well; and its silence is no pass.
    assert healthy_check.run(evidence=[there]).outcome == "drift"
    nowhere = [{"kind": "model_monitor", "s3_uri": healthy_check.uri("monitor-of-another/")}]
    message, _ = healthy_check.ends(AirflowFailException, evidence=nowhere)
    assert "has left no execution" in message


def test_a_metric_in_cloudwatch_is_asked_for_the_data_interval(healthy_check):
    cloudwatch, now = (
        healthy_check.aws.client("cloudwatch"),
        datetime.now(UTC).replace(minute=0, second=0, microsecond=0),
    )
    space = f"team/{uuid.uuid4().hex}"
    for hours, value in ((1, 0.4), (3, 0.1)):
        row = {"MetricName": "distance", "Timestamp": now - timedelta(hours=hours), "Value": value}
        cloudwatch.put_metric_data(Namespace=space, MetricData=[row])
    rule = [{"kind": "cloudwatch", "namespace": space, "metric": "distance", "above": 0.3}]
    recent = {"data_interval_start": now - timedelta(hours=2), "data_interval_end": now}
    assert healthy_check.run(recent, evidence=rule).outcome == "drift"
    past = {"data_interval_start": now - timedelta(hours=4), "data_interval_end": now - timedelta(hours=2)}
    _, summary = healthy_check.ends(AirflowSkipException, past, evidence=rule)
    assert summary.evidence[0].outcome == "within"
