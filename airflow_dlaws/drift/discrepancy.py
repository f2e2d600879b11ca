"""The comparison of an embedding with its reference, told as the other tests are; drift/embedding.py has the test."""

from __future__ import annotations

import math
from collections.abc import Iterator

from airflow_dlaws.drift.comparison import Aspect, Comparison, Direction, Family, Measure
from airflow_dlaws.drift.counts import EmbeddingCounts
from airflow_dlaws.drift.embedding import discrepancy
from airflow_dlaws.drift.representation import EmbeddingProfile


def compare_embedding(profile: EmbeddingProfile, current: EmbeddingCounts) -> Iterator[Comparison]:
    """Yield the test of one embedding; none where there are fewer than two current vectors."""
    if current.rows < 2:
        return
    found = discrepancy(profile, current)
    distance = math.sqrt(max(0.0, found.squared))
    yield Comparison(
        feature=profile.name,
        family=Family.EMBEDDING,
        aspect=Aspect.DISTRIBUTION,
        direction=Direction.RESHAPED,
        note=f"discrepancy {distance:.4g}; without a change mostly below {math.sqrt(2 * found.spread):.4g}",
        statistic=found.squared,
        degrees_of_freedom=0,
        p_value=found.p_value,
        effect=found.effect,
        measure=Measure.SPREAD,
    )
