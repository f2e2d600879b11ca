"""What a rollout does around its update: the rehearsal before it, autoscaling, events, and leaving nothing behind.

Here remembering comes before acting: what is made or taken away is in S3 first, so that no death leaves it unknown.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from airflow_dlaws.launchers.rehearsal import RehearsalPort
from airflow_dlaws.launchers.rollout_events import tell
from airflow_dlaws.launchers.rollout_leftovers import explained, has_leftovers, settle
from airflow_dlaws.launchers.rollout_memory import RolloutMemory
from airflow_dlaws.launchers.rollout_scaling import VariantScaling
from airflow_dlaws.rollout.order import RolloutNames, RolloutOrder
from airflow_dlaws.rollout.rehearsal import Rehearsal, RehearsalVerdict
from airflow_dlaws.rollout.scaling import ScalingRecord, record_of
from airflow_dlaws.rollout.state import RolloutState

log = logging.getLogger(__name__)


class Upkeep:
    """What surrounds one rollout's update. `client` gives the boto3 client of a service.

    :param report_uri: where the report lies, for the events.
    :param clock: epoch seconds.
    """

    def __init__(
        self,
        client: Callable[[str], Any],
        order: RolloutOrder,
        names: RolloutNames,
        memory: RolloutMemory,
        *,
        report_uri: str,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._client, self._order, self._names, self._memory = client, order, names, memory
        self._report_uri, self._clock, self._sleep = report_uri, clock, sleep
        self._rehearsal = RehearsalPort(client, order, names, clock=clock)
        self._scaling = VariantScaling(
            client, endpoint_name=order.endpoint_name, variant_name=order.variant_name, sleep=sleep
        )

    def rehearse(self, state: RolloutState) -> RolloutState:
        """Make or ask the throw-away endpoint. Its name is remembered first: no death may leave it behind unknown."""
        known = state.rehearsal or Rehearsal()
        noted = replace(known, endpoints=tuple(dict.fromkeys((*known.endpoints, self._names.rehearsal_name))))
        if noted != known:
            self._memory.save(self._memory.state.but(rehearsal=noted))
        verdict, reason = self._rehearsal.go_on(until=state.deadline)
        log.info("rehearsal %s: %s", verdict.value, reason)
        state = state.but(rehearsal=replace(noted, verdict=verdict, reason=reason))
        if verdict is RehearsalVerdict.PENDING:
            return state
        self._memory.save(self._memory.state.but(rehearsal=state.rehearsal))
        # What cannot be deleted now is deleted at the end.
        return settle(self._client, state, sleep=self._sleep)[0]

    def without_endpoints(self, state: RolloutState) -> RolloutState:
        """Delete throw-away endpoints that a dead try has asked and left: they cost as long as they are there."""
        over = state.rehearsal is not None and state.rehearsal.verdict is not RehearsalVerdict.PENDING
        if not over or not has_leftovers(state.but(scaling=None)):
            return state
        rehearsal = settle(self._client, state.but(scaling=None), sleep=self._sleep)[0].rehearsal
        return state.but(rehearsal=rehearsal)

    @property
    def rehearsal_began(self) -> bool:
        """Whether the throw-away endpoint may be there."""
        rehearsal = self._memory.state.rehearsal
        return rehearsal is not None and self._names.rehearsal_name in rehearsal.endpoints

    def rehearsal_moves(self) -> bool:
        """Tell whether the throw-away endpoint is there and coming up, or going."""
        rehearsal = self._memory.state.rehearsal
        if rehearsal is None or rehearsal.verdict is not RehearsalVerdict.PENDING or not rehearsal.endpoints:
            return False
        return self._rehearsal.moves()

    def scaling_now(self, blue: Mapping[str, Any]) -> ScalingRecord | None:
        """Return how the variant scales; what was remembered when it was taken off counts more than what is there."""
        known = self._memory.state.scaling
        if known and known.is_off:
            return known
        target, old_type = self._scaling.read(), str(blue.get("InstanceType", ""))
        if target is None:
            return None
        return record_of(
            target, old_type=old_type, new_type=self._order.instance_type, variant=self._order.variant_name
        )

    def without_scaling(self, state: RolloutState) -> RolloutState:
        """Deregister the variant where AWS wants that. Here remembering comes first: no death may lose how it was."""
        if state.scaling is None or not state.scaling.must_go:
            return state
        off = replace(state.scaling, is_off=True)
        self._memory.save(self._memory.state.but(scaling=off))
        self._scaling.take_off()
        return state.but(scaling=off)

    def leave_nothing(self) -> None:
        """Undo what must not outlast the rollout.

        :raises DlawsError: something is left.
        """
        if not has_leftovers(self._memory.state):
            return
        state, problems = settle(self._client, self._memory.state, sleep=self._sleep)
        if state != self._memory.state:
            self._memory.save(state)
        if problems:
            raise explained(state, problems)

    def tell(self) -> None:
        """Tell the events that are due."""
        state = tell(self._client, self._memory.state, report_uri=self._report_uri, now=self._clock())
        if state != self._memory.state:
            self._memory.save(state)
