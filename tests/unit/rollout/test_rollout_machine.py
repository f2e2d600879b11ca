"""The rollout's state machine, situation by situation."""

from __future__ import annotations

import dataclasses

import pytest
from rollout_states import (
    BAD,
    GOOD,
    GOOD_SHADOW,
    MOVING,
    NEW,
    NOTHING,
    OLD,
    ON_SHADOW,
    PLAN,
    PROMOTED,
    ROLLING,
    SHADOW,
    SHADOWED,
    UNCLEAR_SHADOW,
    WENT_BACK,
    WORSE_SHADOW,
    rollout,
    seen,
    view,
)

from airflow_dlaws.rollout.machine import decide, situation_of
from airflow_dlaws.rollout.plan import BATCH_SECONDS, OnNoTraffic
from airflow_dlaws.rollout.rules import Action, Situation, When
from airflow_dlaws.rollout.state import (
    AlarmView,
    Cause,
    EndpointStatus,
    EndpointView,
    RolloutState,
    Step,
    Wish,
    WishKind,
    is_final,
)
from airflow_dlaws.rollout.transitions import TRANSITIONS


def test_the_table_has_a_rule_for_every_step_and_situation() -> None:
    live = {step for step in Step if not is_final(step)}
    assert set(TRANSITIONS) == live
    for step in live:
        assert set(TRANSITIONS[step]) == set(Situation)
        for rules in TRANSITIONS[step].values():
            assert rules[-1].when is When.ALWAYS
            assert When.ALWAYS not in [rule.when for rule in rules[:-1]]


def test_only_an_endpoint_on_the_requested_configuration_is_promoted() -> None:
    promoting = {
        situation
        for rows in TRANSITIONS.values()
        for situation, rules in rows.items()
        if any(rule.then is Step.PROMOTED for rule in rules)
    }
    assert promoting == {Situation.ON_REQUESTED}
    pending = view(EndpointStatus.IN_SERVICE, NEW, pending="something")
    assert situation_of(rollout(), pending) is not Situation.ON_REQUESTED


def test_a_silent_rollback_is_no_success() -> None:
    alarm = AlarmView(name="new-5xx", state="ALARM", reason="Threshold Crossed")
    decision = decide(PLAN, rollout(), seen(WENT_BACK, alarms=(alarm,)), 100)
    assert (decision.action, decision.state.step, decision.state.cause) == (
        Action.FINISH,
        Step.ROLLED_BACK,
        Cause.BY_AWS,
    )
    assert "new-5xx" in decision.reason
    assert "Threshold Crossed" in decision.reason


def test_proven_harm_trips_the_alarm_and_ends_rolled_back() -> None:
    tripped = decide(PLAN, rollout(), seen(MOVING, BAD), 100)
    assert (tripped.action, tripped.state.step) == (Action.TRIP, Step.ROLLING_BACK)
    ended = decide(PLAN, tripped.state, seen(WENT_BACK, GOOD), 130)
    assert (ended.action, ended.state.step, ended.state.cause) == (Action.FINISH, Step.ROLLED_BACK, Cause.HARM)
    assert "40 of 100" in ended.reason


def test_harm_found_when_aws_was_already_done_is_undone_by_us() -> None:
    restore = decide(PLAN, rollout(), seen(PROMOTED, BAD), 100)
    assert (restore.action, restore.state.step) == (Action.RESTORE, Step.RESTORING)
    coming = decide(PLAN, restore.state, seen(view(EndpointStatus.UPDATING, NEW, OLD)), 130)
    assert coming.action is Action.WAIT
    assert decide(PLAN, coming.state, seen(WENT_BACK), 160).state.step is Step.ROLLED_BACK


