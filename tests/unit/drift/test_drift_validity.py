"""P-values are what they say: under no change, at most a share of q of them is below q, also on cells and at n = 50.

Counts are compared with what binomial chance allows, so that a test that cries wolf fails here, and luck does not.
"""

import dataclasses
from datetime import UTC, datetime

import numpy as np
import pytest
import scipy.stats as oracle
from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.drift.build import build_profile
from airflow_dlaws.drift.cells import NumericProfile
from airflow_dlaws.drift.comparison import Aspect, Family, compare
from airflow_dlaws.drift.counts import EmbeddingCounts, FeatureCounts, TrafficCounts, count_values, no_traffic
from airflow_dlaws.drift.discrepancy import compare_embedding
from airflow_dlaws.drift.embedding import build_embedding, count_images
from airflow_dlaws.drift.numbers import NumericReference
from airflow_dlaws.drift.settings import DriftSettings
from airflow_dlaws.drift.statistics import kolmogorov_tail
from airflow_dlaws.drift.verdict import assess

CREATED = datetime(2026, 1, 1, tzinfo=UTC)


def too_many(hits, tries, rate):
    """Tell whether so many hits would have a chance below 0.1 % at this rate."""
    return oracle.binom.sf(hits - 1, tries, rate) < 0.001


@given(st.floats(0.3, 6))
def test_the_kolmogorov_tail_is_scipys(z):
    assert kolmogorov_tail(np.array(z)) == pytest.approx(oracle.kstwobign.sf(z), rel=2e-4, abs=1e-15)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=30))
def test_the_distance_on_cells_is_that_of_the_values_at_their_cells(cells):
    reference, current = zip(*cells, strict=True)
    low, high = (0.0, float(len(cells))) if sum(reference) else (None, None)
    edges = tuple(map(float, range(1, len(cells))))
    profile = NumericProfile(name="x", edges=edges, counts=reference, missing=0, low=low, high=high)
    move = NumericReference([profile]).moves([FeatureCounts(name="x", cells=current)])["x"]
    if sum(reference) and sum(current):
        values = np.arange(len(cells))
        theirs = oracle.ks_2samp(np.repeat(values, reference), np.repeat(values, current), method="asymp").statistic
        assert move.distance == pytest.approx(theirs, abs=1e-12)
    assert 0 <= move.p_value <= 1


DRAWS = {
    "continuous": lambda generator, size: generator.normal(size=size),
    "with many zeros": lambda generator, size: np.maximum(0, generator.normal(size=size)),
    "of few values": lambda generator, size: generator.integers(0, 5, size).astype(float),
}


@pytest.mark.parametrize("rows", [50, 100, 200, 500])
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())
def test_p_values_of_numbers_are_valid(rows, draw):
    generator, tries = np.random.default_rng(rows), 300
    found = {aspect: [] for aspect in (Aspect.DISTRIBUTION, Aspect.TAIL_95, Aspect.TAIL_99, Aspect.ABOVE)}
    for _ in range(tries):
        (profile,) = build_profile({"x": draw(generator, 600)}, created=CREATED).features
        current = count_values(profile, draw(generator, rows).tolist())[0]
        for test in compare(profile, current, Family.REPRESENTATION):
            if test.aspect in found:
                found[test.aspect].append(test.p_value)
    for aspect, p_values in found.items():
        for level in (0.05, 0.01):
            assert not too_many(sum(p <= level for p in p_values), tries, level), aspect


@pytest.mark.parametrize("rows", [50, 200])
def test_p_values_of_categories_are_valid(rows):
    generator, tries = np.random.default_rng(rows), 600
    chances = np.array([0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.03, 0.02])
    found = {Aspect.DISTRIBUTION: [], Aspect.CATEGORY: []}
    for _ in range(tries):
        before, now = (generator.choice(list("abcdefgh"), size, p=chances) for size in (600, rows))
        (profile,) = build_profile({"x": before.tolist()}, categorical={"x"}, created=CREATED).features
        for test in compare(profile, count_values(profile, now.tolist())[0], Family.LABEL):
            if test.aspect in found:
                found[test.aspect].append(test.p_value)
    for aspect, p_values in found.items():
        for level in (0.05, 0.01):
            assert not too_many(sum(p <= level for p in p_values), tries, level), aspect


@pytest.mark.parametrize("rows", [50, 200])
def test_one_decision_over_all_families_keeps_its_alpha(rows):
    generator, tries = np.random.default_rng(rows), 150
    rule = DriftSettings(min_rows=1, min_effect=0, min_tail=0)
    alarms = 0
    for _ in range(tries):
        profile, current = model_traffic(generator, rows)
        alarms += assess(profile, current, rule).is_drift
    assert not too_many(alarms, tries, rule.alpha)


