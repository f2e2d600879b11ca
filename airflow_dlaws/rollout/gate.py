"""The gate: from when on a rollout without a verdict goes back, so early that blue is still there to go back to.

Blue/green updates bake for a time that the plan knows. A rolling one also takes the minutes in which AWS starts each
batch, which nobody knows beforehand: there the endpoint's description tells which batch is watched. The gate lies in
the last wait in which blue serves. Source: PendingProductionVariantSummary's API reference (CurrentInstanceCount,
DesiredInstanceCount; VariantStatus with its StartTime).
"""

from __future__ import annotations

import math

from airflow_dlaws.rollout.plan import BATCH_SECONDS, RolloutPlan, Strategy
from airflow_dlaws.rollout.state import EndpointView, RolloutState


def last_wait_since(plan: RolloutPlan, state: RolloutState, endpoint: EndpointView) -> float | None:
    """Return when the last wait in which blue serves began (rolling), None where it has not begun, as far as is told.

    :param endpoint: on its way to the requested configuration.
    """
    if state.last_wait_since is not None or plan.strategy is not Strategy.ROLLING:
        return state.last_wait_since
    green, wanted = endpoint.green_instances, endpoint.green_wanted
    if green is None or wanted is None or not green < wanted <= green + plan.batch_of(wanted):
        return None
    return endpoint.baking_since


def at_gate(plan: RolloutPlan, state: RolloutState, endpoint: EndpointView | None, now: float) -> bool:
    """Tell whether there must be a verdict by now. `now` is in epoch seconds."""
    if state.traffic_since is None:
        return False
    if plan.strategy is not Strategy.ROLLING:
        return now >= state.traffic_since + plan.gate_seconds
    green, wanted = (endpoint.green_instances, endpoint.green_wanted) if endpoint else (None, None)
    # Autoscaling may have given the fleet another number of instances than the plan counts on.
    fleet = wanted or plan.instance_count
    waits = max(1, math.ceil(fleet / plan.batch_of(fleet)) - 1)
    soonest = state.traffic_since + plan.gate_of(plan.wait_seconds * waits)
    if now < soonest:
        return False
    if state.last_wait_since is not None:
        return now >= state.last_wait_since + plan.gate_of(plan.wait_seconds)
    # No look has met that wait: it is over with the last batch, or after all the time that starting batches may take.
    return (green is not None and green >= fleet) or now >= soonest + BATCH_SECONDS * (waits - 1)