def test_without_traffic_the_gate_closes_before_the_bake_is_over() -> None:
    baking = dataclasses.replace(MOVING, on_traffic=True, traffic_since=1000.0)
    early = decide(PLAN, rollout(), seen(baking, NOTHING), 1000 + PLAN.gate_seconds - 1)
    assert early.action is Action.WAIT
    late = decide(PLAN, early.state, seen(baking, NOTHING), 1000 + PLAN.gate_seconds)
    assert (late.action, late.state.cause) == (Action.TRIP, Cause.NO_TRAFFIC)
    ended = decide(PLAN, late.state, seen(WENT_BACK, NOTHING), 1400)
    assert ended.state.step is Step.INCONCLUSIVE


def batch(green: int, since: float | None, wanted: int = 4) -> EndpointView:
    """Return what an endpoint shows in a rolling update; `since`: when it began to bake with so many instances."""
    counts = {"green_instances": green, "green_wanted": wanted, "traffic_since": since or 0.0}
    return dataclasses.replace(MOVING, on_traffic=True, baking_since=since, **counts)


def test_the_gate_of_a_rolling_update_waits_for_the_batches_that_aws_still_starts() -> None:
    # Each of four batches waits 300 s and takes 400 s to start; the last wait beside blue is from 1,500 to 1,800 s.
    state, plan = rollout(), ROLLING
    for now, endpoint in [
        (110, batch(1, 100)), (500, batch(1, None)), (850, batch(2, 800)), (1100, batch(2, None)),
        (1300, batch(2, None)), (1510, batch(3, 1500)), (1500 + plan.gate_of(300) - 1, batch(3, 1500)),
    ]:  # fmt: skip
        decision = decide(plan, state, seen(endpoint, NOTHING), now)
        assert decision.action is Action.WAIT, now
        state = decision.state
    late = decide(plan, state, seen(batch(3, 1500), NOTHING), 1500 + plan.gate_of(300))
    assert (late.action, late.state.cause) == (Action.TRIP, Cause.NO_TRAFFIC)


def test_the_gate_of_a_rolling_update_closes_also_where_no_look_met_the_last_wait() -> None:
    begun = decide(ROLLING, rollout(), seen(batch(1, 100), NOTHING), 110).state
    soonest = 100 + ROLLING.gate_seconds
    assert decide(ROLLING, begun, seen(batch(2, None), NOTHING), soonest).action is Action.WAIT
    assert decide(ROLLING, begun, seen(batch(4, 900), NOTHING), soonest).action is Action.TRIP
    # A description that tells of no batch: all the time that starting them may take.
    allowed = soonest + BATCH_SECONDS * 2
    assert decide(ROLLING, begun, seen(MOVING, NOTHING), allowed - 1).action is Action.WAIT
    assert decide(ROLLING, begun, seen(MOVING, NOTHING), allowed).action is Action.TRIP


def test_the_gate_of_a_rolling_update_counts_the_instances_that_autoscaling_has_made() -> None:
    # Eight instances in batches of two are four batches, as four in batches of one: the third has six.
    begun = decide(ROLLING, rollout(), seen(batch(2, 100, wanted=8), NOTHING), 110).state
    assert decide(ROLLING, begun, seen(batch(4, 800, wanted=8), NOTHING), 1200).state.last_wait_since is None
    assert decide(ROLLING, begun, seen(batch(6, 1500, wanted=8), NOTHING), 1600).state.last_wait_since == 1500


def test_an_untested_model_in_service_is_taken_back_unless_told_otherwise() -> None:
    assert decide(PLAN, rollout(), seen(PROMOTED, NOTHING), 100).action is Action.RESTORE
    lenient = dataclasses.replace(PLAN, on_no_traffic=OnNoTraffic.PROMOTE)
    assert decide(lenient, rollout(), seen(PROMOTED, NOTHING), 100).state.step is Step.PROMOTED


def test_metrics_that_stay_unreadable_take_the_rollout_back() -> None:
    blind = seen(MOVING, blind="AccessDenied")
    first = decide(PLAN, rollout(), blind, 100)
    assert first.action is Action.WAIT
    later = decide(PLAN, first.state, blind, 100 + PLAN.blind_seconds)
    assert (later.action, later.state.cause) == (Action.TRIP, Cause.UNMEASURED)
    assert decide(PLAN, first.state, seen(MOVING), 110).state.blind_since is None


