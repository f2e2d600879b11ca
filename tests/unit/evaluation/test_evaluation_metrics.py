"""Metrics and tests against scipy and against their definitions."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from airflow_dlaws.evaluation.metrics import Metric, auc, measure, midranks
from airflow_dlaws.evaluation.paired import compare, mcnemar
from airflow_dlaws.evaluation.scores import Scores


def test_metrics_of_a_small_table_by_hand():
    metrics = measure([1, 0, 1, 0], [0.8, 0.4, 0.3, 0.1])

    assert metrics.log_loss == pytest.approx((0.22314 + 0.51083 + 1.20397 + 0.10536) / 4, abs=1e-4)
    assert metrics.brier == pytest.approx((0.04 + 0.16 + 0.49 + 0.01) / 4)
    assert metrics.accuracy == 0.75
    assert metrics.auc == 0.75


def test_a_certain_and_wrong_model_has_a_large_but_finite_loss():
    assert 34 < measure([1], [0.0]).log_loss < 35


def test_rows_of_one_label_have_no_auc():
    assert measure([1, 1], [0.2, 0.9]).auc is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_midranks_are_those_of_scipy(values):
    assert midranks(values) == list(stats.rankdata(values))


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 10)), min_size=2, max_size=40))
def test_auc_is_the_share_of_rightly_ordered_pairs(rows):
    positives = [score for label, score in rows if label]
    negatives = [score for label, score in rows if not label]
    found = auc([label for label, _ in rows], [score / 10 for _, score in rows])
    if not positives or not negatives:
        assert found is None
        return
    wins = sum((p > n) + (p == n) / 2 for p in positives for n in negatives)
    assert found == pytest.approx(wins / (len(positives) * len(negatives)))


@given(gained=st.integers(0, 60), lost=st.integers(0, 60))
def test_mcnemar_is_the_exact_binomial_test_on_the_rows_that_differ(gained, lost):
    labels = (1,) * (gained + lost + 3)
    challenger = (0.9,) * gained + (0.1,) * lost + (0.9,) * 3
    champion = (0.1,) * gained + (0.9,) * lost + (0.9,) * 3
    result = mcnemar(Scores(labels=labels, challenger=challenger, champion=champion))

    expected = stats.binomtest(gained, gained + lost, 0.5).pvalue if gained + lost else 1.0
    assert (result.only_challenger_right, result.only_champion_right) == (gained, lost)
    assert result.p_value == pytest.approx(expected)


def noisy_scores(rows: int, seed: int) -> Scores:
    draw = random.Random(seed)
    labels = tuple(int(draw.random() < 0.3) for _ in range(rows))

    def column() -> tuple[float, ...]:
        return tuple(min(0.99, max(0.01, 0.3 + 0.3 * label + draw.gauss(0, 0.2))) for label in labels)

    return Scores(labels=labels, challenger=column(), champion=column())


def test_large_samples_get_the_normal_interval_of_a_paired_t_test():
    scores = noisy_scores(2000, seed=1)
    difference = compare(scores, Metric.BRIER, alpha=0.05, generator=random.Random(0))
    new = [(p - y) ** 2 for p, y in zip(scores.challenger, scores.labels, strict=True)]
    old = [(p - y) ** 2 for p, y in zip(scores.champion, scores.labels, strict=True)]
    expected = stats.ttest_rel(old, new).confidence_interval(0.95)

    assert difference.method == "normal"
    assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high), rel=1e-2)


def test_small_samples_are_resampled_the_same_way_for_the_same_seed():
    scores = noisy_scores(120, seed=2)
    first = compare(scores, Metric.LOG_LOSS, alpha=0.05, generator=random.Random(7))
    second = compare(scores, Metric.LOG_LOSS, alpha=0.05, generator=random.Random(7))

    assert first == second
    assert first.method == "bootstrap"
    assert first.low < first.improvement < first.high


def test_delong_gives_the_difference_of_the_areas_and_a_bootstrap_sized_error():
    scores = noisy_scores(400, seed=3)
    difference = compare(scores, Metric.AUC, alpha=0.05, generator=random.Random(0))
    areas = auc(scores.labels, scores.challenger) - auc(scores.labels, scores.champion)
    draw = random.Random(4)
    resampled = []
    for _ in range(150):
        rows = draw.choices(range(400), k=400)
        labels = [scores.labels[i] for i in rows]
        both = [auc(labels, [column[i] for i in rows]) for column in (scores.challenger, scores.champion)]
        resampled.append(both[0] - both[1])

    assert difference.improvement == pytest.approx(areas)
    assert difference.standard_error == pytest.approx(stats.tstd(resampled), rel=0.25)
