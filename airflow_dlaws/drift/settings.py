"""When to call a change drift: the numbers that somebody has to choose, each checked, each with its default."""

from __future__ import annotations

import math
from dataclasses import dataclass

from airflow_dlaws.drift.comparison import Comparison, Family, Measure
from airflow_dlaws.drift.profile import ReferenceProfile
from airflow_dlaws.errors import SpecificationError

#: With windows of an hour, two and a half days; what has not shown by then is too weak for `min_effect`, or too slow.
DEFAULT_LONGEST = 64

#: A change of inputs may mean nothing, one of the answers is a change of what the model does; and one class of ten that
#: all but vanishes has an index of about 0.2, and half of that in a sample of 200 rows that holds five of it.
_OF_ANSWERS = 0.4


@dataclass(frozen=True, kw_only=True)
class DriftSettings:
    """When to call a change drift."""

    #: Chance of ever raising an alarm about traffic that has not changed, over all columns, all tests and all looks.
    alpha: float = 0.05
    #: Least population stability index of a column that matters; 0.2 is the customary "significant shift". Of what the
    #: model answers two fifths of it do.
    min_effect: float = 0.2
    #: Least share of rows that matters, of rows that are unlike all but a few of the reference (Family.TAIL). One in
    #: twenty: the weather of a month moves 3 to 4 % of New York's flights there, and no model was worse for it.
    min_tail: float = 0.05
    #: Least squared shift of an embedding's mean image that matters, in parts of its variance (Family.EMBEDDING).
    min_spread: float = 0.01
    #: Fewer rows than this are not looked at.
    min_rows: int = 1000
    #: Columns to watch, outputs ("prediction") and representations among them; None watches all.
    features: tuple[str, ...] | None = None
    #: More lost rows than this share, and the rest does not stand for the traffic.
    max_lost_share: float = 0.1
    #: Windows that are judged together at most, in a sequence of looks; a power of two.
    longest: int = DEFAULT_LONGEST
    #: Drift is told where at least so many ...
    persistence: int = 1
    #: ... of so many looks, this one the last, were beyond the threshold.
    persistence_of: int = 1

    def __post_init__(self) -> None:
        rules = (
            (0 < self.alpha < 1, f"alpha={self.alpha} must be between 0 and 1, such as 0.05"),
            (0 <= self.min_effect < math.inf, f"min_effect={self.min_effect} must be 0 or more, such as 0.2"),
            (0 <= self.min_tail < 1, f"min_tail={self.min_tail} must be from 0 to below 1, such as 0.05"),
            (0 <= self.min_spread < math.inf, f"min_spread={self.min_spread} must be 0 or more, such as 0.01"),
            (self.min_rows >= 1, f"min_rows={self.min_rows} must be at least 1"),
            (
                self.features is None or len(self.features) > 0,
                "features=() watches nothing: name some, or None for all",
            ),
            (0 <= self.max_lost_share <= 1, f"max_lost_share={self.max_lost_share} must be between 0 and 1"),
            (
                self.longest >= 1 and self.longest.bit_count() == 1,
                f"longest={self.longest} must be a power of two, such as {DEFAULT_LONGEST}",
            ),
            (
                1 <= self.persistence <= self.persistence_of,
                f"persistence={self.persistence} must be from 1 to persistence_of={self.persistence_of}",
            ),
        )
        for holds, rule in rules:
            if not holds:
                raise SpecificationError(f"drift settings: {rule}")

    def watches(self, name: str) -> bool:
        """Tell whether the column of this name is to be tested."""
        return self.features is None or name in self.features

    def least_effect(self, test: Comparison) -> float:
        """Return the effect from which on a change that this test found matters."""
        if test.measure is Measure.PSI and test.family in {Family.OUTPUTS, Family.LABEL}:
            return _OF_ANSWERS * self.min_effect
        return {
            Measure.PSI: self.min_effect, Measure.SHARE: self.min_tail, Measure.SPREAD: self.min_spread,
        }[test.measure]  # fmt: skip

    def check_against(self, profile: ReferenceProfile) -> None:
        """Refuse to watch columns that the profile does not have.

        :raises SpecificationError: there is such a column, or nothing to watch.
        """
        known = [each.name for each in (*profile.watched, *profile.embeddings)]
        unknown = sorted(set(self.features or ()) - set(known))
        if unknown or not known:
            raise SpecificationError(f"the drift reference has no profile of {unknown}; it has {known}")
