"""The state machine of a rollout: pure, and read from one table (`transitions`).

`decide` never calls a rollout promoted unless the endpoint is InService on the requested configuration with nothing
pending, and every rule that waits has a deadline beside it or leads to one, so it always ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from airflow_dlaws.rollout.analysis import Verdict
from airflow_dlaws.rollout.gate import at_gate, last_wait_since
from airflow_dlaws.rollout.plan import OnNoTraffic, RolloutPlan
from airflow_dlaws.rollout.rehearsal import RehearsalVerdict
from airflow_dlaws.rollout.rules import Action, Rule, Situation, When
from airflow_dlaws.rollout.shadow import ShadowVerdict
from airflow_dlaws.rollout.state import (
    Cause,
    EndpointStatus,
    EndpointView,
    Observation,
    RolloutState,
    Step,
    WishKind,
    is_final,
)
from airflow_dlaws.rollout.transitions import TRANSITIONS


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to do now, the state after that is done, why, and when to look again (epoch seconds)."""

    action: Action
    state: RolloutState
    reason: str
    look_again_at: float


#: What a look adds to what is known; the step changes when what it calls for is done.
_NOTICED = (
    "evidence",
    "alarms",
    "traffic_since",
    "last_wait_since",
    "wish",
    "shadow",
    "shadow_since",
    "shadow_passed_at",
)
#: A rollback for one of these is a verdict on the evidence, not on the model.
_INCONCLUSIVE_CAUSES = frozenset({Cause.NO_TRAFFIC, Cause.UNMEASURED, Cause.SHADOW_UNCLEAR})


def decide(plan: RolloutPlan, state: RolloutState, observation: Observation, now: float) -> Decision:
    """Return what to do next. `now` is in epoch seconds; a final state stays as it is."""
    if is_final(state.step):
        state = _still_true(state, observation)
        return Decision(action=Action.FINISH, state=state, reason=state.reason, look_again_at=now)
    state = _noticed(plan, state, observation, now)
    situation = situation_of(state, observation.endpoint)
    rules = TRANSITIONS[state.step][situation]
    rule = next(rule for rule in rules if _holds(rule.when, plan, state, observation, now))
    reason = rule.reason.format_map(_words(state, observation))
    return Decision(
        action=rule.action,
        state=_after(rule, plan, state, reason, now),
        reason=reason,
        look_again_at=now if rule.action is Action.FINISH else now + plan.look_seconds,
    )


def situation_of(state: RolloutState, endpoint: EndpointView | None) -> Situation:
    """Return what the endpoint shows, seen from this rollout."""
    if endpoint is None:
        return Situation.MISSING
    if endpoint.status in BROKEN_STATUSES:
        return BROKEN_STATUSES[endpoint.status]
    requested = state.requested_config
    if endpoint.status is EndpointStatus.CREATING:
        return Situation.CREATING if endpoint.config_name == requested else Situation.BUSY
    if endpoint.status is EndpointStatus.IN_SERVICE and not endpoint.pending_config_name:
        if endpoint.config_name == requested:
            return Situation.ON_REQUESTED
        if endpoint.config_name == state.shadow_config:
            return Situation.ON_SHADOW
        return Situation.ON_PREVIOUS if endpoint.config_name == state.previous_config else Situation.ON_OTHER
    if _is_shadow_moving(state, endpoint):
        return Situation.SHADOW_MOVING
    ours = endpoint.pending_config_name == requested or (
        # A summary may be missing for a moment; a movement right after we asked for one is ours.
        not endpoint.pending_config_name and state.step in (Step.SHIFTING, Step.ROLLING_BACK)
    )
    moving = endpoint.status in (EndpointStatus.UPDATING, EndpointStatus.IN_SERVICE)
    return Situation.MOVING if moving and ours else Situation.BUSY


def _is_shadow_moving(state: RolloutState, endpoint: EndpointView) -> bool:
    if endpoint.status not in (EndpointStatus.UPDATING, EndpointStatus.IN_SERVICE) or not state.shadow_config:
        return False
    pending = endpoint.pending_config_name
    # A summary may be missing for a moment.
    unsaid = not pending and state.step is Step.SHADOWING and endpoint.config_name == state.previous_config
    return pending == state.shadow_config or (unsaid and state.shadow_passed_at is None)


