"""The state machine against a small model of AWS that misbehaves at random."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_dlaws.rollout.analysis import Evidence, Verdict
from airflow_dlaws.rollout.machine import decide, situation_of
from airflow_dlaws.rollout.plan import OnNoTraffic, RolloutPlan
from airflow_dlaws.rollout.rehearsal import Rehearsal, RehearsalVerdict
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
from airflow_dlaws.rollout.transitions import TRANSITIONS, Action, Situation, When

NEW, OLD = "config-new", "config-old"
PLAN = RolloutPlan(
    look_seconds=30, wait_seconds=300, termination_wait_seconds=120, rollback_seconds=1800, blind_seconds=120
)
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


class ModelOfAws:
    """One endpoint: it moves as AWS moves one, with faults drawn at random."""

    def __init__(self, random_: random.Random, *, exists: bool) -> None:
        self.random = random_
        self.endpoint = view(EndpointStatus.IN_SERVICE, OLD) if exists else None
        self.tripped = False
        self.update_ends = 0.0
        self.traffic_since: float | None = None

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
        if (self.tripped and endpoint.pending_config_name == NEW and chance < 0.6) or chance < 0.02:
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
    return seen(endpoint, evidence, blind=blind, wish=wish, rehearsal_moves=moves)


def drive(seed: int, *, exists: bool, killed_at: int) -> tuple[RolloutState, ModelOfAws, float]:
    """Run a rollout to its end; the process that acts may die before it remembers (`killed_at`)."""
    random_ = random.Random(seed)
    aws = ModelOfAws(random_, exists=exists)
    rehearsal = Rehearsal() if seed % 2 else None
    state = rollout(Step.STARTING, updated_at=None, previous_config="", rehearsal=rehearsal)
    now = 0.0
    for step in range(2000):
        aws.advance(now)
        decision = decide(PLAN, state, observe(random_, aws), now)
        after = decision.state
        if decision.action in (Action.CREATE, Action.UPDATE):
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
            after = after.but(**way_back) if aws.move(NEW, now) else state
        elif decision.action is Action.RESTORE:
            after = after if aws.move(state.previous_config, now) else state
        elif decision.action is Action.TRIP:
            aws.tripped = True
        elif decision.action is Action.FINISH:
            return after, aws, now
        if step != killed_at:
            state = after
        now += PLAN.look_seconds
    raise AssertionError(f"seed {seed}: no end after {now} s, in {state.step}")


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32), exists=st.sampled_from([True, True, False]), killed_at=st.integers(0, 20))
@example(seed=1, exists=True, killed_at=0)
def test_whatever_aws_does_green_means_in_service_and_every_rollout_ends(
    seed: int, exists: bool, killed_at: int
) -> None:
    check_end(seed, exists=exists, killed_at=killed_at)


@pytest.mark.slow
def test_ten_thousand_sequences_of_faults_end_well() -> None:
    for seed in range(10_000):
        check_end(seed, exists=seed % 4 > 0, killed_at=seed % 23)


def check_end(seed: int, *, exists: bool, killed_at: int) -> None:
    state, aws, now = drive(seed, exists=exists, killed_at=killed_at)
    assert is_final(state.step)
    if state.step is Step.PROMOTED:
        assert aws.endpoint == view(EndpointStatus.IN_SERVICE, NEW)
    if state.step in (Step.ROLLED_BACK, Step.INCONCLUSIVE):
        assert aws.endpoint == view(EndpointStatus.IN_SERVICE, state.previous_config)
    assert state.reason
    assert "{" not in state.reason
    assert now <= state.deadline + 2 * PLAN.rollback_seconds + 10 * PLAN.look_seconds


def test_the_model_of_aws_reaches_every_end() -> None:
    """Guards the property test against passing because nothing happens."""
    ends = {drive(seed, exists=seed % 3 > 0, killed_at=seed % 7)[0].step for seed in range(300)}
    assert ends == {Step.PROMOTED, Step.ROLLED_BACK, Step.INCONCLUSIVE, Step.FAILED}
