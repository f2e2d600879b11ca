"""Every transition of a rollout, in one table: from where it is and what the endpoint shows, to what is done next.

The statuses are those of DescribeEndpoint's API reference. AWS reports a rollback only by being InService on the old
configuration again, with no reason given. `{words}` in a reason are filled in by `machine.decide`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from airflow_dlaws.rollout.state import Cause, Step


class Action(enum.StrEnum):
    """What to do now."""

    WAIT = "wait"
    CREATE = "create"
    UPDATE = "update"
    #: Create the throw-away endpoint, or ask it.
    REHEARSE = "rehearse"
    #: Put our verdict alarm on, so that AWS rolls back.
    TRIP = "trip"
    #: Ask for the previous configuration ourselves.
    RESTORE = "restore"
    FINISH = "finish"


class Situation(enum.StrEnum):
    """What the endpoint shows, seen from this rollout."""

    MISSING = "missing"
    CREATING = "creating"
    ON_REQUESTED = "on_requested"
    ON_PREVIOUS = "on_previous"
    ON_OTHER = "on_other"
    #: Updating, and ours is pending.
    MOVING = "moving"
    #: In some movement that is not towards the requested configuration.
    BUSY = "busy"
    BROKEN_FAILED = "failed"
    BROKEN_OUT_OF_SERVICE = "out_of_service"
    BROKEN_ROLLBACK_FAILED = "rollback_failed"


class When(enum.StrEnum):
    """A condition of a rule; a rule's first true one is taken."""

    ALWAYS = "always"
    HARM = "harm"
    #: A person asked to go back.
    ABORT = "abort"
    #: No verdict, the bake is as good as over, and the plan does not promote untested models.
    NO_VERDICT_AT_GATE = "no_verdict_at_gate"
    #: No verdict now, and the plan does not promote untested models.
    NO_VERDICT = "no_verdict"
    #: The metrics could not be read just now.
    BLIND = "blind"
    #: The metrics could not be read for too long.
    BLIND_TOO_LONG = "blind_too_long"
    #: The throw-away endpoint is to be made or asked.
    REHEARSAL_DUE = "rehearsal_due"
    #: It is coming up.
    REHEARSAL_MOVES = "rehearsal_moves"
    REHEARSAL_FAILED = "rehearsal_failed"
    TIME_IS_UP = "time_is_up"
    ROLLBACK_TIME_IS_UP = "rollback_time_is_up"
    FIRST_DEPLOYMENT = "first_deployment"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """If `when` holds: do `action` and be in `then`, for `cause` (where one begins here), because of `reason`."""

    when: When
    action: Action
    then: Step
    reason: str
    cause: Cause = Cause.NONE


def _rule(when: When, action: Action, then: Step, reason: str, cause: Cause = Cause.NONE) -> Rule:
    return Rule(when=when, action=action, then=then, reason=reason, cause=cause)


def _ends(reason: str) -> tuple[Rule, ...]:
    return (_rule(When.ALWAYS, Action.FINISH, Step.FAILED, reason),)


def _waits(step: Step, reason: str, late: When, too_late: str) -> tuple[Rule, ...]:
    return (_rule(late, Action.FINISH, Step.FAILED, too_late), _rule(When.ALWAYS, Action.WAIT, step, reason))


_BROKEN: Mapping[Situation, tuple[Rule, ...]] = {
    Situation.BROKEN_FAILED: _ends(
        "endpoint {endpoint} is Failed ({failure}): AWS lets it only be deleted; find the cause in its log group "
        "/aws/sagemaker/Endpoints/{endpoint}, delete it (aws sagemaker delete-endpoint --endpoint-name {endpoint}), "
        "and clear this task"
    ),
    Situation.BROKEN_OUT_OF_SERVICE: _ends(
        "endpoint {endpoint} is OutOfService ({failure}) and answers no requests: bring back the last good "
        "configuration (aws sagemaker update-endpoint --endpoint-name {endpoint} --endpoint-config-name {previous}) "
        "or call AWS support"
    ),
    Situation.BROKEN_ROLLBACK_FAILED: _ends(
        "endpoint {endpoint} is UpdateRollbackFailed ({failure}): both configurations may be serving; ask for the "
        "old one (aws sagemaker update-endpoint --endpoint-name {endpoint} --endpoint-config-name {previous}) and "
        "check that it becomes InService"
    ),
}
_GONE = _ends("endpoint {endpoint} was deleted during the rollout: clear this task to create it anew")
_TAKEN_OVER = _ends(
    "endpoint {endpoint} is InService on {live}, which is neither the requested {requested} nor the previous "
    "{previous}: somebody else deployed meanwhile; clear this task to roll out on top of that"
)
_ROLLBACK_STUCK = (
    "endpoint {endpoint} did not get back to {previous} in time (it is {status} on {live}); the reason to go back was: "
    "{why}. Check it, and bring the old configuration back: aws sagemaker update-endpoint --endpoint-name {endpoint} "
    "--endpoint-config-name {previous}"
)
_OTHERS_MOVE = "endpoint {endpoint} is {status}, not by this rollout"