BROKEN_STATUSES: Mapping[EndpointStatus, Situation] = {
    EndpointStatus.FAILED: Situation.BROKEN_FAILED,
    EndpointStatus.OUT_OF_SERVICE: Situation.BROKEN_OUT_OF_SERVICE,
    EndpointStatus.UPDATE_ROLLBACK_FAILED: Situation.BROKEN_ROLLBACK_FAILED,
}


def with_noticed(before: RolloutState, after: RolloutState) -> RolloutState:
    """Return `before` with what a look has added to it, whether or not the action that it calls for succeeds."""
    return before.but(**{name: getattr(after, name) for name in _NOTICED})


def refused(state: RolloutState, decision: Decision, error: str) -> RolloutState:
    """Return the state where AWS refuses for good what was decided: the rollout is over.

    :param state: before the decision.
    """
    reason, endpoint = error, state.endpoint_name
    if decision.action in (Action.RESTORE, Action.UNSHADOW):
        reason = (
            f"endpoint {endpoint} should go back to {state.previous_config} ({decision.reason}), and AWS refuses: "
            f"{error}. Bring a good configuration into service by hand"
        )
        if state.shadow_config:
            reason += f"; `dlaws rollout abort {endpoint}`, like the next rollout, takes a shadow away"
    return state.but(step=Step.FAILED, reason=reason)


def _still_true(state: RolloutState, observation: Observation) -> RolloutState:
    """Return a final state as it is, except a promotion that the endpoint does not show any more."""
    if state.step is not Step.PROMOTED or situation_of(state, observation.endpoint) is Situation.ON_REQUESTED:
        return state
    words = _words(state, observation)
    reason = (
        "{requested} was promoted, but endpoint {endpoint} is {status} on {live} now: clear this task to roll out again"
    )
    return state.but(step=Step.FAILED, reason=reason.format_map(words))


def _noticed(plan: RolloutPlan, state: RolloutState, observation: Observation, now: float) -> RolloutState:
    """Return the state with what this look adds to our knowledge, before any decision."""
    endpoint = observation.endpoint
    traffic_since = state.traffic_since
    ours = endpoint is not None and endpoint.pending_config_name == state.requested_config
    if traffic_since is None and endpoint and ours and endpoint.on_traffic:
        traffic_since = endpoint.traffic_since or now
    if endpoint and ours:
        state = state.but(last_wait_since=last_wait_since(plan, state, endpoint))
    blind_since = (state.blind_since or now) if observation.blind else None
    seen = state.evidence if observation.blind else observation.evidence
    loud = [alarm for alarm in observation.alarms if alarm.state == "ALARM"]
    on_shadow = situation_of(state, endpoint) is Situation.ON_SHADOW
    return state.but(
        shadow_since=now if on_shadow and state.shadow_since is None else state.shadow_since,
        shadow=observation.shadow or state.shadow,
        # A wish that was heard stays: its file may be gone at the next look.
        wish=observation.wish or state.wish,
        traffic_since=traffic_since,
        blind_since=blind_since,
        evidence=seen,
        # An alarm that was on may be quiet again when the outcome is read: keep what it said.
        alarms=tuple(loud) or state.alarms,
    )


def _after(rule: Rule, plan: RolloutPlan, state: RolloutState, reason: str, now: float) -> RolloutState:
    """Return the state once the rule's action is done."""
    cause = state.cause or rule.cause
    then = rule.then
    if then is Step.ROLLED_BACK and cause in _INCONCLUSIVE_CAUSES:
        then = Step.INCONCLUSIVE
    changes: dict[str, object] = {"step": then, "cause": cause}
    goes_back = then in (Step.ROLLING_BACK, Step.RESTORING)
    if goes_back and state.rollback_deadline is None:
        changes["rollback_deadline"] = now + plan.rollback_seconds
    if rule.action is Action.UNSHADOW and state.shadow_passed_at is None:
        changes["shadow_passed_at"] = now
    if is_final(then) or (goes_back and state.cause is Cause.NONE):
        changes["reason"] = reason
    return state.but(**changes)


