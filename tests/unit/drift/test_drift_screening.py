"""The screen before a verdict says yes exactly where a test of the verdict is significant."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from airflow_dlaws.drift.build import build_profile
from airflow_dlaws.drift.columns import count_columns
from airflow_dlaws.drift.counts import TrafficCounts
from airflow_dlaws.drift.outputs import answer_columns
from airflow_dlaws.drift.profile import ReferenceProfile
from airflow_dlaws.drift.screening import may_drift
from airflow_dlaws.drift.settings import DriftSettings
from airflow_dlaws.drift.verdict import assess

CLASSES = ("red", "green", "blue")
SETTINGS = DriftSettings(min_rows=5)


def _table(rng: np.random.Generator, rows: int, *, moved: float = 0.0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return columns of a request and answers; `moved` shifts some of each."""
    columns = {
        "plain": rng.normal(moved, 1, rows),
        "sparse": np.where(rng.random(rows) < 0.8, 0.0, rng.exponential(size=rows) * (1 + moved)),
        "holes": np.where(rng.random(rows) < 0.1 + moved / 10, np.nan, rng.random(rows)),
        "constant": np.where(rng.random(rows) < moved / 20, 4.0, 3.0),
        "kind": np.array(["a", "b", "c"], dtype=object)[
            rng.choice(3, rows, p=[0.6, 0.3 - moved / 10, 0.1 + moved / 10])
        ],
    }
    return columns, rng.dirichlet([2 + moved, 1, 1], rows)


@pytest.fixture(scope="module")
def profile() -> ReferenceProfile:
    columns, answers = _table(np.random.default_rng(0), 800)
    created = datetime(2026, 1, 1, tzinfo=UTC)
    return build_profile(columns, created=created, categorical={"kind"}, answers=answers, classes=CLASSES, components=2)


def _counts(profile: ReferenceProfile, seed: int, rows: int, moved: float) -> TrafficCounts:
    columns, answers = _table(np.random.default_rng(seed), rows, moved=moved)
    return count_columns(profile, columns, answer_columns(answers, profile.classes))


@pytest.mark.parametrize("moved", [0.0, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("rows", [7, 60, 900])
def test_the_screen_and_the_verdict_agree(profile: ReferenceProfile, rows: int, moved: float) -> None:
    for seed in range(1, 9):
        counts = _counts(profile, seed, rows, moved)
        least = min(each.adjusted_p for each in assess(profile, counts, SETTINGS).comparisons)

        for level in (1e-9, 1e-4, 0.01, 0.05, 0.3, least * 0.999, min(0.999, least * 1.001)):
            assert may_drift(profile, counts, SETTINGS, level) is (least <= level)


def test_columns_that_are_not_watched_do_not_count(profile: ReferenceProfile) -> None:
    counts = _counts(profile, 1, 900, 1.0)

    assert may_drift(profile, counts, SETTINGS, 1e-6)
    assert not may_drift(profile, counts, DriftSettings(min_rows=5, features=("constant",)), 1e-12)
