"""Has the traffic drifted? The answer, with the names of what drifted, at a false-alarm rate of the decision.

A feature is called drifted only where a test is significant AND its effect is large. Significance is judged after
Holm's correction over all tests of a look, at the share of alpha that this look may spend (statistics.alpha_of_look):
so `alpha` bounds the chance that an endpoint whose traffic never changes ever raises an alarm, however many features
it has and however often it is looked at. The bound takes rows as independent. Rows that come in bursts of kin (one
day's weather) vary more than that; `min_effect` is what keeps such bursts from being called drift.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from airflow_dlaws.drift.body import LOSING_ROWS
from airflow_dlaws.drift.comparison import Comparison, compare
from airflow_dlaws.drift.counts import TrafficCounts
from airflow_dlaws.drift.profile import PREDICTION, ReferenceProfile
from airflow_dlaws.drift.statistics import alpha_of_look, holm
from airflow_dlaws.errors import SpecificationError


class DriftOutcome(enum.StrEnum):
    """What a look at the traffic says."""

    DRIFT = "drift"
    NO_DRIFT = "no_drift"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, kw_only=True)
class DriftSettings:
    """When to call a change drift."""

    #: Chance of ever raising an alarm about traffic that has not changed, over all features and all looks.
    alpha: float = 0.05
    #: Least population stability index that matters; 0.2 is the customary "significant shift".
    min_effect: float = 0.2
    #: Fewer rows than this give no verdict.
    min_rows: int = 1000
    #: Columns to watch, "prediction" among them; None watches all.
    features: tuple[str, ...] | None = None
    #: More lost rows than this share, and the rest does not stand for the traffic.
    max_lost_share: float = 0.1

    def __post_init__(self) -> None:
        rules = (
            (0 < self.alpha < 1, f"alpha={self.alpha} must be between 0 and 1, such as 0.05"),
            (0 <= self.min_effect < math.inf, f"min_effect={self.min_effect} must be 0 or more, such as 0.2"),
            (self.min_rows >= 1, f"min_rows={self.min_rows} must be at least 1"),
            (
                self.features is None or len(self.features) > 0,
                "features=() watches nothing: name some, or None for all",
            ),
            (0 <= self.max_lost_share <= 1, f"max_lost_share={self.max_lost_share} must be between 0 and 1"),
        )
        for holds, rule in rules:
            if not holds:
                raise SpecificationError(f"drift settings: {rule}")

    def watches(self, name: str) -> bool:
        """Tell whether the feature (or the prediction) of this name is to be tested."""
        return self.features is None or name in self.features

    def check_against(self, profile: ReferenceProfile) -> None:
        """Refuse to watch columns that the profile does not have.

        :raises SpecificationError: there is such a column, or nothing to watch.
        """
        known = [feature.name for feature in profile.watched]
        unknown = sorted(set(self.features or ()) - set(known))
        if unknown or not known:
            raise SpecificationError(f"the drift reference has no profile of {unknown}; it has {known}")


@dataclass(frozen=True, kw_only=True)
class DriftVerdict:
    """What one look found."""

    outcome: DriftOutcome
    #: One sentence for a person.
    reason: str
    #: The drifted features (the prediction among them), largest effect first.
    drifted: tuple[str, ...]
    #: Every test made, strongest first: drifted ones, then by effect.
    comparisons: tuple[Comparison, ...]
    rows: int
    #: The number of this look, from 1; an inconclusive one is not counted.
    look: int
    #: What this look could spend of alpha.
    alpha_spent: float

    @property
    def is_drift(self) -> bool:
        """Tell whether the traffic has drifted."""
        return self.outcome is DriftOutcome.DRIFT


def assess(
    profile: ReferenceProfile, counts: TrafficCounts, looks_so_far: int, settings: DriftSettings
) -> DriftVerdict:
    """Compare the counted traffic with the reference; the look is counted unless it is inconclusive.

    :raises SpecificationError: the settings name a feature that the profile has not.
    """
    settings.check_against(profile)
    doubt = why_inconclusive(counts, settings)
    if doubt:
        return DriftVerdict(
            outcome=DriftOutcome.INCONCLUSIVE, reason=doubt, drifted=(), comparisons=(), rows=counts.rows,
            look=looks_so_far, alpha_spent=0.0,
        )  # fmt: skip
    level = alpha_of_look(settings.alpha, looks_so_far + 1)
    comparisons = _judged(profile, counts, settings, level)
    drifted = tuple(dict.fromkeys(each.feature for each in comparisons if each.drifted))
    return DriftVerdict(
        outcome=DriftOutcome.DRIFT if drifted else DriftOutcome.NO_DRIFT,
        reason=_sentence(comparisons, drifted, counts.rows, looks_so_far + 1),
        drifted=drifted,
        comparisons=comparisons,
        rows=counts.rows,
        look=looks_so_far + 1,
        alpha_spent=level,
    )


def why_inconclusive(counts: TrafficCounts, settings: DriftSettings) -> str:
    """Return why this traffic allows no verdict, or an empty text where it does."""
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
    """Return how many rows there are of the watched features; fewer than all where only responses are captured."""
    return max((feature.rows for feature in counts.features if settings.watches(feature.name)), default=0)


def lost_rows(faults: Mapping[str, int]) -> int:
    """Return how many rows or requests the faults cost."""
    return sum(count for kind, count in faults.items() if kind in LOSING_ROWS)


def _judged(
    profile: ReferenceProfile, counts: TrafficCounts, settings: DriftSettings, level: float
) -> tuple[Comparison, ...]:
    by_name = counts.by_name
    tests = [
        comparison
        for feature in profile.watched
        if settings.watches(feature.name)
        for comparison in compare(feature, by_name[feature.name])
    ]
    adjusted = holm([test.p_value for test in tests])
    judged = [
        test.judged(p, drifted=p <= level and test.effect >= settings.min_effect)
        for test, p in zip(tests, adjusted, strict=True)
    ]
    return tuple(sorted(judged, key=lambda test: (not test.drifted, -test.effect)))


def _sentence(comparisons: Sequence[Comparison], drifted: tuple[str, ...], rows: int, look: int) -> str:
    seen = f"in {rows} rows (look {look})"
    if not drifted:
        strongest = comparisons[0]
        return (
            f"No drift {seen}: the largest change is {strongest.feature} {strongest.note}, "
            f"effect {strongest.effect:.3f}, adjusted p {strongest.adjusted_p:.2g}"
        )
    first: dict[str, Comparison] = {}
    for each in comparisons:
        if each.drifted:
            first.setdefault(each.feature, each)
    told = "; ".join(f"{name} {each.note} (effect {each.effect:.2f})" for name, each in list(first.items())[:5])
    more = f"; and {len(drifted) - 5} more" if len(drifted) > 5 else ""
    what = "have drifted too" if PREDICTION in drifted else "have not drifted"
    return f"Drift {seen}: {told}{more}. The predictions {what}."