def test_a_busy_endpoint_is_waited_for_until_the_time_is_up() -> None:
    busy = seen(view(EndpointStatus.SYSTEM_UPDATING))
    state = rollout(Step.STARTING, updated_at=None, previous_config="")
    assert decide(PLAN, state, busy, 100).action is Action.WAIT
    late = decide(PLAN, state, busy, 7200)
    assert (late.action, late.state.step) == (Action.FINISH, Step.FAILED)
    assert "SystemUpdating" in late.reason


@pytest.mark.parametrize(
    ("status", "way_out"),
    [
        (EndpointStatus.FAILED, "delete-endpoint"),
        (EndpointStatus.OUT_OF_SERVICE, "update-endpoint"),
        (EndpointStatus.UPDATE_ROLLBACK_FAILED, "update-endpoint"),
    ],
)
@pytest.mark.parametrize("step", [step for step in Step if not is_final(step)])
def test_a_broken_endpoint_ends_the_rollout_with_a_way_out(step: Step, status: EndpointStatus, way_out: str) -> None:
    decision = decide(PLAN, rollout(step), seen(view(status, failure_reason="no instances")), 100)
    assert decision.state.step is Step.FAILED
    assert status.value in decision.reason
    assert "no instances" in decision.reason
    assert way_out in decision.reason


def test_somebody_elses_deployment_is_never_called_ours() -> None:
    decision = decide(PLAN, rollout(), seen(view(EndpointStatus.IN_SERVICE, "config-third")), 100)
    assert decision.state.step is Step.FAILED
    assert "config-third" in decision.reason


def test_a_recorded_promotion_is_checked_again() -> None:
    done = rollout(Step.PROMOTED, reason="in service")
    assert decide(PLAN, done, seen(PROMOTED), 100).state.step is Step.PROMOTED
    assert decide(PLAN, done, seen(WENT_BACK), 100).state.step is Step.FAILED


ABORT = Wish(kind=WishKind.ABORT, by="ada", at=100.0, why="wrong model")
PROMOTE = Wish(kind=WishKind.PROMOTE, by="ada", at=100.0)


def test_a_person_who_aborts_is_obeyed_and_named() -> None:
    tripped = decide(PLAN, rollout(), seen(MOVING, GOOD, wish=ABORT), 100)
    assert (tripped.action, tripped.state.cause) == (Action.TRIP, Cause.ABORTED)
    assert "ada asked to abort this rollout: wrong model" in tripped.reason
    ended = decide(PLAN, tripped.state, seen(WENT_BACK), 130)
    assert (ended.state.step, ended.state.cause) == (Step.ROLLED_BACK, Cause.ABORTED)
    assert decide(PLAN, rollout(), seen(PROMOTED, GOOD, wish=ABORT), 100).action is Action.RESTORE


def test_a_rollout_aborted_before_it_began_touches_nothing() -> None:
    waiting = rollout(Step.STARTING, updated_at=None, previous_config="")
    for endpoint in (None, WENT_BACK, view(EndpointStatus.SYSTEM_UPDATING)):
        decision = decide(PLAN, waiting, seen(endpoint, NOTHING, wish=ABORT), 100)
        assert (decision.action, decision.state.step) == (Action.FINISH, Step.FAILED)
        assert "was not touched" in decision.reason


def test_a_person_may_stand_in_for_a_verdict_but_not_for_proven_harm() -> None:
    baking = dataclasses.replace(MOVING, on_traffic=True, traffic_since=1000.0)
    heard = decide(PLAN, rollout(), seen(baking, NOTHING, wish=PROMOTE), 1000 + PLAN.gate_seconds)
    assert heard.action is Action.WAIT
    assert decide(PLAN, heard.state, seen(PROMOTED, NOTHING), 1400).state.step is Step.PROMOTED
    assert decide(PLAN, heard.state, seen(PROMOTED, BAD), 1400).action is Action.RESTORE


def shadowed(step: Step = Step.SHADOWING, **changes: object) -> RolloutState:
    return rollout(step, shadow_config=SHADOW, **changes)


