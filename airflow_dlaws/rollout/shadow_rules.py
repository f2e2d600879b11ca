"""The transitions of a shadow: it comes, is watched, and goes, whatever happens; users see blue all the while.

Part of `transitions.TRANSITIONS`, in the words of `rules`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from airflow_dlaws.rollout.rules import (
    BROKEN,
    GONE,
    OTHERS_MOVE,
    ROLLBACK_STUCK,
    TAKEN_OVER,
    UPDATE_UNDER_WAY,
    Action,
    Rule,
    Situation,
    When,
    rule_of,
)
from airflow_dlaws.rollout.state import Cause, Step

SHADOW_COMES = (rule_of(When.ALWAYS, Action.WAIT, Step.SHADOWING, "endpoint {endpoint} is given its shadow"),)
_SHADOW_IS_THERE = "the shadow {shadow_config} is in service on {endpoint} and is taken away; {why}"
#: No way on must leave a shadow: where the time is up in the middle of a movement, it is removed after that.
_SHADOW_LATE = rule_of(
    When.TIME_IS_UP, Action.WAIT, Step.RESTORING, "this task's time is up: the shadow is removed", Cause.TIMEOUT
)
_SHADOW_BUSY = (_SHADOW_LATE, rule_of(When.ALWAYS, Action.WAIT, Step.SHADOWING, OTHERS_MOVE))
_SHIFT = rule_of(When.ALWAYS, Action.UPDATE, Step.SHIFTING, "endpoint {endpoint} moves from {live} to {requested}")
_ASKED_WITHOUT_VERDICT = rule_of(
    When.ALWAYS,
    Action.FINISH,
    Step.FAILED,
    "endpoint {endpoint} is on its way to {requested}, or there, before its shadow was judged: not by this rollout. "
    "Check who deployed it",
)
_SHADOW_WATCHED = (
    rule_of(When.ABORT, Action.RESTORE, Step.RESTORING, "{wish}", Cause.ABORTED),
    rule_of(When.SHADOW_WORSE, Action.RESTORE, Step.RESTORING, "{shadow}", Cause.SHADOW),
    rule_of(When.TIME_IS_UP, Action.RESTORE, Step.RESTORING, "this task's time is up", Cause.TIMEOUT),
    rule_of(
        When.BLIND_TOO_LONG, Action.RESTORE, Step.RESTORING, "the shadow cannot be seen: {blind}", Cause.UNMEASURED
    ),
    rule_of(When.BLIND, Action.WAIT, Step.SHADOWING, "the shadow cannot be seen just now: {blind}"),
    rule_of(When.SHADOW_PASSES, Action.UNSHADOW, Step.REMOVING_SHADOW, "the shadow has passed: {shadow}"),
    rule_of(When.SHADOW_UNCLEAR, Action.RESTORE, Step.RESTORING, "{shadow}", Cause.SHADOW_UNCLEAR),
    rule_of(When.ALWAYS, Action.WAIT, Step.SHADOWING, "{requested} is a shadow of {previous}: {shadow}"),
)
SHADOWING: Mapping[Situation, tuple[Rule, ...]] = {
    **BROKEN,
    Situation.MISSING: GONE,
    Situation.CREATING: TAKEN_OVER,
    Situation.ON_OTHER: TAKEN_OVER,
    Situation.ON_REQUESTED: (
        *(dataclasses.replace(rule, when=When.SHADOW_PASSED) for rule in UPDATE_UNDER_WAY),
        _ASKED_WITHOUT_VERDICT,
    ),
    Situation.MOVING: (
        *(dataclasses.replace(rule, when=When.SHADOW_PASSED) for rule in UPDATE_UNDER_WAY),
        _ASKED_WITHOUT_VERDICT,
    ),
    Situation.ON_PREVIOUS: (
        rule_of(When.ABORT, Action.FINISH, Step.ROLLED_BACK, "{wish}", Cause.ABORTED),
        # We had asked for the removal and died before we could remember it.
        dataclasses.replace(_SHIFT, when=When.SHADOW_PASSED),
        rule_of(
            When.ALWAYS,
            Action.FINISH,
            Step.ROLLED_BACK,
            "endpoint {endpoint} is without its shadow{failure_in_brackets}",
            Cause.BY_AWS,
        ),
    ),
    Situation.ON_SHADOW: _SHADOW_WATCHED,
    Situation.SHADOW_MOVING: (
        rule_of(When.ABORT, Action.TRIP, Step.ROLLING_BACK, "{wish}", Cause.ABORTED),
        rule_of(When.TIME_IS_UP, Action.TRIP, Step.ROLLING_BACK, "this task's time is up", Cause.TIMEOUT),
        *SHADOW_COMES,
    ),
    Situation.BUSY: _SHADOW_BUSY,
}
REMOVING_SHADOW: Mapping[Situation, tuple[Rule, ...]] = {
    **BROKEN,
    Situation.MISSING: GONE,
    Situation.CREATING: TAKEN_OVER,
    Situation.ON_OTHER: TAKEN_OVER,
    Situation.ON_REQUESTED: UPDATE_UNDER_WAY,
    Situation.MOVING: UPDATE_UNDER_WAY,
    Situation.ON_PREVIOUS: (
        rule_of(When.ABORT, Action.FINISH, Step.ROLLED_BACK, "{wish}", Cause.ABORTED),
        rule_of(
            When.TIME_IS_UP,
            Action.FINISH,
            Step.ROLLED_BACK,
            "this task's time is up, and the shadow is gone",
            Cause.TIMEOUT,
        ),
        _SHIFT,
    ),
    Situation.ON_SHADOW: (
        rule_of(When.ABORT, Action.RESTORE, Step.RESTORING, "{wish}", Cause.ABORTED),
        rule_of(When.TIME_IS_UP, Action.RESTORE, Step.RESTORING, "this task's time is up", Cause.TIMEOUT),
        rule_of(When.ALWAYS, Action.UNSHADOW, Step.REMOVING_SHADOW, "asking for {previous} again"),
    ),
    Situation.SHADOW_MOVING: (
        _SHADOW_LATE,
        rule_of(When.ALWAYS, Action.WAIT, Step.REMOVING_SHADOW, "waiting for {endpoint}"),
    ),
    Situation.BUSY: (
        _SHADOW_LATE,
        rule_of(When.ALWAYS, Action.WAIT, Step.REMOVING_SHADOW, "the shadow is removed from {endpoint}"),
    ),
}
#: A shadow where none belongs any more is taken away.
AWAY_WITH_SHADOW = {
    Situation.ON_SHADOW: (
        rule_of(When.ROLLBACK_TIME_IS_UP, Action.FINISH, Step.FAILED, ROLLBACK_STUCK),
        rule_of(When.ALWAYS, Action.RESTORE, Step.RESTORING, _SHADOW_IS_THERE, Cause.ERROR),
    ),
    Situation.SHADOW_MOVING: (
        rule_of(When.ROLLBACK_TIME_IS_UP, Action.FINISH, Step.FAILED, ROLLBACK_STUCK),
        rule_of(When.ALWAYS, Action.WAIT, Step.RESTORING, "the shadow will be removed; {why}", Cause.ERROR),
    ),
}
