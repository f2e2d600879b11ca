"""When a CloudWatch metric alarm is OK, in ALARM, or has INSUFFICIENT_DATA. Pure: datapoints and time are arguments.

Source: CloudWatch user guide, "Configuring how CloudWatch alarms treat missing data" (its two tables are our tests) and
"Evaluating an alarm". Not written there, and assumed here: the evaluation range is two periods longer than
EvaluationPeriods, as in the guide's examples; with `missing`, a lone breaching datapoint that is not yet as old as
DatapointsToAlarm leaves the state as it is.
"""

from __future__ import annotations

import enum
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

#: The guide's examples look at five datapoints for three evaluation periods.
EXTRA_PERIODS = 2

#: CloudWatch looks at an alarm every minute, at one of shorter period every ten seconds.
STANDARD_LOOK_SECONDS = 60
FREQUENT_LOOK_SECONDS = 10


class AlarmState(enum.StrEnum):
    """State of an alarm."""

    OK = "OK"
    ALARM = "ALARM"
    INSUFFICIENT_DATA = "INSUFFICIENT_DATA"


class MissingData(enum.StrEnum):
    """TreatMissingData."""

    MISSING = "missing"
    IGNORE = "ignore"
    BREACHING = "breaching"
    NOT_BREACHING = "notBreaching"


COMPARISONS: dict[str, tuple[Callable[[float, float], bool], str]] = {
    "GreaterThanOrEqualToThreshold": (operator.ge, "greater than or equal to"),
    "GreaterThanThreshold": (operator.gt, "greater than"),
    "LessThanThreshold": (operator.lt, "less than"),
    "LessThanOrEqualToThreshold": (operator.le, "less than or equal to"),
}


@dataclass(frozen=True, kw_only=True)
class AlarmRule:
    """What decides over an alarm's state. `period` in seconds."""

    period: int
    evaluation_periods: int
    datapoints_to_alarm: int
    threshold: float
    comparison: str
    missing: MissingData = MissingData.MISSING

    def breaches(self, value: float) -> bool:
        """Whether this datapoint is on the wrong side of the threshold."""
        return COMPARISONS[self.comparison][0](value, self.threshold)

    @property
    def look_every(self) -> int:
        """Seconds between two evaluations."""
        return STANDARD_LOOK_SECONDS if self.period >= STANDARD_LOOK_SECONDS else FREQUENT_LOOK_SECONDS

    @property
    def range_length(self) -> int:
        """How many periods back an evaluation looks."""
        return self.evaluation_periods + EXTRA_PERIODS


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The state an evaluation arrives at, and the sentence that goes with it."""

    state: AlarmState
    reason: str


def last_look(rule: AlarmRule, now: float) -> int:
    """Return the moment (epoch seconds) of the latest evaluation that is due at `now`."""
    return int(now) - int(now) % rule.look_every


def window(rule: AlarmRule, look: int) -> tuple[int, int]:
    """Return start and end (epoch seconds) of the evaluation range of a look: whole, ended periods only."""
    end = look - look % min(rule.period, rule.look_every)
    return end - rule.range_length * rule.period, end


def evaluate(rule: AlarmRule, datapoints: Sequence[float | None], current: AlarmState) -> Verdict:
    """Decide on the datapoints of the evaluation range, oldest first, None where a period had no samples.

    Real datapoints count first, the most recent EvaluationPeriods of them. Only if there are fewer, missing ones are
    filled in by the rule's treatment, as few as possible.
    """
    real = [value for value in datapoints if value is not None][-rule.evaluation_periods :]
    breaching = sum(rule.breaches(value) for value in real)
    to_fill = rule.evaluation_periods - len(real)
    if rule.missing is MissingData.BREACHING:
        breaching += to_fill
    if breaching >= rule.datapoints_to_alarm:
        return Verdict(state=AlarmState.ALARM, reason=_crossed(rule, real, breaching, to_fill))
    if to_fill == 0 or breaching < len(real) or rule.missing in (MissingData.BREACHING, MissingData.NOT_BREACHING):
        return Verdict(state=AlarmState.OK, reason=_not_crossed(rule, real, len(real) - breaching, to_fill))
    return _undecided(rule, datapoints, real, current)


def _undecided(
    rule: AlarmRule, datapoints: Sequence[float | None], real: Sequence[float], current: AlarmState
) -> Verdict:
    """Too few datapoints, all of them breaching (or none at all), and missing ones are not to count."""
    if rule.missing is MissingData.IGNORE:
        return Verdict(state=current, reason="Missing data is ignored: the state stays as it is.")
    if not real:
        return Verdict(
            state=AlarmState.INSUFFICIENT_DATA,
            reason=f"Insufficient Data: {rule.evaluation_periods} datapoints were unknown.",
        )
    oldest = next(
        age for age, value in zip(range(len(datapoints), 0, -1), datapoints, strict=True) if value is not None
    )
    if oldest >= rule.datapoints_to_alarm:
        return Verdict(state=AlarmState.ALARM, reason=_crossed(rule, real, len(real), 0))
    return Verdict(state=current, reason="Too few datapoints to alarm yet: the state stays as it is.")


def _crossed(rule: AlarmRule, real: Sequence[float], breaching: int, filled: int) -> str:
    count = min(breaching, rule.evaluation_periods)
    return f"Threshold Crossed: {count} datapoint(s) {_shown(real, filled)} {_relation(rule, was='')}."


def _not_crossed(rule: AlarmRule, real: Sequence[float], good: int, filled: int) -> str:
    return f"Threshold Crossed: {good} datapoint(s) {_shown(real, filled)} {_relation(rule, was='not ')}."


def _relation(rule: AlarmRule, *, was: str) -> str:
    verb = "was" if rule.datapoints_to_alarm == 1 else "were"
    return f"{verb} {was}{COMPARISONS[rule.comparison][1]} the threshold ({rule.threshold})"


def _shown(real: Sequence[float], filled: int) -> str:
    missing = f" and {filled} missing datapoint(s)" if filled else ""
    return f"[{', '.join(str(round(value, 6)) for value in reversed(real))}]{missing}"