def test_a_plan_with_a_shadow_begins_with_it() -> None:
    waiting = shadowed(Step.STARTING, updated_at=None, previous_config="")
    begun = decide(SHADOWED, waiting, seen(WENT_BACK, NOTHING), 100)
    assert (begun.action, begun.state.step) == (Action.SHADOW, Step.SHADOWING)
    assert decide(PLAN, waiting, seen(WENT_BACK, NOTHING), 100).action is Action.UPDATE
    assert decide(SHADOWED, waiting, seen(None, NOTHING), 100).action is Action.CREATE


def test_a_good_shadow_is_removed_after_its_time_and_only_then_traffic_shifts() -> None:
    look = seen(ON_SHADOW, NOTHING, shadow=GOOD_SHADOW)
    early = decide(SHADOWED, shadowed(), look, 100)
    assert (early.action, early.state.shadow_since) == (Action.WAIT, 100)
    passed = decide(SHADOWED, early.state, look, 100 + SHADOWED.shadow_seconds)
    assert (passed.action, passed.state.step) == (Action.UNSHADOW, Step.REMOVING_SHADOW)
    removed = decide(SHADOWED, passed.state, seen(view(EndpointStatus.UPDATING, SHADOW, OLD), NOTHING), 430)
    assert removed.action is Action.WAIT
    shift = decide(SHADOWED, removed.state, seen(WENT_BACK, NOTHING), 460)
    assert (shift.action, shift.state.step) == (Action.UPDATE, Step.SHIFTING)


def test_a_bad_shadow_never_gets_users() -> None:
    found = decide(SHADOWED, shadowed(), seen(ON_SHADOW, NOTHING, shadow=WORSE_SHADOW), 100)
    assert (found.action, found.state.step, found.state.cause) == (Action.RESTORE, Step.RESTORING, Cause.SHADOW)
    ended = decide(SHADOWED, found.state, seen(WENT_BACK, NOTHING), 130)
    assert (ended.state.step, "60% agree" in ended.reason) == (Step.ROLLED_BACK, True)


def test_a_shadow_without_a_verdict_waits_for_late_captures_and_is_inconclusive() -> None:
    state, look = shadowed(shadow_since=0.0), seen(ON_SHADOW, NOTHING, shadow=UNCLEAR_SHADOW)
    assert decide(SHADOWED, state, look, SHADOWED.shadow_seconds).action is Action.WAIT
    late = decide(SHADOWED, state, look, SHADOWED.shadow_seconds + SHADOWED.capture_lag_seconds)
    assert (late.action, late.state.cause) == (Action.RESTORE, Cause.SHADOW_UNCLEAR)
    assert decide(SHADOWED, late.state, seen(WENT_BACK, NOTHING), 500).state.step is Step.INCONCLUSIVE
    waived = decide(SHADOWED, state, seen(ON_SHADOW, NOTHING, shadow=UNCLEAR_SHADOW, wish=PROMOTE), 10)
    assert waived.action is Action.UNSHADOW
    assert decide(SHADOWED, state, seen(ON_SHADOW, NOTHING, shadow=WORSE_SHADOW, wish=PROMOTE), 10).action is (
        Action.RESTORE
    )


def test_a_removal_that_was_asked_for_and_forgotten_is_not_taken_for_a_rollback() -> None:
    alone = decide(SHADOWED, shadowed(), seen(WENT_BACK, NOTHING), 100)
    assert (alone.state.step, alone.state.cause) == (Step.ROLLED_BACK, Cause.BY_AWS)
    asked = decide(SHADOWED, shadowed(shadow_passed_at=90.0), seen(WENT_BACK, NOTHING), 100)
    assert asked.action is Action.UPDATE


def test_in_service_before_its_shadow_was_judged_is_never_green() -> None:
    for endpoint in (MOVING, PROMOTED):
        decision = decide(SHADOWED, shadowed(), seen(endpoint, GOOD), 100)
        assert decision.state.step is Step.FAILED
