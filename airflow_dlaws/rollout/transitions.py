"""Every transition of a rollout, in one table: from where it is and what the endpoint shows, to what is done next.

The statuses are those of DescribeEndpoint's API reference. AWS reports a rollback only by being InService on the old
configuration again, with no reason given. `{words}` in a reason are filled in by `machine.decide`.
"""

from __future__ import annotations

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
    waits,
)
from airflow_dlaws.rollout.shadow_rules import AWAY_WITH_SHADOW, REMOVING_SHADOW, SHADOW_COMES, SHADOWING
from airflow_dlaws.rollout.state import Cause, Step

#: AWS is done and everything is read back: what remains is our own verdict.
_DONE = (
    rule_of(When.FIRST_DEPLOYMENT, Action.FINISH, Step.PROMOTED, "first deployment: {live} is InService"),
    rule_of(When.ABORT, Action.RESTORE, Step.RESTORING, "{wish}", Cause.ABORTED),
    rule_of(When.HARM, Action.RESTORE, Step.RESTORING, "{evidence}", Cause.HARM),
    rule_of(When.BLIND_TOO_LONG, Action.RESTORE, Step.RESTORING, "metrics cannot be read: {blind}", Cause.UNMEASURED),
    rule_of(When.BLIND, Action.WAIT, Step.SHIFTING, "metrics cannot be read just now: {blind}"),
    rule_of(When.NO_VERDICT, Action.RESTORE, Step.RESTORING, "{evidence}", Cause.NO_TRAFFIC),
    rule_of(When.ALWAYS, Action.FINISH, Step.PROMOTED, "{live} is InService with nothing pending; {evidence}"),
)
_WENT_BACK_BY_ITSELF = (
    # The command line puts the alarm on itself: AWS may be back before this task has looked once.
    rule_of(When.ABORT, Action.FINISH, Step.ROLLED_BACK, "{wish}; AWS went back to {previous}", Cause.ABORTED),
    rule_of(
        When.ALWAYS,
        Action.FINISH,
        Step.ROLLED_BACK,
        "AWS rolled back to {previous}{failure_in_brackets}; {alarms}; {evidence}",
        Cause.BY_AWS,
    ),
)
_WENT_BACK = (rule_of(When.ALWAYS, Action.FINISH, Step.ROLLED_BACK, "{previous} is in service again: {why}"),)

_NOT_BEGUN = rule_of(
    When.ABORT, Action.FINISH, Step.FAILED, "{wish}; the endpoint was not touched by this rollout", Cause.ABORTED
)
#: AWS deletes no endpoint that is being created, so even an abort waits for that to be over.
_REHEARSED_FIRST = (
    rule_of(
        When.TIME_IS_UP, Action.FINISH, Step.FAILED, "this task's time is up before the update began: raise timeout"
    ),
    rule_of(When.REHEARSAL_MOVES, Action.WAIT, Step.STARTING, "the throw-away endpoint of the rehearsal is coming up"),
    _NOT_BEGUN,
    rule_of(
        When.REHEARSAL_FAILED,
        Action.FINISH,
        Step.FAILED,
        "the rehearsal failed, endpoint {endpoint} was not touched: {rehearsal}",
        Cause.REHEARSAL,
    ),
    rule_of(When.REHEARSAL_DUE, Action.REHEARSE, Step.STARTING, "rehearsal of {requested} on an endpoint of its own"),
)
_BEGINS = (
    *_REHEARSED_FIRST,
    rule_of(When.SHADOW_FIRST, Action.SHADOW, Step.SHADOWING, "{requested} becomes a shadow of {live} on {endpoint}"),
    rule_of(When.ALWAYS, Action.UPDATE, Step.SHIFTING, "endpoint {endpoint} moves from {live} to {requested}"),
)

