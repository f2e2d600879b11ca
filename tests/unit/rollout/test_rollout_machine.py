"""The state machine against a small model of AWS that misbehaves at random."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_dlaws.rollout.analysis import Evidence, Verdict
from airflow_dlaws.rollout.machine import decide, situation_of
from airflow_dlaws.rollout.plan import OnNoTraffic, RolloutPlan, Strategy
from airflow_dlaws.rollout.rehearsal import Rehearsal, RehearsalVerdict
from airflow_dlaws.rollout.rules import Action, Situation, When
from airflow_dlaws.rollout.shadow import ShadowEvidence, ShadowVerdict
from airflow_dlaws.rollout.state import (
    AlarmView,
    Cause,
    EndpointStatus,
    EndpointView,
    Observation,
    RolloutState,
    Step,
    Wish,
    WishKind,
    is_final,
)
from airflow_dlaws.rollout.transitions import TRANSITIONS

NEW, OLD, SHADOW = "config-new", "config-old", "config-shadow"
PLAN = RolloutPlan(
    look_seconds=30, wait_seconds=300, termination_wait_seconds=120, rollback_seconds=1800, blind_seconds=120
)
SHADOWED = dataclasses.replace(PLAN, shadow_seconds=300, capture_lag_seconds=60)
ROLLING = dataclasses.replace(PLAN, strategy=Strategy.ROLLING, instance_count=4)
GOOD_SHADOW = ShadowEvidence(verdict=ShadowVerdict.GOOD, reason="99% agree")
UNCLEAR_SHADOW = ShadowEvidence(reason="3 pairs")
WORSE_SHADOW = ShadowEvidence(verdict=ShadowVerdict.WORSE, reason="60% agree")
GOOD = Evidence(verdict=Verdict.NO_HARM_SEEN, reason="no sign of harm", green_requests=100, blue_requests=900)
BAD = Evidence(verdict=Verdict.HARM, reason="green failed 40 of 100", green_requests=100, green_errors=40)
NOTHING = Evidence(reason="nothing was measured")


def rollout(step: Step = Step.SHIFTING, **changes: object) -> RolloutState:
    state = RolloutState(
        step=step,
        endpoint_name="endpoint",
        requested_config=NEW,
        previous_config=OLD,
        model_name="model",
        model_package_arn="arn",
        variant_name="AllTraffic",
        started_at=0,
        updated_at=0,
        deadline=7200,
    )
    return dataclasses.replace(state, **changes)  # type: ignore[arg-type]


def view(status: EndpointStatus, config: str = OLD, pending: str = "", **more: object) -> EndpointView:
    return EndpointView(status=status, config_name=config, pending_config_name=pending, **more)  # type: ignore[arg-type]


MOVING = view(EndpointStatus.UPDATING, OLD, NEW)
ON_SHADOW = view(EndpointStatus.IN_SERVICE, SHADOW)
PROMOTED = view(EndpointStatus.IN_SERVICE, NEW)
WENT_BACK = view(EndpointStatus.IN_SERVICE, OLD)


def seen(endpoint: EndpointView | None, evidence: Evidence = GOOD, **more: object) -> Observation:
    return Observation(endpoint=endpoint, evidence=evidence, **more)  # type: ignore[arg-type]


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


class ModelOfAws:
    """One endpoint: it moves as AWS moves one, with faults drawn at random."""

    def __init__(self, random_: random.Random, *, exists: bool) -> None:
        self.random = random_
        self.endpoint = view(EndpointStatus.IN_SERVICE, OLD) if exists else None
        self.tripped = False
        self.update_ends = 0.0
        self.traffic_since: float | None = None
        #: So little traffic that a shadow never gets a verdict.
        self.is_quiet = random_.random() < 0.2

    def advance(self, now: float) -> None:
        """Let the endpoint go on."""
        endpoint, chance = self.endpoint, self.random.random()
        if endpoint is None:
            return
        if endpoint.status is EndpointStatus.CREATING and chance < 0.3:
            good = self.random.random() < 0.8
            self.endpoint = view(EndpointStatus.IN_SERVICE if good else EndpointStatus.FAILED, endpoint.config_name)
        elif endpoint.status is EndpointStatus.UPDATING:
            self._advance_update(endpoint, chance, now)
        elif endpoint.status is EndpointStatus.SYSTEM_UPDATING and chance < 0.3:
            self.endpoint = dataclasses.replace(endpoint, status=EndpointStatus.IN_SERVICE)
        elif endpoint.status is EndpointStatus.IN_SERVICE and chance < 0.03:
            self.endpoint = dataclasses.replace(endpoint, status=EndpointStatus.SYSTEM_UPDATING)

    def _advance_update(self, endpoint: EndpointView, chance: float, now: float) -> None:
        heard = self.tripped and endpoint.pending_config_name in (NEW, SHADOW)
        if (heard and chance < 0.6) or chance < 0.02:
            self.endpoint = view(EndpointStatus.IN_SERVICE, endpoint.config_name)
        elif chance < 0.04:
            broken = [EndpointStatus.UPDATE_ROLLBACK_FAILED, EndpointStatus.OUT_OF_SERVICE, EndpointStatus.FAILED]
            self.endpoint = view(self.random.choice(broken), endpoint.config_name)
        elif now >= self.update_ends:
            self.endpoint = view(EndpointStatus.IN_SERVICE, endpoint.pending_config_name)
        elif chance < 0.5 and endpoint.pending_config_name == NEW and not endpoint.on_traffic:
            self.endpoint = dataclasses.replace(endpoint, on_traffic=True, traffic_since=now)

    def move(self, config: str, now: float) -> bool:
        """UpdateEndpoint: refused while the endpoint is moving; some updates never end."""
        if self.endpoint is None or self.endpoint.status is not EndpointStatus.IN_SERVICE:
            return False
        self.endpoint = view(EndpointStatus.UPDATING, self.endpoint.config_name, config)
        self.update_ends = now + self.random.choice([60, 500, 900, 10**9])
        return True


def observe(random_: random.Random, aws: ModelOfAws) -> Observation:
    evidence = random_.choices([GOOD, NOTHING, BAD], weights=[6, 2, 1])[0]
    endpoint = aws.endpoint
    if endpoint and random_.random() < 0.03:
        # Somebody else deploys.
        endpoint = view(EndpointStatus.IN_SERVICE, "config-third")
        aws.endpoint = endpoint
    kinds = random_.choices([None, WishKind.ABORT, WishKind.PROMOTE], weights=[60, 1, 1])[0]
    wish = kinds and Wish(kind=kinds, by="ada", at=0.0)
    blind, moves = "throttled" if random_.random() < 0.1 else "", random_.random() < 0.5
    shadow = None
    if endpoint == ON_SHADOW and not blind:
        kinds_of_shadow = [GOOD_SHADOW, UNCLEAR_SHADOW, WORSE_SHADOW]
        shadow = UNCLEAR_SHADOW if aws.is_quiet else random_.choices(kinds_of_shadow, weights=[8, 2, 1])[0]
    return seen(endpoint, evidence, blind=blind, wish=wish, rehearsal_moves=moves, shadow=shadow)


#: What a look saves before the action it calls for is done.
NOTICED = ("evidence", "alarms", "traffic_since", "wish", "shadow", "shadow_since", "shadow_passed_at")


def drive(
    seed: int, *, exists: bool, killed_at: int, plan: RolloutPlan = PLAN
) -> tuple[RolloutState, ModelOfAws, float]:
    """Run a rollout to its end; the process that acts may die before it remembers (`killed_at`)."""
    random_ = random.Random(seed)
    aws = ModelOfAws(random_, exists=exists)
    state = rollout(
        Step.STARTING,
        updated_at=None,
        previous_config="",
        rehearsal=Rehearsal() if seed % 2 else None,
        shadow_config=SHADOW if plan.shadow_seconds else "",
    )
    now = 0.0
    for step in range(2000):
        aws.advance(now)
        decision = decide(plan, state, observe(random_, aws), now)
        after = decision.state
        if decision.action not in (Action.WAIT, Action.TRIP):
            state = state.but(**{name: getattr(after, name) for name in NOTICED})
        if decision.action in (Action.CREATE, Action.SHADOW, Action.UPDATE):
            assert state.rehearsal is None or state.rehearsal.verdict is RehearsalVerdict.PASSED
        if decision.action is Action.REHEARSE:
            verdict = random_.choices(list(RehearsalVerdict), weights=[3, 5, 1])[0]
            after = after.but(rehearsal=Rehearsal(verdict=verdict, reason="it answered"))
        elif decision.action is Action.CREATE:
            aws.endpoint = view(EndpointStatus.CREATING, NEW)
        elif decision.action is Action.UPDATE:
            assert aws.endpoint is not None
            way_back = {"previous_config": aws.endpoint.config_name, "updated_at": now}
            state = state.but(**way_back)
            assert not plan.shadow_seconds or after.shadow_passed_at is not None
            after = after.but(**way_back) if aws.move(NEW, now) else state
        elif decision.action is Action.SHADOW:
            assert aws.endpoint is not None
            way_back = {"previous_config": aws.endpoint.config_name, "updated_at": now}
            state = state.but(**way_back)
            after = after.but(**way_back) if aws.move(SHADOW, now) else state
        elif decision.action is Action.UNSHADOW or decision.action is Action.RESTORE:
            after = after if aws.move(state.previous_config, now) else state
        elif decision.action is Action.TRIP:
            aws.tripped = True
        elif decision.action is Action.FINISH:
            return after, aws, now
        if step != killed_at:
            state = after
        now += plan.look_seconds
    raise AssertionError(f"seed {seed}: no end after {now} s, in {state.step}")


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    exists=st.sampled_from([True, True, False]),
    killed_at=st.integers(0, 20),
    plan=st.sampled_from([PLAN, SHADOWED, ROLLING]),
)
@example(seed=1, exists=True, killed_at=0, plan=PLAN)
def test_whatever_aws_does_green_means_in_service_and_every_rollout_ends(
    seed: int, exists: bool, killed_at: int, plan: RolloutPlan
) -> None:
    check_end(seed, exists=exists, killed_at=killed_at, plan=plan)


@pytest.mark.slow
def test_ten_thousand_sequences_of_faults_end_well() -> None:
    for seed in range(10_000):
        check_end(seed, exists=seed % 4 > 0, killed_at=seed % 23, plan=(PLAN, SHADOWED, ROLLING)[seed % 3])


def check_end(seed: int, *, exists: bool, killed_at: int, plan: RolloutPlan) -> None:
    state, aws, now = drive(seed, exists=exists, killed_at=killed_at, plan=plan)
    assert is_final(state.step)
    if state.step is not Step.FAILED:
        assert aws.endpoint is not None
        assert SHADOW not in (aws.endpoint.config_name, aws.endpoint.pending_config_name)
    elif aws.endpoint and SHADOW in (aws.endpoint.config_name, aws.endpoint.pending_config_name):
        # Left only where AWS lets nobody act, or for longer than going back may take; a person is told.
        broken = aws.endpoint.status not in (EndpointStatus.IN_SERVICE, EndpointStatus.UPDATING)
        assert broken or "did not get back" in state.reason
    if state.step is Step.PROMOTED:
        assert aws.endpoint == view(EndpointStatus.IN_SERVICE, NEW)
    if state.step in (Step.ROLLED_BACK, Step.INCONCLUSIVE):
        assert aws.endpoint == view(EndpointStatus.IN_SERVICE, state.previous_config)
    assert state.reason
    assert "{" not in state.reason
    assert now <= state.deadline + 2 * PLAN.rollback_seconds + 10 * PLAN.look_seconds


def test_the_model_of_aws_reaches_every_end() -> None:
    """Guards the property test against passing because nothing happens."""
    for plan in (PLAN, SHADOWED):
        found = [drive(seed, exists=seed % 3 > 0, killed_at=seed % 7, plan=plan)[0] for seed in range(300)]
        assert {state.step for state in found} == {Step.PROMOTED, Step.ROLLED_BACK, Step.INCONCLUSIVE, Step.FAILED}
    assert {Cause.SHADOW, Cause.SHADOW_UNCLEAR} <= {state.cause for state in found}
