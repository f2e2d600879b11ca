"""What former holders of an endpoint's lock have left: an update, alarms, a shadow, a variant that does not scale."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from airflow_dlaws.errors import DlawsError
from airflow_dlaws.launchers.endpoint import EndpointPort
from airflow_dlaws.launchers.rollout_events import tell
from airflow_dlaws.launchers.rollout_leftovers import explained, has_leftovers, settle
from airflow_dlaws.launchers.rollout_shadow import take_shadow_away
from airflow_dlaws.launchers.rollout_store import LockNote, RolloutStore
from airflow_dlaws.launchers.rollout_watch import alarms_of
from airflow_dlaws.rollout.order import RolloutOrder
from airflow_dlaws.rollout.rehearsal import Rehearsal, RehearsalVerdict
from airflow_dlaws.rollout.state import RolloutState

log = logging.getLogger(__name__)


class Takeover:
    """Sees to the rollouts that held an endpoint before this one. `client` gives the boto3 client of a service."""

    def __init__(
        self,
        client: Callable[[str], Any],
        order: RolloutOrder,
        store: RolloutStore,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._client, self._order, self._store = client, order, store
        self._endpoint = EndpointPort(client("sagemaker"))
        self._clock, self._sleep = clock, sleep

    def see_to(self, former: LockNote | None) -> tuple[str, ...]:
        """See to what they left behind, the last one first; return the throw-away endpoints that AWS still creates.

        :raises DlawsError: something is left, and the lock still says whose.
        """
        names: list[str] = []
        while former:
            self._stop_former(former)
            self._end_shadow(former)
            names += self._settle(former)
            former = former.former
        return tuple(names)

    def _stop_former(self, former: LockNote) -> None:
        """See to what a former holder left: its update must not go on unwatched, its alarms must not stay for ever."""
        alarms = alarms_of(self._client, self._order, former.config_name)
        live = self._endpoint.describe(self._order.endpoint_name)
        if live and live.pending_config_name == former.config_name and alarms.views():
            log.warning("rolling back %s, left behind by %s", former.config_name, former.owner)
            alarms.trip(f"left behind by {former.owner}", self._clock())
            deadline = self._clock() + self._order.plan.rollback_seconds
            while live and live.pending_config_name == former.config_name and self._clock() < deadline:
                self._sleep(self._order.plan.look_seconds)
                live = self._endpoint.describe(self._order.endpoint_name)
        alarms.remove()

    def _end_shadow(self, former: LockNote) -> None:
        record = self._store.folder.record(former.config_name)
        if record is not None:
            plan = self._order.plan
            take_shadow_away(
                self._client("sagemaker"),
                record.state,
                until=self._clock() + plan.rollback_seconds,
                clock=self._clock,
                sleep=lambda: self._sleep(plan.look_seconds),
            )

    def _settle(self, former: LockNote) -> tuple[str, ...]:
        record = self._store.folder.record(former.config_name)
        if record is None:
            return ()
        report_uri = str(self._store.folder.uri(former.config_name, ".html"))
        state = tell(self._client, record.state, report_uri=report_uri, now=self._clock())
        problems: tuple[DlawsError, ...] = ()
        if has_leftovers(state):
            log.warning("seeing to what %s has left: autoscaling that is off, or a throw-away endpoint", former.owner)
            state, problems = settle(self._client, state, sleep=self._sleep)
        if state != record.state:
            self._store.folder.save(replace(record, state=state))
        if state.scaling and state.scaling.is_off:
            raise explained(state, problems)
        return state.rehearsal.endpoints if state.rehearsal else ()


def with_endpoints(state: RolloutState, names: tuple[str, ...]) -> RolloutState:
    """Return the state of a rollout that is also to delete these throw-away endpoints."""
    if not names:
        return state
    own = state.rehearsal or Rehearsal(verdict=RehearsalVerdict.PASSED)
    return state.but(rehearsal=replace(own, endpoints=tuple(dict.fromkeys((*own.endpoints, *names)))))
