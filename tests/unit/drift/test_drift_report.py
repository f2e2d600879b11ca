import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import numpy as np
import pytest
from captured_traffic import capture_file, healthy_rows

from airflow_dlaws.drift.accuracy import AccuracyEstimate
from airflow_dlaws.drift.body import Fault
from airflow_dlaws.drift.build import build_profile
from airflow_dlaws.drift.capture import count_capture
from airflow_dlaws.drift.outside import MetricRule, judge_metric
from airflow_dlaws.drift.report import (
    MAX_FEATURES,
    DriftReport,
    DriftSummary,
    event_extra,
    reference_tables,
    summarise,
)
from airflow_dlaws.drift.report_page import FAULTS, as_html
from airflow_dlaws.drift.sequence import Evidence, advance, judged_together
from airflow_dlaws.drift.settings import DriftSettings
from airflow_dlaws.drift.state import Look
from airflow_dlaws.drift.verdict import DriftOutcome, assess
from airflow_dlaws.jobs.wire import from_json, to_json

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def report_on(profile, window, **changes):
    counts, labels = reference_tables(profile)
    document = DriftReport(
        endpoint_name="flights",
        variant_name="AllTraffic",
        model="config-1",
        reference_uri="s3://bucket/drift_reference.json",
        written=NOON,
        settings=DriftSettings(),
        verdict=assess(profile, window, DriftSettings()),
        window=window,
        reference=counts,
        labels=labels,
        total_rows=5000,
    )
    return replace(document, **changes)


def healthy(profile, rows=2000):
    return count_capture(profile, capture_file(*healthy_rows(rows, seed=3)))


@pytest.fixture(scope="module")
def report(profile):
    rows, scores = healthy_rows(1000, seed=3, delay=6, carriers="AABBC<")
    return report_on(profile, count_capture(profile, capture_file(rows, scores) + b"junk\n"))