#: AWS is done and everything is read back: what remains is our own verdict.
_DONE = (
    _rule(When.FIRST_DEPLOYMENT, Action.FINISH, Step.PROMOTED, "first deployment: {live} is InService"),
    _rule(When.ABORT, Action.RESTORE, Step.RESTORING, "{wish}", Cause.ABORTED),
    _rule(When.HARM, Action.RESTORE, Step.RESTORING, "{evidence}", Cause.HARM),
    _rule(When.BLIND_TOO_LONG, Action.RESTORE, Step.RESTORING, "metrics cannot be read: {blind}", Cause.UNMEASURED),
    _rule(When.BLIND, Action.WAIT, Step.SHIFTING, "metrics cannot be read just now: {blind}"),
    _rule(When.NO_VERDICT, Action.RESTORE, Step.RESTORING, "{evidence}", Cause.NO_TRAFFIC),
    _rule(When.ALWAYS, Action.FINISH, Step.PROMOTED, "{live} is InService with nothing pending; {evidence}"),
)
_WENT_BACK_BY_ITSELF = (
    # The command line puts the alarm on itself: AWS may be back before this task has looked once.
    _rule(When.ABORT, Action.FINISH, Step.ROLLED_BACK, "{wish}; AWS went back to {previous}", Cause.ABORTED),
    _rule(
        When.ALWAYS,
        Action.FINISH,
        Step.ROLLED_BACK,
        "AWS rolled back to {previous}{failure_in_brackets}; {alarms}; {evidence}",
        Cause.BY_AWS,
    ),
)
_WENT_BACK = (_rule(When.ALWAYS, Action.FINISH, Step.ROLLED_BACK, "AWS went back to {previous}: {why}"),)

_NOT_BEGUN = _rule(
    When.ABORT, Action.FINISH, Step.FAILED, "{wish}; the endpoint was not touched by this rollout", Cause.ABORTED
)
#: AWS deletes no endpoint that is being created, so even an abort waits for that to be over.
_REHEARSED_FIRST = (
    _rule(When.TIME_IS_UP, Action.FINISH, Step.FAILED, "this task's time is up before the update began: raise timeout"),
    _rule(When.REHEARSAL_MOVES, Action.WAIT, Step.STARTING, "the throw-away endpoint of the rehearsal is coming up"),
    _NOT_BEGUN,
    _rule(
        When.REHEARSAL_FAILED,
        Action.FINISH,
        Step.FAILED,
        "the rehearsal failed, endpoint {endpoint} was not touched: {rehearsal}",
        Cause.REHEARSAL,
    ),
    _rule(When.REHEARSAL_DUE, Action.REHEARSE, Step.STARTING, "rehearsal of {requested} on an endpoint of its own"),
)
_BEGINS = (
    *_REHEARSED_FIRST,
    _rule(When.ALWAYS, Action.UPDATE, Step.SHIFTING, "endpoint {endpoint} moves from {live} to {requested}"),
)