def _holds(when: When, plan: RolloutPlan, state: RolloutState, observation: Observation, now: float) -> bool:
    evidence = state.evidence
    lacks_verdict = (
        evidence.verdict is Verdict.INCONCLUSIVE
        and plan.on_no_traffic is OnNoTraffic.ROLLBACK
        and not observation.blind
        and not _wished(state, WishKind.PROMOTE)
    )
    rehearsal = state.rehearsal.verdict if state.rehearsal else RehearsalVerdict.PASSED
    gate_is_near = at_gate(plan, state, observation.endpoint, now)
    blind_too_long = state.blind_since is not None and now >= state.blind_since + plan.blind_seconds
    answers = _shadow_answers(plan, state, now) | {
        When.ALWAYS: True,
        When.HARM: evidence.verdict is Verdict.HARM,
        When.ABORT: _wished(state, WishKind.ABORT),
        When.NO_VERDICT: lacks_verdict,
        When.NO_VERDICT_AT_GATE: lacks_verdict and gate_is_near,
        When.BLIND: bool(observation.blind),
        When.BLIND_TOO_LONG: blind_too_long,
        When.REHEARSAL_DUE: rehearsal is RehearsalVerdict.PENDING,
        When.REHEARSAL_MOVES: rehearsal is RehearsalVerdict.PENDING and observation.rehearsal_moves,
        When.REHEARSAL_FAILED: rehearsal is RehearsalVerdict.FAILED,
        When.TIME_IS_UP: now >= state.deadline,
        When.ROLLBACK_TIME_IS_UP: state.rollback_deadline is not None and now >= state.rollback_deadline,
        When.FIRST_DEPLOYMENT: not state.previous_config,
    }
    return answers[when]


def _shadow_answers(plan: RolloutPlan, state: RolloutState, now: float) -> dict[When, bool]:
    verdict = state.shadow.verdict if state.shadow else ShadowVerdict.INCONCLUSIVE
    ends = (now if state.shadow_since is None else state.shadow_since) + plan.shadow_seconds
    unclear = verdict is ShadowVerdict.INCONCLUSIVE
    waived = _wished(state, WishKind.PROMOTE) or (
        plan.on_no_traffic is OnNoTraffic.PROMOTE and now >= ends + plan.capture_lag_seconds
    )
    return {
        When.SHADOW_FIRST: plan.shadow_seconds > 0 and bool(state.shadow_config) and state.shadow_passed_at is None,
        When.SHADOW_WORSE: verdict is ShadowVerdict.WORSE,
        When.SHADOW_PASSES: (verdict is ShadowVerdict.GOOD and now >= ends) or (unclear and waived),
        When.SHADOW_UNCLEAR: unclear and now >= ends + plan.capture_lag_seconds,
        When.SHADOW_PASSED: state.shadow_passed_at is not None,
    }


def _wished(state: RolloutState, kind: WishKind) -> bool:
    return state.wish is not None and state.wish.kind is kind


def _words(state: RolloutState, observation: Observation) -> dict[str, str]:
    """Return the words that reasons are made of."""
    endpoint = observation.endpoint
    failure = endpoint.failure_reason if endpoint else ""
    loud = "; ".join(f"alarm {alarm.name} was on: {alarm.reason}" for alarm in state.alarms)
    return {
        "endpoint": state.endpoint_name,
        "requested": state.requested_config,
        "previous": state.previous_config or "(none)",
        "live": endpoint.config_name if endpoint else "(nothing)",
        "status": endpoint.status.value if endpoint else "missing",
        "failure": failure or "AWS gives no reason",
        "failure_in_brackets": f" ({failure})" if failure else " and gives no reason",
        "message": (endpoint.message if endpoint else "") or "AWS updates the endpoint",
        "alarms": loud or "none of this rollout's alarms is on",
        "evidence": state.evidence.reason,
        "blind": observation.blind,
        "shadow": state.shadow.reason if state.shadow else "nothing was compared yet",
        "shadow_config": state.shadow_config or "(none)",
        "why": state.reason,
        "rehearsal": state.rehearsal.reason if state.rehearsal else "",
        "wish": state.wish.sentence if state.wish else "nobody asked for anything",
    }
