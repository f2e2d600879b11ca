"""Plans, states and observations of rollouts, for the tests of the machine."""

from __future__ import annotations

import dataclasses

from airflow_dlaws.rollout.analysis import Evidence, Verdict
from airflow_dlaws.rollout.plan import RolloutPlan, Strategy
from airflow_dlaws.rollout.shadow import ShadowEvidence, ShadowVerdict
from airflow_dlaws.rollout.state import (
    EndpointStatus,
    EndpointView,
    Observation,
    RolloutState,
    Step,
)

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
