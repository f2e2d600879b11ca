"""What must not outlast a rollout, however it ends: autoscaling that is off, and throw-away endpoints."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

from airflow_dlaws.errors import DlawsError, ServiceUnavailable
from airflow_dlaws.launchers.endpoint import EndpointPort
from airflow_dlaws.launchers.rehearsal import remove_endpoint
from airflow_dlaws.launchers.rollout_scaling import VariantScaling
from airflow_dlaws.rollout.state import RolloutState

Sleep: TypeAlias = Callable[[float], None]


def has_leftovers(state: RolloutState) -> bool:
    """Tell whether something of a rollout is still to be undone."""
    return bool((state.scaling and state.scaling.is_off) or (state.rehearsal and state.rehearsal.endpoints))


def settle(
    client: Callable[[str], Any], state: RolloutState, *, sleep: Sleep = time.sleep
) -> tuple[RolloutState, tuple[DlawsError, ...]]:
    """Undo what can be undone; return the state after that, and what stands against the rest.

    :param client: gives the boto3 client of a service.
    """
    problems: list[DlawsError] = []
    for work in (_scale_again, _remove_endpoints):
        try:
            state = work(client, state, sleep)
        except DlawsError as error:
            problems.append(error)
    return state, tuple(problems)


def explained(state: RolloutState, problems: tuple[DlawsError, ...]) -> DlawsError:
    """Return one error for what a rollout, over or not, has left; a retry helps unless AWS refuses all of it."""
    kind = ServiceUnavailable if any(not each.permanent for each in problems) else type(problems[0])
    return kind(
        f"the rollout is {state.step.value} ({state.reason}), but something is left of it: "
        f"{'; '.join(str(each) for each in problems)}. The next try, the next rollout and "
        f"`dlaws rollout abort {state.endpoint_name}` see to it"
    )


def _scale_again(client: Callable[[str], Any], state: RolloutState, sleep: Sleep) -> RolloutState:
    scaling = state.scaling
    if scaling is None or not scaling.is_off:
        return state
    live = EndpointPort(client("sagemaker")).describe(state.endpoint_name)
    # AWS itself has deregistered the variants of an endpoint that was deleted; a new one may have others.
    if live and (not live.variants or state.variant_name in live.variants):
        port = VariantScaling(client, endpoint_name=state.endpoint_name, variant_name=state.variant_name, sleep=sleep)
        try:
            port.put_back(scaling.target)
        except DlawsError as error:
            raise type(error)(f"autoscaling is still off, it was {scaling.target.sentence}: {error}") from error
    return state.but(scaling=replace(scaling, is_off=False))


def _remove_endpoints(client: Callable[[str], Any], state: RolloutState, sleep: Sleep) -> RolloutState:
    rehearsal = state.rehearsal
    if rehearsal is None or not rehearsal.endpoints:
        return state
    left = tuple(name for name in rehearsal.endpoints if not remove_endpoint(client("sagemaker"), name))
    if left:
        raise ServiceUnavailable(
            f"throw-away endpoint {', '.join(left)} is being created, which AWS lets nobody stop: it can be deleted "
            "(aws sagemaker delete-endpoint) once that is over, within half an hour"
        )
    return state.but(rehearsal=replace(rehearsal, endpoints=left))
