import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from captured_traffic import capture_file, healthy_rows

from airflow_dlaws.drift.capture import count_capture
from airflow_dlaws.drift.outside import (
    MetricRule,
    OutsideOutcome,
    Violations,
    conclude,
    judge_metric,
    judge_violations,
    parse_evidence,
    read_violations,
)
from airflow_dlaws.drift.settings import DriftSettings
from airflow_dlaws.drift.verdict import DriftOutcome, assess
from airflow_dlaws.errors import SpecificationError

#: As in the SageMaker developer guide, "Schema for Violations (constraint_violations.json file)".
DOCUMENT = {
    "violations": [
        {
            "feature_name": "dep_delay",
            "constraint_check_type": "baseline_drift_check",
            "description": "Baseline drift distance: 0.43 exceeds threshold: 0.1",
        },
        {"feature_name": "carrier", "constraint_check_type": "categorical_values_check", "description": "1.2% unknown"},
    ]
}
START = datetime(2026, 3, 1, tzinfo=UTC)
RULE = MetricRule(namespace="team", metric="distance", above=0.1, periods=2)


def values(*numbers):
    return [(START + timedelta(hours=hour), number) for hour, number in enumerate(numbers)]


def test_violations_are_counted_by_kind_and_named():
    texts = read_violations(json.dumps(DOCUMENT), "s3://b/constraint_violations.json")
    finding = judge_violations(Violations(s3_uri="s3://b/"), 3, [("s3://b/constraint_violations.json", texts)])
    assert finding.outcome is OutsideOutcome.CROSSED
    assert finding.sentence == "Model Monitor tells 2 violations: 1 baseline_drift_check, 1 categorical_values_check"
    assert finding.details[0].startswith("dep_delay: baseline_drift_check, Baseline drift distance: 0.43")


def test_no_execution_is_silence_and_one_without_violations_is_not():
    rule = Violations(s3_uri="s3://b/")
    assert judge_violations(rule, 0, []).outcome is OutsideOutcome.SILENT
    assert judge_violations(rule, 2, []).outcome is OutsideOutcome.WITHIN


@pytest.mark.parametrize("text", ["", "[]", '{"violations": 3}', '{"violations": [1]}', "{}"])
def test_another_document_is_refused(text):
    with pytest.raises(SpecificationError, match=r"is no constraint_violations\.json"):
        read_violations(text, "s3://b/x.json")


@pytest.mark.parametrize(
    ("numbers", "outcome"),
    [
        ((), OutsideOutcome.SILENT),
        ((0.05, 0.2), OutsideOutcome.WITHIN),
        ((0.3, 0.05, 0.2), OutsideOutcome.CROSSED),
        ((0.1, 0.1), OutsideOutcome.WITHIN),
    ],
)
def test_a_metric_is_crossed_by_enough_values_beyond_the_threshold(numbers, outcome):
    assert judge_metric(RULE, values(*numbers)).outcome is outcome


def test_a_metric_may_fall_below():
    rule = MetricRule(namespace="team", metric="accuracy", below=0.8, dimensions={"model": "a"})
    finding = judge_metric(rule, values(0.9, 0.7))
    assert finding.outcome is OutsideOutcome.CROSSED
    assert "team/accuracy (model=a)" in finding.sentence


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"kind": "gut feeling"}, "is none of"),
        ({"kind": "model_monitor"}, "s3_uri"),
        ({"kind": "model_monitor", "s3_uri": "/tmp/x"}, "no S3 location"),
        ({"kind": "cloudwatch", "namespace": "n", "metric": "m"}, "one of above and below"),
        ({"kind": "cloudwatch", "namespace": "n", "metric": "m", "above": 1, "period_s": 30}, "multiple of 60"),
        ({"kind": "cloudwatch", "namespace": "n", "metric": "m", "above": "much"}, "must be a number"),
        ({"kind": "cloudwatch", "namespace": "n", "metric": "m", "above": 1, "colour": "red"}, "colour"),
    ],
)
def test_evidence_that_cannot_be_asked_for_is_refused(document, message):
    with pytest.raises(SpecificationError, match=message):
        parse_evidence(document)


def test_a_threshold_from_a_template_may_be_text():
    parsed = parse_evidence({"kind": "cloudwatch", "namespace": "n", "metric": "m", "above": "0.5"})
    assert isinstance(parsed, MetricRule)
    assert parsed.above == 0.5


CROSSED, WITHIN, SILENT = (judge_metric(RULE, values(*numbers)) for numbers in ((1, 1), (0, 0), ()))


@pytest.mark.parametrize(
    ("finding", "decides", "has_data", "outcome"),
    [
        (CROSSED, False, True, DriftOutcome.NO_DRIFT),  # told, and no more
        (CROSSED, True, True, DriftOutcome.DRIFT),
        (CROSSED, False, False, DriftOutcome.DRIFT),  # nobody else there to decide
        (WITHIN, True, True, DriftOutcome.NO_DRIFT),
        (WITHIN, False, False, DriftOutcome.NO_DRIFT),
        (SILENT, False, True, DriftOutcome.NO_DRIFT),
        (SILENT, True, True, DriftOutcome.INCONCLUSIVE),
        (SILENT, False, False, DriftOutcome.INCONCLUSIVE),
    ],
)
def test_evidence_decides_where_it_is_said_to_or_alone(profile, finding, decides, has_data, outcome):
    healthy = count_capture(profile, capture_file(*healthy_rows(3000, seed=3)))
    verdict = assess(profile, healthy, DriftSettings())
    assert verdict.outcome is DriftOutcome.NO_DRIFT
    found, sentence = conclude(verdict, [replace(finding, decides=decides)], has_data=has_data)
    assert found is outcome
    assert (verdict.reason.rstrip(".") in sentence) is has_data


def test_drift_of_the_tests_stands_whatever_others_say(profile):
    shifted = count_capture(profile, capture_file(*healthy_rows(1500, seed=3, delay=8)))
    verdict = assess(profile, shifted, DriftSettings())
    for finding in (WITHIN, replace(SILENT, decides=True)):
        assert conclude(verdict, [finding], has_data=True)[0] is DriftOutcome.DRIFT