class Page(HTMLParser):
    """What a page shows, and what it would load."""

    def __init__(self, html):
        super().__init__()
        self.charts, self.text, self.outside, self.tags = 0, [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.charts += tag == "svg"
        self.outside += [value for name, value in attrs if name in {"src", "href"}]

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return " ".join(self.text)


def test_the_page_shows_every_drifted_column_and_loads_nothing(report, profile):
    page = Page(as_html(report, profile))
    assert set(report.verdict.drifted) >= {"delay", "prediction", "carrier"}
    assert all(name in page.words for name in report.verdict.drifted)
    assert page.outside == []
    assert "script" not in page.tags
    assert "a line that is no JSON" in page.words
    assert "<" in page.words  # the hostile category came through as text, not as markup


def test_each_drifted_column_has_a_picture_of_both_sides(report, profile):
    html = as_html(report, profile)
    for name in report.verdict.drifted:
        card = html[html.index(f"<h3>{name}</h3>") :].split('<div class="card">')[0]
        assert "#0072b2" in card
        assert "#d55e00" in card


def test_a_report_and_its_summary_survive_json(report):
    assert from_json(DriftReport, json.loads(json.dumps(to_json(report)))) == report
    summary = summarise(report, report_uri="s3://bucket/a.json", report_html_uri="s3://bucket/a.html")
    assert from_json(DriftSummary, json.loads(json.dumps(to_json(summary)))) == summary
    assert [feature.name for feature in summary.features] == list(report.verdict.drifted)
    assert summary.lost_rows == 1
    assert len(json.dumps(to_json(summary))) < 4000


def test_an_asset_event_tells_the_accuracy_that_is_known_best(report):
    estimated = AccuracyEstimate(reference=0.9, estimate=0.8, low=0.78, high=0.82, rows=1000)
    with_estimate = replace(report, verdict=replace(report.verdict, accuracy=estimated))
    both = replace(with_estimate, measured_accuracy=replace(estimated, estimate=0.7, measured=True))
    told = [
        event_extra(to_json(summarise(each, report_uri="s3://b/a", report_html_uri="s3://b/b")))["accuracy"]
        for each in (report, with_estimate, both)
    ]
    assert told[0] is None
    assert [each["estimate"] for each in told[1:]] == [0.8, 0.7]


def test_a_loss_of_accuracy_is_told_with_its_interval_and_what_it_rests_on(report, profile):
    accuracy = AccuracyEstimate(reference=0.93, estimate=0.86, low=0.84, high=0.88, rows=1000)
    page = Page(as_html(replace(report, verdict=replace(report.verdict, accuracy=accuracy)), profile))
    assert "84.0% to 88.0% (95 %); reference 93.0%" in page.words
    assert "7.0% of all answers have become wrong" in page.words
    assert "trusts the model's confidence" in page.words


def test_no_drift_asks_for_nothing(profile):
    page = Page(as_html(report_on(profile, healthy(profile)), profile))
    assert "Nothing: the traffic is as the reference." in page.words
    assert page.charts > 1  # there is still something to look at


def test_too_few_rows_are_inconclusive_and_no_clean_bill(profile):
    page = Page(as_html(report_on(profile, healthy(profile, rows=50)), profile))
    assert "Inconclusive: flights" in page.words
    assert "Nothing: the traffic is as the reference." not in page.words


def test_every_fault_has_words_for_a_person():
    assert set(FAULTS) == {fault.value for fault in Fault}


def test_the_looks_before_are_told_with_what_they_spent(report, profile):
    looks = tuple(
        Look(
            number=number, at=NOON + timedelta(hours=number), outcome=DriftOutcome.NO_DRIFT, rows=1000,
            effects={"delay": 0.01 * number}, windows=2, alpha_spent=0.001,
        )
        for number in range(1, 300)
    )  # fmt: skip
    html = as_html(replace(report, history=looks), profile)
    page = Page(html)
    assert "299 looks, which spent 0.3 of the 0.05" in page.words
    assert "The last 40 looks" in page.words
    assert len(html) < 200_000


def test_evidence_of_others_is_told_beside_the_tests(report, profile):
    rule = MetricRule(namespace="team", metric="distance", above=0.1, decides=True)
    finding = judge_metric(rule, [(NOON, 0.4)])
    page = Page(as_html(replace(report, evidence=(finding,)), profile))
    assert "1 of 1 values of team/distance" in page.words


@pytest.fixture(scope="module")
def wide():
    generator = np.random.default_rng(7)
    names = [f"column_{number}" for number in range(600)]
    profile = build_profile({name: generator.normal(size=800) for name in names}, created=NOON)
    rows = generator.normal(0.8, 1, size=(1000, len(names)))
    return profile, count_capture(profile, capture_file(rows.tolist(), [0.5] * len(rows)))


def test_hundreds_of_drifted_columns_make_no_endless_page(wide):
    profile, window = wide
    report = report_on(profile, window)
    assert len(report.verdict.drifted) == 600
    html = as_html(report, profile)
    assert len(html) < 250_000
    assert "And 576 more" in html
    summary = summarise(report, report_uri="s3://b/a", report_html_uri="s3://b/b")
    assert (len(summary.features), summary.drifted_count) == (MAX_FEATURES, 600)


@pytest.mark.parametrize("values", [[], [None] * 40, [3.0] * 40, [1e300, -1e300] * 20, [0.0] * 39 + [5.0]])
def test_a_column_of_any_kind_can_be_drawn(values):
    column = values or [1.0]
    profile = build_profile({"x": column}, created=NOON)
    for current in ([4.0] * 100, [None] * 100, [1e308] * 100):
        window = count_capture(profile, capture_file([["" if v is None else v] for v in current], [0.1] * 100))
        settings = DriftSettings(min_rows=10)
        report = report_on(profile, window, settings=settings, verdict=assess(profile, window, settings))
        assert "nan" not in as_html(report, profile)


def test_the_counts_of_a_verdict_over_several_windows_are_put_together_again(profile):
    windows = [count_capture(profile, capture_file(*healthy_rows(1000, seed=seed))) for seed in range(12)]
    evidence = Evidence()
    for look, window in enumerate(windows, start=1):
        before = evidence
        evidence, verdict = advance(profile, evidence, window, DriftSettings())
        judged = judged_together(before, window, verdict.windows)
        assert judged.rows == 1000 * verdict.windows == verdict.rows
        assert judged == sum(windows[look - verdict.windows + 1 : look], start=windows[look - verdict.windows])
