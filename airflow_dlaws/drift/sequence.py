"""Many looks at one stream of traffic, at one false-alarm rate for all of them together, for ever.

Each look judges the newest window alone, and from time to time the last 2, 4, 8, ... windows together (counts add up):
a strong drift is told at once, a weak one as soon as a longer stretch shows it, and months of health do not dilute a
new drift. What each of these tests may spend of alpha is fixed beforehand (drift/spending.py).

Kept between two looks is the `Evidence`: for each length the last complete block of so many windows.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from airflow_dlaws.drift.counts import TrafficCounts
from airflow_dlaws.drift.profile import ReferenceProfile
from airflow_dlaws.drift.readiness import why_inconclusive
from airflow_dlaws.drift.settings import DriftSettings
from airflow_dlaws.drift.spending import alpha_of
from airflow_dlaws.drift.verdict import DriftOutcome, DriftVerdict, assess, inconclusive, renumbered


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the looks so far leave for the next one."""

    #: Looks taken; one that was not possible is not counted, and its window is not kept.
    looks: int = 0
    #: Of alpha, by all looks so far.
    spent: float = 0.0
    #: `blocks[i]` are the counts of the latest complete block of 2^i windows; blocks lie end to end from look 1.
    blocks: tuple[TrafficCounts, ...] = ()
    #: Whether each of the last looks was beyond the threshold, for the persistence rule.
    beyond: tuple[bool, ...] = ()


def advance(
    profile: ReferenceProfile, evidence: Evidence, window: TrafficCounts, settings: DriftSettings
) -> tuple[Evidence, DriftVerdict]:
    """Judge one more window; return the evidence after it, and what was found.

    :param window: the traffic since the look before.
    :raises SpecificationError: the settings name a column that the profile has not.
    """
    settings.check_against(profile)
    doubt = why_inconclusive(window, settings)
    if doubt:
        return evidence, inconclusive(doubt, window, look=evidence.looks)
    look = evidence.looks + 1
    stretches, blocks = _stretches(evidence.blocks, window, look, settings.longest)
    levels = {length: alpha_of(settings.alpha, look, length, settings.longest) for length in stretches}
    spent = sum(levels.values())
    verdicts = {
        length: renumbered(
            assess(profile, counts, settings, level=levels[length]), look=look, windows=length, alpha_spent=spent
        )
        for length, counts in stretches.items()
    }
    verdict = dataclasses.replace(_foremost(verdicts), effects=verdicts[1].effects)
    beyond = (*evidence.beyond, verdict.is_drift)[-settings.persistence_of :]
    after = Evidence(looks=look, spent=evidence.spent + spent, blocks=blocks, beyond=beyond)
    return after, _persistent(verdict, beyond, settings)


def judged_together(before: Evidence, window: TrafficCounts, windows: int) -> TrafficCounts:
    """Return the counts that a verdict over the last `windows` windows is about.

    :param before: the evidence before the look.
    :param windows: `DriftVerdict.windows`: 1, or a length whose block ends with this window.
    """
    for block in before.blocks[: windows.bit_length() - 1]:
        window = block + window
    return window


def _stretches(
    blocks: tuple[TrafficCounts, ...], window: TrafficCounts, look: int, longest: int
) -> tuple[dict[int, TrafficCounts], tuple[TrafficCounts, ...]]:
    """Return the counts of each length that is due, and the blocks after this window."""
    due = {1: window}
    # Fewer where `longest` has been lowered: a block that is no longer renewed must not be met again later.
    kept, block = list(blocks[: longest.bit_length() - 1]), window
    for level, length in enumerate(_lengths(longest)):
        if look % (length // 2):  # no block of half this length ends here
            break
        before = kept[level] if level < len(kept) else None
        kept[level : level + 1] = [block]
        if before is None:
            break
        block = before + block
        due[length] = block
    return due, tuple(kept)


def _lengths(longest: int) -> list[int]:
    return [2**power for power in range(1, longest.bit_length())]


def _foremost(verdicts: dict[int, DriftVerdict]) -> DriftVerdict:
    """Return the verdict to tell: drift over the fewest windows, or else that over the most: it has seen the most."""
    drifted = [length for length, verdict in verdicts.items() if verdict.is_drift]
    return verdicts[min(drifted)] if drifted else verdicts[max(verdicts)]


def _persistent(verdict: DriftVerdict, beyond: tuple[bool, ...], settings: DriftSettings) -> DriftVerdict:
    if not verdict.is_drift or sum(beyond) >= settings.persistence:
        return verdict
    waiting = (
        f"Not told yet: {sum(beyond)} of the last {len(beyond)} looks, and {settings.persistence} of "
        f"{settings.persistence_of} are asked for (persistence). {verdict.reason}"
    )
    return dataclasses.replace(verdict, outcome=DriftOutcome.NO_DRIFT, reason=waiting)
