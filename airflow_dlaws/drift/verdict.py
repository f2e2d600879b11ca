"""Has the traffic drifted? The answer, with the names of what drifted, at a false-alarm rate of the decision.

A column is called drifted only where a test is significant AND its effect is large. Significance is judged after
Holm's correction over the tests of a family, at the family's share of alpha (drift/spending.py): so `alpha` bounds the
chance of a false alarm of the whole decision, however many columns there are. The bound takes rows as independent. Rows
that come in bursts of kin (one day's weather) vary more than that; `min_effect` is what keeps such bursts from being
called drift. Here is one look; drift/sequence.py judges many.
"""

from __future__ import annotations

import dataclasses
import enum
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from airflow_dlaws.drift.accuracy import AccuracyEstimate, estimate_accuracy
from airflow_dlaws.drift.cells import CategoricalProfile, FeatureProfile
from airflow_dlaws.drift.comparison import Comparison, Family, Measure, compare, range_tests
from airflow_dlaws.drift.counts import TrafficCounts
from airflow_dlaws.drift.discrepancy import compare_embedding
from airflow_dlaws.drift.profile import ReferenceProfile
from airflow_dlaws.drift.readiness import rows_to_find, why_inconclusive
from airflow_dlaws.drift.settings import DriftSettings
from airflow_dlaws.drift.spending import family_shares
from airflow_dlaws.drift.statistics import holm


class DriftOutcome(enum.StrEnum):
    """What a look at the traffic says."""

    DRIFT = "drift"
    NO_DRIFT = "no_drift"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, kw_only=True)
class DriftVerdict:
    """What one look found."""

    outcome: DriftOutcome
    #: One sentence for a person.
    reason: str
    #: The drifted columns (outputs and representations among them), the most significant first.
    drifted: tuple[str, ...]
    #: Every test made in which anything was seen, strongest first: drifted ones, then by adjusted p and effect.
    comparisons: tuple[Comparison, ...]
    rows: int
    #: The number of this look, from 1; one that could not be taken is not counted.
    look: int = 1
    #: How many windows, the latest last, the comparisons judge together.
    windows: int = 1
    #: What an adjusted p had to reach.
    level: float = 0.0
    #: What this look spent of alpha, over all lengths of windows.
    alpha_spent: float = 0.0
    #: The largest stability index of each column in the newest window alone, for a picture of many looks.
    effects: Mapping[str, float] = field(default_factory=dict)
    #: What the model's confidence says about its accuracy now; None where the reference is not calibrated.
    accuracy: AccuracyEstimate | None = None

    @property
    def is_drift(self) -> bool:
        """Tell whether the traffic has drifted."""
        return self.outcome is DriftOutcome.DRIFT


def assess(
    profile: ReferenceProfile, counts: TrafficCounts, settings: DriftSettings, *, level: float | None = None
) -> DriftVerdict:
    """Compare the counted traffic with the reference, once.

    No drift in a sample that is too small to find the effect asked for is inconclusive; drift is drift in any.

    :param level: the chance of a false alarm; None is `settings.alpha`.
    :raises SpecificationError: the settings name a column that the profile has not.
    """
    settings.check_against(profile)
    doubt = why_inconclusive(counts, settings)
    if doubt:
        return inconclusive(doubt, counts, look=1)
    level = settings.alpha if level is None else level
    comparisons = judge(profile, counts, settings, level)
    drifted = tuple(dict.fromkeys(each.feature for each in comparisons if each.drifted))
    needed = 0 if drifted else rows_to_find(profile, comparisons, settings, level)
    return DriftVerdict(
        outcome=_outcome(drifted, too_few=counts.rows < needed),
        reason=_sentence(comparisons, drifted, counts.rows, needed),
        drifted=drifted,
        comparisons=comparisons,
        rows=counts.rows,
        level=level,
        alpha_spent=level,
        effects=_effects(comparisons),
        accuracy=estimate_accuracy(profile, counts),
    )


def _effects(comparisons: Iterable[Comparison]) -> dict[str, float]:
    effects: dict[str, float] = {}
    for each in comparisons:
        if each.measure is Measure.PSI:  # one picture has one scale
            effects[each.feature] = max(effects.get(each.feature, 0.0), round(each.effect, 6))
    return effects


def _outcome(drifted: Sequence[str], *, too_few: bool) -> DriftOutcome:
    if drifted:
        return DriftOutcome.DRIFT
    return DriftOutcome.INCONCLUSIVE if too_few else DriftOutcome.NO_DRIFT


def inconclusive(doubt: str, counts: TrafficCounts, *, look: int) -> DriftVerdict:
    """Return the verdict on traffic that allows none."""
    return DriftVerdict(
        outcome=DriftOutcome.INCONCLUSIVE, reason=doubt, drifted=(), comparisons=(), rows=counts.rows, look=look
    )


