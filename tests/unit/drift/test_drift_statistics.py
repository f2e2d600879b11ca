import math
import random

import pytest
import scipy.stats as oracle
from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.drift.statistics import (
    chi_square_tail,
    exact_two_sided,
    exact_upper_tail,
    excess_index,
    holm,
    homogeneity_test,
    stability_index,
)

FILLED = st.lists(st.tuples(st.integers(400, 5000), st.integers(400, 5000)), min_size=2, max_size=12)


@given(st.floats(0, 1e4), st.integers(1, 300))
def test_the_chi_square_tail_is_scipys(statistic, degrees):
    assert chi_square_tail(statistic, degrees) == pytest.approx(oracle.chi2.sf(statistic, degrees), rel=1e-9, abs=1e-13)


@given(st.floats(5, 700), st.integers(1, 8))
def test_the_far_tail_keeps_its_relative_precision(statistic, degrees):
    ours, theirs = chi_square_tail(statistic, degrees), oracle.chi2.sf(statistic, degrees)
    assert ours == pytest.approx(theirs, rel=1e-8)


def test_an_endless_statistic_has_no_probability_left_and_a_bad_one_is_refused():
    assert chi_square_tail(1e9, 3) == 0.0
    with pytest.raises(ValueError, match="degrees of freedom"):
        chi_square_tail(1, 0)


@given(FILLED)
def test_without_small_cells_the_test_is_pearsons(cells):
    reference, current = zip(*cells, strict=True)
    statistic, degrees, p_value = homogeneity_test(reference, current, ordered=True)
    theirs = oracle.chi2_contingency([reference, current], correction=False)
    assert statistic == pytest.approx(theirs.statistic, rel=1e-9, abs=1e-9)
    assert degrees == theirs.dof
    assert p_value == pytest.approx(theirs.pvalue, rel=1e-6, abs=1e-300)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=12), st.booleans())
def test_small_cells_never_crash_and_never_make_an_impossible_p_value(cells, ordered):
    reference, current = zip(*cells, strict=True)
    statistic, degrees, p_value = homogeneity_test(reference, current, ordered=ordered)
    assert 0 <= p_value <= 1
    assert 0 <= degrees < len(cells)
    assert statistic >= 0


def test_too_little_data_says_nothing():
    assert homogeneity_test([3, 2], [1, 0], ordered=True) == (0.0, 0, 1.0)
    assert homogeneity_test([300, 200], [0, 0], ordered=True) == (0.0, 0, 1.0)


@given(st.integers(0, 400), st.integers(0, 400), st.integers(0, 4000), st.integers(1, 4000))
def test_the_exact_tail_is_the_hypergeometric_one(hits, misses, reference_hits, reference_misses):
    current, reference = hits + misses, reference_hits + reference_misses
    ours = exact_upper_tail(hits, current, reference_hits, reference)
    theirs = oracle.hypergeom.sf(hits - 1, current + reference, hits + reference_hits, current)
    assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-12)
    assert 0 <= exact_two_sided(hits, current, reference_hits, reference) <= 1


def test_a_new_value_in_a_few_rows_of_many_is_significant():
    assert exact_upper_tail(30, 1000, 0, 100_000) < 1e-50
    assert exact_upper_tail(0, 1000, 0, 100_000) == 1.0


@given(FILLED)
def test_the_stability_index_is_symmetric_and_never_negative(cells):
    reference, current = zip(*cells, strict=True)
    assert stability_index(reference, current) >= 0
    assert stability_index(reference, current) == pytest.approx(stability_index(current, reference))


def test_the_stability_index_matches_its_definition():
    by_hand = (0.5 - 0.25) * math.log(0.5 / 0.25) + (0.5 - 0.75) * math.log(0.5 / 0.75)
    assert stability_index([25_000_000, 75_000_000], [50_000_000, 50_000_000]) == pytest.approx(by_hand, rel=1e-6)
    assert stability_index([10, 10], [1000, 1000]) == pytest.approx(0)
    assert stability_index([10, 10], [0, 0]) == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_rejects_at_least_what_bonferroni_rejects(p_values):
    adjusted = holm(p_values)
    assert all(p <= a <= min(1.0, p * len(p_values)) + 1e-12 for p, a in zip(p_values, adjusted, strict=True))
    assert [a for _, a in sorted(zip(p_values, adjusted, strict=True))] == sorted(adjusted)


def test_holm_of_a_known_example():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.01, 0.04], tests=3) == holm([0.01, 0.04, 1.0])[:2]


@pytest.mark.parametrize("rows", [50, 200, 1000, 10_000])
def test_the_excess_index_of_no_change_does_not_depend_on_the_size_of_the_sample(rows):
    random_ = random.Random(rows)
    cells = 10

    def sample(size):
        found = [0] * cells
        for _ in range(size):
            found[random_.randrange(cells)] += 1
        return found

    plain, excess = zip(*((stability_index(*pair), excess_index(*pair)) for pair in [
        (sample(1000), sample(rows)) for _ in range(200)]), strict=True)  # fmt: skip
    by_chance = (cells - 1) * (1 / rows + 1 / 1000)
    assert sum(plain) / len(plain) == pytest.approx(by_chance, rel=0.3)
    assert sum(excess) / len(excess) < by_chance / 2
