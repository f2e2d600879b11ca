"""What a rollout remembers around its update: events that are due, and scaling that could not be put back."""

from __future__ import annotations

import pytest

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.wire import from_json, to_json
from airflow_dlaws.rollout.events import RolloutEvent, due_events
from airflow_dlaws.rollout.rehearsal import Rehearsal, RehearsalVerdict
from airflow_dlaws.rollout.scaling import ScalableTarget, ScalingRecord, record_of
from airflow_dlaws.rollout.state import RolloutState, Step

TRACKING = {"PolicyName": "tracking", "PolicyType": "TargetTrackingScaling"}
STEPS = {"PolicyName": "steps", "PolicyType": "StepScaling"}
TARGET = ScalableTarget(min_capacity=1, max_capacity=4, policies=(TRACKING,), tags={"team": "flights"})


def rollout(step: Step, **changes: object) -> RolloutState:
    return RolloutState(
        step=step,
        endpoint_name="endpoint",
        requested_config="new",
        previous_config="old",
        model_name="model",
        model_package_arn="arn",
        variant_name="AllTraffic",
        started_at=0.0,
        deadline=7200.0,
    ).but(**changes)


@pytest.mark.parametrize(
    ("state", "events"),
    [
        (rollout(Step.STARTING), []),
        # Asked for and perhaps not taken by AWS: not started yet, as far as we know.
        (rollout(Step.STARTING, updated_at=1.0), []),
        (rollout(Step.SHIFTING, updated_at=1.0), ["started"]),
        (rollout(Step.SHIFTING, updated_at=1.0, told=("started",)), []),
        (rollout(Step.ROLLING_BACK, updated_at=1.0, abandoned=True), ["started", "abandoned"]),
        (rollout(Step.PROMOTED, updated_at=1.0), ["started", "promoted"]),
        (rollout(Step.ROLLED_BACK, updated_at=1.0, told=("started", "abandoned")), ["rolled_back"]),
        (rollout(Step.INCONCLUSIVE, updated_at=1.0, told=("started", "inconclusive")), []),
        (rollout(Step.FAILED), ["needs_a_person"]),
    ],
)
def test_an_event_is_due_until_it_was_told(state: RolloutState, events: list[str]) -> None:
    assert due_events(state) == tuple(RolloutEvent(event) for event in events)


def test_the_variant_must_go_only_where_its_instance_type_changes() -> None:
    assert not record_of(TARGET, old_type="ml.m5.large", new_type="ml.m5.large", variant="v").must_go
    assert record_of(TARGET, old_type="ml.m5.large", new_type="ml.c5.large", variant="v").must_go


def test_step_scaling_is_refused_only_where_the_variant_must_go() -> None:
    target = ScalableTarget(min_capacity=1, max_capacity=4, policies=(TRACKING, STEPS))
    assert record_of(target, old_type="ml.m5.large", new_type="ml.m5.large", variant="v").target == target
    with pytest.raises(SpecificationError, match=r"\['steps'\] would come back with other ARNs"):
        record_of(target, old_type="ml.m5.large", new_type="ml.c5.large", variant="v")


def test_a_registration_is_as_it_was_even_where_somebody_has_added_to_it() -> None:
    more = ScalableTarget(
        min_capacity=1, max_capacity=4, policies=(STEPS, TRACKING), tags={"team": "flights", "a": "b"}
    )
    assert more.includes(TARGET)
    assert not TARGET.includes(more)
    assert not ScalableTarget(min_capacity=1, max_capacity=3, policies=(TRACKING,), tags=TARGET.tags).includes(TARGET)


def test_what_is_to_be_undone_survives_the_state_file() -> None:
    state = rollout(
        Step.SHIFTING,
        scaling=ScalingRecord(target=TARGET, must_go=True, is_off=True),
        rehearsal=Rehearsal(verdict=RehearsalVerdict.PASSED, reason="it answered", endpoints=("one", "two")),
    )
    assert from_json(RolloutState, to_json(state)) == state
