"""Accuracy without labels, and with late ones."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.drift.accuracy import estimate_accuracy, measured_accuracy
from airflow_dlaws.drift.build import build_profile
from airflow_dlaws.drift.counts import TrafficCounts, count_values, no_traffic
from airflow_dlaws.drift.outputs import answer_columns
from airflow_dlaws.errors import SpecificationError

CREATED = datetime(2026, 1, 1, tzinfo=UTC)


def answers(generator, rows, doubt):
    """Return probabilities of three classes, and labels drawn from them; more doubt means lower confidence."""
    chances = generator.dirichlet([0.1 + doubt, 0.1 + doubt, 0.1 + doubt], rows)
    labels = [str(generator.choice(3, p=row)) for row in chances]
    return chances, labels


def profile_of(chances, labels):
    return build_profile({"x": np.zeros(len(chances))}, created=CREATED, answers=chances, classes="012", labels=labels)


def traffic(profile, chances):
    columns = {"x": [0.0] * len(chances), **answer_columns(chances, profile.classes)}
    counted = (count_values(each, list(columns[each.name]))[0] for each in profile.watched)
    return TrafficCounts(rows=len(chances), features=tuple(counted))


@pytest.fixture(scope="module")
def profile():
    return profile_of(*answers(np.random.default_rng(0), 3000, 0.05))


@pytest.mark.parametrize("doubt", [0.0, 0.05, 0.3, 1.0])
def test_the_estimate_follows_the_accuracy_without_a_label(profile, doubt):
    generator, inside = np.random.default_rng(1), 0
    for _ in range(60):
        chances, labels = answers(generator, 400, doubt)
        estimate = estimate_accuracy(profile, traffic(profile, chances))
        actual = np.mean(chances.argmax(axis=1) == np.array(labels).astype(int))
        inside += estimate.low <= actual <= estimate.high
        assert estimate.estimate == pytest.approx(actual, abs=0.12)
    # The interval is to hold 95 %; of 60, fewer than 51 would have a chance of 0.3 % (binomial).
    assert inside >= 51


def test_a_loss_is_told(profile):
    estimate = estimate_accuracy(profile, traffic(profile, answers(np.random.default_rng(2), 1000, 1.0)[0]))
    assert estimate.is_worse
    assert estimate.loss > 0.1
    assert not estimate.measured


def test_without_answers_or_calibration_nothing_is_estimated(profile):
    assert estimate_accuracy(profile, no_traffic(profile)) is None
    plain = build_profile({"x": [1.0, 2.0]}, created=CREATED)
    assert estimate_accuracy(plain, no_traffic(plain)) is None
    with pytest.raises(SpecificationError, match="no calibration"):
        measured_accuracy(plain, rows=10, correct=5)


@given(st.integers(1, 5000), st.floats(0, 1))
def test_labels_that_arrive_later_measure_it(profile, rows, share):
    measured = measured_accuracy(profile, rows=rows, correct=round(share * rows))
    assert measured.measured
    assert 0 <= measured.low <= measured.estimate <= measured.high <= 1
    assert measured.loss == pytest.approx(measured.reference - measured.estimate)


@pytest.mark.parametrize(("rows", "correct"), [(0, 0), (5, 6), (5, -1)])
def test_impossible_counts_of_labels_are_refused(profile, rows, correct):
    with pytest.raises(SpecificationError, match="no more correct than rows"):
        measured_accuracy(profile, rows=rows, correct=correct)


def test_a_class_that_an_answer_lacks_is_refused():
    with pytest.raises(SpecificationError, match="2 numbers, but there are 3 classes"):
        answer_columns(np.zeros((4, 2)), "abc")
