"""A spell of errors that both fleets meet is no harm in the very minute in which traffic moves either."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_dlaws.rollout.analysis import Minute, Verdict, judge
from airflow_dlaws.rollout.harm import Alternative, CellCounts, Meter
from airflow_dlaws.rollout.latency import LatencyReference
from airflow_dlaws.rollout.plan import RolloutPlan, Strategy
from airflow_dlaws.rollout.shifts import ShareBounds, moved

REFERENCE = LatencyReference(levels=(0.5, 0.95), thresholds=(40_000.0, 90_000.0), answers=1000)
CANARY = RolloutPlan(canary_percent=10)


def served(start: int, *parts: tuple[int, int, float]) -> Minute:
    """A minute made of parts: requests of green, of blue, and the share of both that fails and is slow."""
    green, blue = (sum(part[fleet] for part in parts) for fleet in (0, 1))
    failed = [round(sum(part[fleet] * part[2] for part in parts)) for fleet in (0, 1)]
    return Minute(
        start=start, green_requests=green, green_errors=failed[0], blue_requests=blue, blue_errors=failed[1],
        green_timed=green, green_over=(failed[0], failed[0]), blue_timed=blue, blue_over=(failed[1], failed[1]),
    )  # fmt: skip


CALM, SPELL = 0.01, 0.3
BEFORE, CANARY_MINUTE = (0, 6000, CALM), (600, 5400, CALM)
MOVES = {
    "the canary begins": (CANARY, [served(0, BEFORE), served(60, (0, 3000, CALM), (300, 2700, SPELL))]),
    "green takes everything": (
        CANARY,
        [served(0, BEFORE), *(served(60 * n, CANARY_MINUTE) for n in (1, 2, 3)),
         served(240, (300, 2700, CALM), (3000, 0, SPELL))],
    ),
    "the next step begins": (
        RolloutPlan(strategy=Strategy.LINEAR, linear_step_percent=25),
        [served(0, BEFORE), served(60, (1500, 4500, CALM)), served(120, (750, 2250, CALM), (1500, 1500, SPELL))],
    ),
    "the next batch serves": (
        RolloutPlan(strategy=Strategy.ROLLING, instance_count=4, maximum_batch_percent=25),
        [served(0, BEFORE), served(60, (3000, 3000, CALM)), served(120, (1500, 1500, CALM), (2250, 750, SPELL))],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["errors", "latency"])
@pytest.mark.parametrize(("plan", "minutes"), MOVES.values(), ids=MOVES)
def test_a_spell_that_begins_as_traffic_moves_is_no_harm(plan: RolloutPlan, minutes: list[Minute], kind: str) -> None:
    evidence = judge(plan, minutes, began=0, latency=REFERENCE if kind == "latency" else None)
    assert evidence.verdict is Verdict.NO_HARM_SEEN, evidence.reason


def test_a_bad_model_is_found_in_the_minute_in_which_it_begins_to_serve() -> None:
    minutes = [served(0, BEFORE), Minute(start=60, green_requests=300, green_errors=60, blue_requests=5700)]
    assert judge(CANARY, minutes, began=0).verdict is Verdict.HARM


@pytest.mark.parametrize(("before", "compared"), [((100, 900, 0.0), 100), ((10, 90, 0.0), 310)])
def test_a_minute_that_may_have_been_all_of_greens_is_compared_only_where_there_would_be_no_verdict_without_it(
    before: tuple[int, int, float], compared: int
) -> None:
    minutes = [served(0, BEFORE), served(60, before), served(120, (300, 20, 0.0))]
    evidence = judge(CANARY, minutes, began=0)
    assert (evidence.verdict, evidence.compared_requests) == (Verdict.NO_HARM_SEEN, compared)


def test_steady_traffic_has_no_bounds_whatever_share_the_instances_give() -> None:
    steady = [(60 * n, *counts) for n, counts in enumerate([(0, 900), (333, 667), (350, 650), (320, 680)])]
    assert set(moved(steady, (0.1, 1.0))) == {60}
    assert moved([(0, 1, 9), (60, 0, 11), (120, 3, 8)], (0.1, 1.0)) == {}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    ratios=st.tuples(st.floats(0.1, 8.0), st.floats(0.1, 8.0)),
    shares=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=5),
    cells=st.lists(st.integers(0, 1), min_size=5, max_size=5),
)
def test_the_expectation_is_at_most_one_whenever_in_the_minute_the_requests_came(
    ratios: tuple[float, float], shares: list[float], cells: list[int]
) -> None:
    bounds = ShareBounds(low=min(shares), high=max(shares))
    expectation = 0.0
    for fleets in itertools.product((0, 1), repeat=len(shares)):
        counts = [[0, 0], [0, 0]]
        for fleet, cell in zip(fleets, cells, strict=False):
            counts[fleet][cell] += 1
        meter = Meter([Alternative(weight=1.0, ratios=ratios)])
        meter.add(CellCounts(counts[1], counts[0], sum(counts[1]), sum(counts[0]), bounds))
        chance = math.prod(share if fleet else 1 - share for share, fleet in zip(shares, fleets, strict=True))
        expectation += chance * math.exp(meter.log_evidence)
    assert expectation <= 1 + 1e-9
