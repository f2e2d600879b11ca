"""What the table of transitions is written in: actions, situations, conditions, rules, and the rules many cells share.

`{words}` in a reason are filled in by `machine.decide`.
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
    #: Ask for the configuration with green as a shadow.
    SHADOW = "shadow"
    #: Ask for the configuration without it.
    UNSHADOW = "unshadow"
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
    #: InService with green as a shadow.
    ON_SHADOW = "on_shadow"
    #: Updating, and the configuration with the shadow is pending.
    SHADOW_MOVING = "shadow_moving"
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
    #: The plan begins with a shadow.
    SHADOW_FIRST = "shadow_first"
    #: The shadow is worse.
    SHADOW_WORSE = "shadow_worse"
    #: The shadow has had its time, or a person does not want to wait for it, and it may have users.
    SHADOW_PASSES = "shadow_passes"
    #: The shadow has had its time, late captures included, and there is no verdict.
    SHADOW_UNCLEAR = "shadow_unclear"
    #: The shadow had passed before this look, or was never asked for.
    SHADOW_PASSED = "shadow_passed"
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


def rule_of(when: When, action: Action, then: Step, reason: str, cause: Cause = Cause.NONE) -> Rule:
    return Rule(when=when, action=action, then=then, reason=reason, cause=cause)


def ends(reason: str) -> tuple[Rule, ...]:
    return (rule_of(When.ALWAYS, Action.FINISH, Step.FAILED, reason),)


def waits(step: Step, reason: str, late: When, too_late: str) -> tuple[Rule, ...]:
    return (rule_of(late, Action.FINISH, Step.FAILED, too_late), rule_of(When.ALWAYS, Action.WAIT, step, reason))


BROKEN: Mapping[Situation, tuple[Rule, ...]] = {
    Situation.BROKEN_FAILED: ends(
        "endpoint {endpoint} is Failed ({failure}): AWS lets it only be deleted; find the cause in its log group "
        "/aws/sagemaker/Endpoints/{endpoint}, delete it (aws sagemaker delete-endpoint --endpoint-name {endpoint}), "
        "and clear this task"
    ),
    Situation.BROKEN_OUT_OF_SERVICE: ends(
        "endpoint {endpoint} is OutOfService ({failure}) and answers no requests: bring back the last good "
        "configuration (aws sagemaker update-endpoint --endpoint-name {endpoint} --endpoint-config-name {previous}) "
        "or call AWS support"
    ),
    Situation.BROKEN_ROLLBACK_FAILED: ends(
        "endpoint {endpoint} is UpdateRollbackFailed ({failure}): both configurations may be serving; ask for the "
        "old one (aws sagemaker update-endpoint --endpoint-name {endpoint} --endpoint-config-name {previous}) and "
        "check that it becomes InService"
    ),
}
GONE = ends("endpoint {endpoint} was deleted during the rollout: clear this task to create it anew")
TAKEN_OVER = ends(
    "endpoint {endpoint} is InService on {live}, which is neither the requested {requested} nor the previous "
    "{previous}: somebody else deployed meanwhile; clear this task to roll out on top of that"
)
ROLLBACK_STUCK = (
    "endpoint {endpoint} did not get back to {previous} in time (it is {status} on {live}); the reason to go back was: "
    "{why}. Check it, and bring the old configuration back: aws sagemaker update-endpoint --endpoint-name {endpoint} "
    "--endpoint-config-name {previous}"
)
OTHERS_MOVE = "endpoint {endpoint} is {status}, not by this rollout"
#: What somebody who died right after the update was asked for finds.
UPDATE_UNDER_WAY = (rule_of(When.ALWAYS, Action.WAIT, Step.SHIFTING, "the update to {requested} is under way"),)