def model_traffic(generator, rows):
    """Return the profile of a classifier with six correlated inputs, and counts of rows of the same kind."""
    from airflow_dlaws.drift.build import reconstruction_error
    from airflow_dlaws.drift.outputs import answer_columns

    def draw(size):
        table = generator.normal(size=(size, 6)) + generator.normal(size=(size, 1))
        chances = np.exp(2 * table[:, :3])
        return table, chances / chances.sum(axis=1, keepdims=True)

    table, answers = draw(600)
    profile = build_profile(
        {f"x{at}": table[:, at] for at in range(6)}, created=CREATED, answers=answers, classes="abc", components=2
    )
    table, answers = draw(rows)
    pca, outputs = profile.representation[0], answer_columns(answers, profile.classes)
    error = reconstruction_error(table, pca.mean, pca.scale, pca.components.array())
    columns = [*table.T.tolist(), *(outputs[each.name].tolist() for each in profile.outputs), error.tolist()]
    counted = (count_values(each, values)[0] for each, values in zip(profile.watched, columns, strict=True))
    return profile, TrafficCounts(rows=rows, features=tuple(counted))


counts_of_x = st.builds(
    FeatureCounts, name=st.just("x"), cells=st.tuples(*[st.integers(0, 50)] * 3), missing=st.integers(0, 9),
    below=st.integers(0, 9), above=st.integers(0, 9),
)  # fmt: skip
images = st.builds(
    EmbeddingCounts, name=st.just("e"), rows=st.integers(0, 50), missing=st.integers(0, 9),
    sums=st.tuples(*[st.integers(-(2**62), 2**62)] * 4),
)  # fmt: skip
traffic = st.builds(
    TrafficCounts, requests=st.integers(0, 9), rows=st.integers(0, 99), features=st.tuples(counts_of_x),
    embeddings=st.tuples(images), faults=st.dictionaries(st.sampled_from(["bad_json", "no_time"]), st.integers(1, 9)),
)  # fmt: skip


@given(st.lists(traffic, min_size=2, max_size=6), st.randoms())
def test_counts_add_up_in_any_order(parts, random):
    def total(of):
        result = of[0]
        for part in of[1:]:
            result = result + part
        return result

    shuffled = random.sample(parts, len(parts))
    cut = random.randint(1, len(parts) - 1)
    assert total(parts) == total(shuffled) == total(parts[:cut]) + total(parts[cut:])


@given(st.integers(0, 90), st.integers(1, 10))
def test_more_rows_out_of_range_never_make_a_verdict_milder(above, more):
    profile = build_profile({"x": np.arange(1000.0)}, created=CREATED)
    (column,) = profile.features

    def p_of(outside):
        cells = [1] * (100 - outside) + [0] * (len(column.counts) - 100 + outside)
        current = FeatureCounts(name="x", cells=tuple(cells), above=outside)
        return min(
            (each.p_value for each in compare(column, current, Family.MARGINALS) if each.aspect is Aspect.ABOVE),
            default=1.0,
        )

    assert p_of(above + more) <= p_of(above)


def test_an_embedding_of_the_same_kind_is_no_drift_and_another_is():
    generator = np.random.default_rng(3)
    profile = build_embedding("embedding", generator.normal(size=(1000, 8)), pairs=64)

    def compared(rows, shift):
        return list(compare_embedding(profile, count_images(profile, generator.normal(shift, size=(rows, 8)))))

    p_values = [compared(200, 0.0)[0].p_value for _ in range(200)]
    assert not too_many(sum(p <= 0.05 for p in p_values), 200, 0.05)
    (shifted,) = compared(200, 0.5)
    assert shifted.p_value < 1e-6
    assert shifted.effect > 10 * compared(20_000, 0.0)[0].effect
    assert not compared(1, 0.0)


def test_a_class_that_all_but_vanished_is_drift_in_two_hundred_rows_and_healthy_labels_are_not():
    generator, classes = np.random.default_rng(11), [str(digit) for digit in range(10)]
    rule, found, alarms = DriftSettings(min_rows=1, features=("predicted_label",)), 0, 0
    for _ in range(100):
        before = generator.integers(0, 10, 1000)
        profile = build_profile({"x": np.zeros(1000)}, created=CREATED, answers=np.eye(10)[before], classes=classes)
        label = next(each for each in profile.outputs if each.name == "predicted_label")
        chances = np.array([0.01, *[0.11] * 9])
        for now, is_drift in ((generator.choice(10, 200, p=chances), True), (generator.integers(0, 10, 200), False)):
            counted = count_values(label, [classes[at] for at in now])[0]
            nothing = no_traffic(profile)
            features = tuple(counted if each.name == counted.name else each for each in nothing.features)
            verdict = assess(profile, dataclasses.replace(nothing, rows=200, features=features), rule)
            found += verdict.is_drift and is_drift
            alarms += verdict.is_drift and not is_drift
    assert found >= 97
    assert not too_many(alarms, 100, rule.alpha)
