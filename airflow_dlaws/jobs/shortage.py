"""How long a task keeps asking for instances that are not to be had. Pure: the clock is an argument."""

from __future__ import annotations

from dataclasses import dataclass

#: Instances come back within minutes, or only after hours: ask often at first, then rarely. Seconds.
FIRST_PAUSE_S = 60.0
LONGEST_PAUSE_S = 1800.0
#: With these pauses a task asks about 50 times a day; `launchers/sagemaker_jobs.py` says how many jobs it may start.
LONGEST_WAIT_S = 24 * 3600


@dataclass(frozen=True, kw_only=True)
class Shortage:
    """Since when there were no instances (seconds since the epoch), and how often they were asked for."""

    since: float
    tries: int


def next_try(shortage: Shortage, now: float, budget_s: float) -> float | None:
    """Return when to ask again, in seconds since the epoch; None where the budget is used up.

    The pauses double from a minute to half an hour; the last one ends with the budget.
    """
    ends = shortage.since + budget_s
    if now >= ends:
        return None
    pause: float = min(FIRST_PAUSE_S * 2.0 ** min(shortage.tries - 1, 30), LONGEST_PAUSE_S)
    return min(now + pause, ends)
