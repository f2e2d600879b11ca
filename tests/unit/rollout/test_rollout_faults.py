"""Ten thousand sequences of faults through the rollout's machine, with a model of AWS: green means in service."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rollout_states import (
    BAD,
    GOOD,
    GOOD_SHADOW,
    NEW,
    NOTHING,
    OLD,
    ON_SHADOW,
    PLAN,
    ROLLING,
    SHADOW,
    SHADOWED,
    UNCLEAR_SHADOW,
    WORSE_SHADOW,
    rollout,
    seen,
    view,
)

from airflow_dlaws.rollout.machine import decide
from airflow_dlaws.rollout.plan import RolloutPlan
from airflow_dlaws.rollout.rehearsal import Rehearsal, RehearsalVerdict
from airflow_dlaws.rollout.rules import Action
from airflow_dlaws.rollout.state import (
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
