import json
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest
from captured_traffic import capture_file, healthy_rows

from airflow_dlaws.drift.capture import count_capture
from airflow_dlaws.drift.report import DriftReport, DriftSummary, as_html, reference_tables, summarise
from airflow_dlaws.drift.settings import DriftSettings
from airflow_dlaws.drift.verdict import assess
from airflow_dlaws.jobs.wire import from_json, to_json


@pytest.fixture(scope="module")
def report(profile):
    rows, scores = healthy_rows(1000, seed=3, delay=6, carriers="AABBC<")
    window = count_capture(profile, capture_file(rows, scores) + b"junk\n")
    counts, labels = reference_tables(profile)
    return DriftReport(
        endpoint_name="flights",
        variant_name="AllTraffic",
        model="config-1",
        reference_uri="s3://bucket/drift_reference.json",
        written=datetime(2026, 3, 1, tzinfo=UTC),
        settings=DriftSettings(),
        verdict=assess(profile, window, DriftSettings()),
        window=window,
        reference=counts,
        labels=labels,
        total_rows=5000,
        history=(),
    )


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.charts, self.text, self.outside = 0, [], []

    def handle_starttag(self, tag, attrs):
        self.charts += tag == "svg"
        self.outside += [value for name, value in attrs if name in {"src", "href"}]

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_shows_every_drifted_feature_and_loads_nothing(report, profile):
    page = Page()
    page.feed(as_html(report, profile))
    text = " ".join(page.text)
    assert set(report.verdict.drifted) >= {"delay", "prediction", "carrier"}
    assert all(name in text for name in report.verdict.drifted)
    assert page.charts == len(report.verdict.drifted) + 1
    assert page.outside == []
    assert "bad_json" in text
    assert "<" in text  # the hostile category came through as text, not as markup


def test_a_report_and_its_summary_survive_json(report):
    assert from_json(DriftReport, json.loads(json.dumps(to_json(report)))) == report
    summary = summarise(report, report_uri="s3://bucket/a.json", report_html_uri="s3://bucket/a.html")
    assert from_json(DriftSummary, json.loads(json.dumps(to_json(summary)))) == summary
    assert [feature.name for feature in summary.features] == list(report.verdict.drifted)
    assert len(json.dumps(to_json(summary))) < 4000


def test_no_drift_asks_for_nothing(profile):
    window = count_capture(profile, capture_file(*healthy_rows(1000, seed=3)))
    counts, labels = reference_tables(profile)
    report = DriftReport(
        endpoint_name="flights", variant_name="AllTraffic", model="m", reference_uri="s3://b/k",
        written=datetime(2026, 3, 1, tzinfo=UTC), settings=DriftSettings(), window=window, reference=counts,
        labels=labels, verdict=assess(profile, window, DriftSettings()), total_rows=1000, history=(),
    )  # fmt: skip
    assert "Nothing: the traffic is as the reference." in as_html(report, profile)