#: Every transition there is. The first rule of a cell whose condition holds is taken; each cell ends with ALWAYS.
TRANSITIONS: Mapping[Step, Mapping[Situation, tuple[Rule, ...]]] = {
    Step.STARTING: {
        **BROKEN,
        Situation.MISSING: (
            *_REHEARSED_FIRST,
            rule_of(When.ALWAYS, Action.CREATE, Step.CREATING, "there is no endpoint {endpoint} yet: it is created"),
        ),
        Situation.CREATING: (rule_of(When.ALWAYS, Action.WAIT, Step.CREATING, "endpoint {endpoint} is being created"),),
        Situation.ON_REQUESTED: _DONE,
        Situation.ON_PREVIOUS: _BEGINS,
        Situation.ON_OTHER: _BEGINS,
        Situation.MOVING: UPDATE_UNDER_WAY,
        # We had asked for it and died before we could remember it.
        Situation.ON_SHADOW: SHADOW_COMES,
        Situation.SHADOW_MOVING: SHADOW_COMES,
        Situation.BUSY: (
            _NOT_BEGUN,
            *waits(
                Step.STARTING,
                OTHERS_MOVE + ": waiting for it",
                When.TIME_IS_UP,
                OTHERS_MOVE
                + ", and this task's time is up: nothing was changed; raise timeout or clear the task later",
            ),
        ),
    },
    Step.SHADOWING: SHADOWING,
    Step.REMOVING_SHADOW: REMOVING_SHADOW,
    Step.CREATING: {
        **BROKEN,
        Situation.ON_SHADOW: TAKEN_OVER,
        Situation.SHADOW_MOVING: TAKEN_OVER,
        Situation.MISSING: GONE,
        Situation.CREATING: waits(
            Step.CREATING,
            "endpoint {endpoint} is being created",
            When.TIME_IS_UP,
            "endpoint {endpoint} is still {status} and this task's time is up: a container that never answers "
            "GET /ping stays so for about 24 minutes; see its log group "
            "/aws/sagemaker/Endpoints/{endpoint}, or raise timeout",
        ),
        Situation.ON_REQUESTED: _DONE,
        Situation.ON_PREVIOUS: TAKEN_OVER,
        Situation.ON_OTHER: TAKEN_OVER,
        Situation.MOVING: waits(Step.CREATING, OTHERS_MOVE, When.TIME_IS_UP, OTHERS_MOVE),
        Situation.BUSY: waits(Step.CREATING, OTHERS_MOVE, When.TIME_IS_UP, OTHERS_MOVE),
    },
    Step.SHIFTING: {
        **BROKEN,
        **AWAY_WITH_SHADOW,
        Situation.MISSING: GONE,
        Situation.CREATING: TAKEN_OVER,
        Situation.ON_REQUESTED: _DONE,
        Situation.ON_PREVIOUS: _WENT_BACK_BY_ITSELF,
        Situation.ON_OTHER: TAKEN_OVER,
        Situation.MOVING: (
            rule_of(When.ABORT, Action.TRIP, Step.ROLLING_BACK, "{wish}", Cause.ABORTED),
            rule_of(When.HARM, Action.TRIP, Step.ROLLING_BACK, "{evidence}", Cause.HARM),
            rule_of(When.TIME_IS_UP, Action.TRIP, Step.ROLLING_BACK, "this task's time is up", Cause.TIMEOUT),
            rule_of(
                When.BLIND_TOO_LONG, Action.TRIP, Step.ROLLING_BACK, "metrics cannot be read: {blind}", Cause.UNMEASURED
            ),
            rule_of(When.NO_VERDICT_AT_GATE, Action.TRIP, Step.ROLLING_BACK, "{evidence}", Cause.NO_TRAFFIC),
            rule_of(When.ALWAYS, Action.WAIT, Step.SHIFTING, "{message}; {evidence}"),
        ),
        Situation.BUSY: waits(
            Step.SHIFTING,
            OTHERS_MOVE,
            When.TIME_IS_UP,
            OTHERS_MOVE + ", and this task's time is up: check which configuration it ends on",
        ),
    },
    Step.ROLLING_BACK: {
        **BROKEN,
        **AWAY_WITH_SHADOW,
        Situation.SHADOW_MOVING: (
            rule_of(When.ROLLBACK_TIME_IS_UP, Action.FINISH, Step.FAILED, ROLLBACK_STUCK),
            rule_of(When.ALWAYS, Action.TRIP, Step.ROLLING_BACK, "waiting for AWS to take the shadow back; {why}"),
        ),
        Situation.MISSING: GONE,
        Situation.CREATING: TAKEN_OVER,
        Situation.ON_REQUESTED: (
            rule_of(When.ALWAYS, Action.RESTORE, Step.RESTORING, "AWS finished the update all the same; {why}"),
        ),
        Situation.ON_PREVIOUS: _WENT_BACK,
        Situation.ON_OTHER: TAKEN_OVER,
        Situation.MOVING: (
            rule_of(When.ROLLBACK_TIME_IS_UP, Action.FINISH, Step.FAILED, ROLLBACK_STUCK),
            rule_of(When.ALWAYS, Action.TRIP, Step.ROLLING_BACK, "waiting for AWS to roll back; {why}"),
        ),
        Situation.BUSY: waits(
            Step.ROLLING_BACK, "waiting for AWS to roll back; {why}", When.ROLLBACK_TIME_IS_UP, ROLLBACK_STUCK
        ),
    },
    Step.RESTORING: {
        **BROKEN,
        **AWAY_WITH_SHADOW,
        Situation.MISSING: GONE,
        Situation.CREATING: TAKEN_OVER,
        Situation.ON_REQUESTED: (
            rule_of(When.ROLLBACK_TIME_IS_UP, Action.FINISH, Step.FAILED, ROLLBACK_STUCK),
            rule_of(When.ALWAYS, Action.RESTORE, Step.RESTORING, "asking for {previous} again; {why}"),
        ),
        Situation.ON_PREVIOUS: _WENT_BACK,
        Situation.ON_OTHER: TAKEN_OVER,
        Situation.MOVING: waits(
            Step.RESTORING, "waiting for {endpoint}; {why}", When.ROLLBACK_TIME_IS_UP, ROLLBACK_STUCK
        ),
        Situation.BUSY: waits(
            Step.RESTORING, "{previous} is coming back; {why}", When.ROLLBACK_TIME_IS_UP, ROLLBACK_STUCK
        ),
    },
}
