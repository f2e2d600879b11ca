"""What former holders of an endpoint's lock have left behind: an update, alarms, a variant that does not scale."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from airflow_dlaws.launchers.endpoint import EndpointPort
from airflow_dlaws.launchers.rollout_scaling import VariantScaling
from airflow_dlaws.launchers.rollout_store import LockNote, RolloutStore
from airflow_dlaws.launchers.rollout_watch import alarms_of
from airflow_dlaws.rollout.order import RolloutOrder

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

    def see_to(self, former: LockNote | None) -> None:
        """See to what they left behind, the last one first.

        :raises DlawsError: something is left, and the lock still says whose.
        """
        while former:
            self._stop_former(former)
            self._scale_as_before(former)
            former = former.former
        self._store.forget_former()

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

    def _scale_as_before(self, former: LockNote) -> None:
        record = self._store.folder.record(former.config_name)
        scaling = record.state.scaling if record else None
        if record is None or scaling is None or not scaling.is_off:
            return
        if self._endpoint.describe(self._order.endpoint_name) is not None:
            log.warning("putting back the autoscaling that %s took off", former.owner)
            variant = record.state.variant_name
            VariantScaling(
                self._client, endpoint_name=self._order.endpoint_name, variant_name=variant, sleep=self._sleep
            ).put_back(scaling.target)
        on_again = record.state.but(scaling=replace(scaling, is_off=False))
        self._store.folder.save(replace(record, state=on_again))
