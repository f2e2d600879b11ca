"""Is there enough to judge? Rows enough, enough of them readable, and enough to find the effect that is asked for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import NormalDist

from airflow_dlaws.drift.body import LOSING_ROWS
from airflow_dlaws.drift.comparison import Comparison, Family
from airflow_dlaws.drift.counts import TrafficCounts
from airflow_dlaws.drift.profile import ReferenceProfile
from airflow_dlaws.drift.settings import DriftSettings
from airflow_dlaws.drift.spending import family_shares

#: A sample is large enough that finds the effect asked for with this chance; the usual choice of a power analysis.
_POWER = 0.8


def why_inconclusive(counts: TrafficCounts, settings: DriftSettings) -> str:
    """Return why this traffic cannot be looked at, or an empty text where it can."""
    rows = usable_rows(counts, settings)
    if rows < settings.min_rows and not unreadable(counts, settings):
        return f"{rows} rows of what is watched are too few for a verdict; {settings.min_rows} are needed (min_rows)"
    return unreadable(counts, settings)


def unreadable(counts: TrafficCounts, settings: DriftSettings) -> str:
    """Return what is wrong with traffic of which too much could not be read; an empty text where enough could."""
    lost = lost_rows(counts.faults)
    if lost <= settings.max_lost_share * (counts.rows + lost):
        return ""
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(counts.faults.items()) if count)
    return (
        f"{lost} captured rows or requests could not be read beside {counts.rows} that could ({kinds}): what is left "
        "does not stand for the traffic. Compare the requests with feature_order in the drift reference"
    )


def ready_to_look(counts: TrafficCounts, settings: DriftSettings) -> bool:
    """Tell whether a look is due: there are rows enough, or so much was lost that waiting for more does not help."""
    if usable_rows(counts, settings) >= settings.min_rows:
        return True
    read_or_lost = counts.rows + lost_rows(counts.faults)
    return read_or_lost >= settings.min_rows and bool(unreadable(counts, settings))


def usable_rows(counts: TrafficCounts, settings: DriftSettings) -> int:
    """Return how many rows there are of the watched columns; fewer than all where only responses are captured."""
    rows = [(each.name, each.rows) for each in counts.features] + [(each.name, each.rows) for each in counts.embeddings]
    return max((count for name, count in rows if settings.watches(name)), default=0)


def lost_rows(faults: Mapping[str, int]) -> int:
    """Return how many rows or requests the faults cost."""
    return sum(count for kind, count in faults.items() if kind in LOSING_ROWS)


def rows_to_find(
    profile: ReferenceProfile, comparisons: Sequence[Comparison], settings: DriftSettings, level: float
) -> int:
    """Return about how many rows find a shift of `min_effect` in one column, with a chance of 80 %.

    Taken is a normal column whose mean moves, for which a stability index of e is a shift of sqrt(e) standard
    deviations and a Kolmogorov distance of 2 Phi(sqrt(e) / 2) - 1. 0 where no effect is asked for; a reference too
    small to ever find it counts as asking for twice the rows it has.
    """
    watched = [each for each in comparisons if each.family in {Family.MARGINALS, Family.OUTPUTS}]
    if not settings.min_effect or not watched:
        return 0
    shares = family_shares(each.family for each in comparisons)
    strictest = min(shares[family] / number for family, number in Counter(each.family for each in watched).items())
    distance = 2 * NormalDist().cdf(math.sqrt(settings.min_effect) / 2) - 1
    # The distance that is significant, and what a distance of two distribution functions varies by (at most 1/2).
    critical = math.sqrt(math.log(2 / (level * strictest)) / 2) + NormalDist().inv_cdf(_POWER) / 2
    effective = (critical / distance) ** 2
    return math.ceil(effective / max(0.5, 1 - effective / profile.rows))