#: Every transition there is. The first rule of a cell whose condition holds is taken; each cell ends with ALWAYS.
TRANSITIONS: Mapping[Step, Mapping[Situation, tuple[Rule, ...]]] = {
    Step.STARTING: {
        **_BROKEN,
        Situation.MISSING: (
            *_REHEARSED_FIRST,
            _rule(When.ALWAYS, Action.CREATE, Step.CREATING, "there is no endpoint {endpoint} yet: it is created"),
        ),
        Situation.CREATING: (_rule(When.ALWAYS, Action.WAIT, Step.CREATING, "endpoint {endpoint} is being created"),),
        Situation.ON_REQUESTED: _DONE,
        Situation.ON_PREVIOUS: _BEGINS,
        Situation.ON_OTHER: _BEGINS,
        Situation.MOVING: (_rule(When.ALWAYS, Action.WAIT, Step.SHIFTING, "the update to {requested} is under way"),),
        Situation.BUSY: (
            _NOT_BEGUN,
            *_waits(
                Step.STARTING,
                _OTHERS_MOVE + ": waiting for it",
                When.TIME_IS_UP,
                _OTHERS_MOVE
                + ", and this task's time is up: nothing was changed; raise timeout or clear the task later",
            ),
        ),
    },
    Step.CREATING: {
        **_BROKEN,
        Situation.MISSING: _GONE,
        Situation.CREATING: _waits(
            Step.CREATING,
            "endpoint {endpoint} is being created",
            When.TIME_IS_UP,
            "endpoint {endpoint} is still {status} and this task's time is up: a container that never answers "
            "GET /ping stays so for about 24 minutes; see its log group "
            "/aws/sagemaker/Endpoints/{endpoint}, or raise timeout",
        ),
        Situation.ON_REQUESTED: _DONE,
        Situation.ON_PREVIOUS: _TAKEN_OVER,
        Situation.ON_OTHER: _TAKEN_OVER,
        Situation.MOVING: _waits(Step.CREATING, _OTHERS_MOVE, When.TIME_IS_UP, _OTHERS_MOVE),
        Situation.BUSY: _waits(Step.CREATING, _OTHERS_MOVE, When.TIME_IS_UP, _OTHERS_MOVE),
    },
    Step.SHIFTING: {
        **_BROKEN,
        Situation.MISSING: _GONE,
        Situation.CREATING: _TAKEN_OVER,
        Situation.ON_REQUESTED: _DONE,
        Situation.ON_PREVIOUS: _WENT_BACK_BY_ITSELF,
        Situation.ON_OTHER: _TAKEN_OVER,
        Situation.MOVING: (
            _rule(When.ABORT, Action.TRIP, Step.ROLLING_BACK, "{wish}", Cause.ABORTED),
            _rule(When.HARM, Action.TRIP, Step.ROLLING_BACK, "{evidence}", Cause.HARM),
            _rule(When.TIME_IS_UP, Action.TRIP, Step.ROLLING_BACK, "this task's time is up", Cause.TIMEOUT),
            _rule(
                When.BLIND_TOO_LONG, Action.TRIP, Step.ROLLING_BACK, "metrics cannot be read: {blind}", Cause.UNMEASURED
            ),
            _rule(When.NO_VERDICT_AT_GATE, Action.TRIP, Step.ROLLING_BACK, "{evidence}", Cause.NO_TRAFFIC),
            _rule(When.ALWAYS, Action.WAIT, Step.SHIFTING, "{message}; {evidence}"),
        ),
        Situation.BUSY: _waits(
            Step.SHIFTING,
            _OTHERS_MOVE,
            When.TIME_IS_UP,
            _OTHERS_MOVE + ", and this task's time is up: check which configuration it ends on",
        ),
    },
    Step.ROLLING_BACK: {
        **_BROKEN,
        Situation.MISSING: _GONE,
        Situation.CREATING: _TAKEN_OVER,
        Situation.ON_REQUESTED: (
            _rule(When.ALWAYS, Action.RESTORE, Step.RESTORING, "AWS finished the update all the same; {why}"),
        ),
        Situation.ON_PREVIOUS: _WENT_BACK,
        Situation.ON_OTHER: _TAKEN_OVER,
        Situation.MOVING: (
            _rule(When.ROLLBACK_TIME_IS_UP, Action.FINISH, Step.FAILED, _ROLLBACK_STUCK),
            _rule(When.ALWAYS, Action.TRIP, Step.ROLLING_BACK, "waiting for AWS to roll back; {why}"),
        ),
        Situation.BUSY: _waits(
            Step.ROLLING_BACK, "waiting for AWS to roll back; {why}", When.ROLLBACK_TIME_IS_UP, _ROLLBACK_STUCK
        ),
    },
    Step.RESTORING: {
        **_BROKEN,
        Situation.MISSING: _GONE,
        Situation.CREATING: _TAKEN_OVER,
        Situation.ON_REQUESTED: (
            _rule(When.ROLLBACK_TIME_IS_UP, Action.FINISH, Step.FAILED, _ROLLBACK_STUCK),
            _rule(When.ALWAYS, Action.RESTORE, Step.RESTORING, "asking for {previous} again; {why}"),
        ),
        Situation.ON_PREVIOUS: _WENT_BACK,
        Situation.ON_OTHER: _TAKEN_OVER,
        Situation.MOVING: _waits(
            Step.RESTORING, "waiting for {endpoint}; {why}", When.ROLLBACK_TIME_IS_UP, _ROLLBACK_STUCK
        ),
        Situation.BUSY: _waits(
            Step.RESTORING, "{previous} is coming back; {why}", When.ROLLBACK_TIME_IS_UP, _ROLLBACK_STUCK
        ),
    },
}
