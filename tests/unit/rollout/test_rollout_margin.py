"""The bet against a margin: is its expectation at most 1 wherever green is within it?"""

from __future__ import annotations

import itertools
import math

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from airflow_dlaws.rollout.margin import Margin, RateWindow, log_factor

RATES = st.floats(0.001, 0.999)
MARGINS = st.one_of(
    st.builds(Margin, intercept=st.floats(0.01, 0.5), slope=st.just(1.0)),
    st.builds(lambda loss: Margin(intercept=loss, slope=1 - loss), st.floats(0.01, 0.9)),
    st.builds(lambda loss: Margin(intercept=0.0, slope=1 + loss), st.floats(0.01, 2.0)),
)


def binomial(n: int, k: int, rate: float) -> float:
    return math.comb(n, k) * rate**k * (1 - rate) ** (n - k)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    margin=MARGINS, bet=st.tuples(RATES, RATES), true=st.tuples(RATES, RATES), green=st.integers(1, 5),
    blue=st.integers(1, 9),
)  # fmt: skip
def test_the_expectation_is_at_most_one_wherever_green_is_within_the_margin(
    margin: Margin, bet: tuple[float, float], true: tuple[float, float], green: int, blue: int
) -> None:
    assume(margin.allows(*true))
    expectation = sum(
        binomial(green, g, true[0])
        * binomial(blue, b, true[1])
        * math.exp(log_factor(margin, *bet, RateWindow(green=green, green_hits=g, blue=blue, blue_hits=b)))
        for g, b in itertools.product(range(green + 1), range(blue + 1))
    )
    assert expectation <= 1 + 1e-6


def test_sums_of_fractions_prove_no_more_than_the_values_that_they_are_sums_of() -> None:
    margin, one = Margin(intercept=0.1, slope=1.0), RateWindow(green=2, green_hits=1.0, blue=1, blue_hits=0.0)
    # Two values of 0.5 stand for 1 and 0: by concavity the true product is not smaller.
    factor = log_factor(margin, 0.6, 0.2, one)
    apart = [
        log_factor(margin, 0.6, 0.2, RateWindow(green=2, green_hits=hits, blue=1, blue_hits=0.0)) for hits in (0, 2)
    ]
    assert math.isclose(factor, sum(apart) / 2)


def test_one_fleet_alone_proves_nothing() -> None:
    margin = Margin(intercept=0.1, slope=1.0)
    assert log_factor(margin, 0.9, 0.1, RateWindow(green=100, green_hits=100, blue=0, blue_hits=0)) == 0.0
    assert log_factor(margin, 0.9, 0.1, RateWindow(green=0, green_hits=0, blue=100, blue_hits=0)) == 0.0