def judge(
    profile: ReferenceProfile, counts: TrafficCounts, settings: DriftSettings, level: float
) -> tuple[Comparison, ...]:
    """Return every test of the watched columns, adjusted for all of them and judged, the strongest first."""
    tests, number = _tests(profile, counts, settings)
    judged: list[Comparison] = []
    for family, share in family_shares(number).items():
        members = [test for test in tests if test.family is family]
        for test, p in zip(members, holm([test.p_value for test in members], number[family]), strict=True):
            adjusted = min(1.0, p / share)
            large = test.effect >= settings.least_effect(test)
            judged.append(test.judged(adjusted, drifted=adjusted <= level and large))
    return tuple(sorted(judged, key=lambda test: (not test.drifted, test.adjusted_p, -test.effect)))


def _tests(
    profile: ReferenceProfile, counts: TrafficCounts, settings: DriftSettings
) -> tuple[list[Comparison], Counter[Family]]:
    """Return the tests in which anything was seen, and the number of all by family."""
    tests: list[Comparison] = []
    unseen: Counter[Family] = Counter()
    moves = profile.numbers.moves(counts.features)
    for (column, family), counted in zip(_with_families(profile), counts.features, strict=True):
        if settings.watches(column.name) and counted.rows:
            of_column = list(compare(column, counted, family, moves.get(column.name)))
            unseen[Family.RANGE] += range_tests(column) - sum(test.family is Family.RANGE for test in of_column)
            tests += of_column
    for embedding, images in zip(profile.embeddings, counts.embeddings, strict=True):
        if settings.watches(embedding.name):
            tests += compare_embedding(embedding, images)
    return tests, Counter(test.family for test in tests) + unseen


def _with_families(profile: ReferenceProfile) -> Iterator[tuple[FeatureProfile, Family]]:
    """Yield the watched columns in the order of their counts, each with the family of its distribution."""
    for column in profile.features:
        yield column, Family.MARGINALS
    for column in profile.outputs:
        yield column, Family.LABEL if isinstance(column, CategoricalProfile) else Family.OUTPUTS
    for each in profile.representation:
        yield each.error, Family.REPRESENTATION


def _sentence(comparisons: Sequence[Comparison], drifted: tuple[str, ...], rows: int, needed: int) -> str:
    if drifted:
        told = "; ".join(f"{each.feature} {each.note} ({_effect(each)})" for each in _first_of_each(comparisons))
        more = f"; and {len(drifted) - _TOLD} more" if len(drifted) > _TOLD else ""
        return f"Drift in {rows} rows: {told}{more}. {_about_predictions(comparisons)}".rstrip()
    strongest = comparisons[0]
    largest = (
        f"the largest change is {strongest.feature} {strongest.note}, {_effect(strongest)}, "
        f"adjusted p {strongest.adjusted_p:.2g}"
    )
    if rows < needed:
        return (
            f"No drift seen in {rows} rows, which are too few to find every change worth an alarm (about {needed} "
            f"rows would): {largest}"
        )
    return f"No drift in {rows} rows: {largest}"


#: Drifted columns told in a sentence.
_TOLD = 5


def _first_of_each(comparisons: Iterable[Comparison]) -> list[Comparison]:
    """Return the strongest drifted test of each column, the first few columns."""
    first: dict[str, Comparison] = {}
    for each in comparisons:
        if each.drifted:
            first.setdefault(each.feature, each)
    return list(first.values())[:_TOLD]


def _effect(comparison: Comparison) -> str:
    if comparison.measure is Measure.SHARE:
        return f"{comparison.effect:.1%} of the rows"
    return f"effect {comparison.effect:.3f}"


def _about_predictions(comparisons: Iterable[Comparison]) -> str:
    """Return whether the answers have drifted too; nothing where they were not watched."""
    of_answers = [each for each in comparisons if each.family in {Family.OUTPUTS, Family.LABEL}]
    if not of_answers:
        return ""
    return "The predictions have drifted too." if any(each.drifted for each in of_answers) else (
        "The predictions have not drifted."
    )  # fmt: skip


def renumbered(verdict: DriftVerdict, *, look: int, windows: int, alpha_spent: float) -> DriftVerdict:
    """Return the verdict as one of a sequence of looks."""
    reason = verdict.reason.replace(" rows", f" rows (look {look}{_over(windows)})", 1)
    return dataclasses.replace(verdict, reason=reason, look=look, windows=windows, alpha_spent=alpha_spent)


def _over(windows: int) -> str:
    return "" if windows == 1 else f", over the last {windows} windows"
