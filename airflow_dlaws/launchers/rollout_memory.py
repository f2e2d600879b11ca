"""What is remembered of one rollout: read once, and written to S3 at every change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from airflow_dlaws.launchers.rollout_store import RolloutStore
from airflow_dlaws.rollout.order import RolloutNames, RolloutOrder
from airflow_dlaws.rollout.rehearsal import Rehearsal, RehearsalVerdict
from airflow_dlaws.rollout.report import RolloutRecord
from airflow_dlaws.rollout.state import Look, RolloutState
from airflow_dlaws.rollout.timeline import TimelineRow, thinned


class RolloutMemory:
    """The record of one rollout.

    :param known: the state to go on from, should the state file be gone.
    :param clock: epoch seconds.
    """

    def __init__(
        self,
        store: RolloutStore,
        order: RolloutOrder,
        names: RolloutNames,
        *,
        known: RolloutState | None,
        clock: Callable[[], float],
    ) -> None:
        self._store, self._order, self._names = store, order, names
        self._known, self._clock = known, clock
        self._record: RolloutRecord | None = None
        #: What both fleets did, minute by minute, as far as this process has looked.
        self.timeline: tuple[TimelineRow, ...] = ()

    @property
    def record(self) -> RolloutRecord:
        """What is known of this rollout, as the state file has it."""
        if self._record is None:
            self._record = self._store.load() or self._new_record()
        return self._record

    @property
    def state(self) -> RolloutState:
        """Where the rollout is."""
        return self.record.state

    def save(self, state: RolloutState, *looks: Look) -> None:
        """Remember the state, and further looks."""
        record = self.record
        self._record = RolloutRecord(
            plan=self._order.plan,
            state=state,
            looks=thinned((*record.looks, *looks)),
            timeline=self.timeline or record.timeline,
        )
        self._store.save(self._record)

    def _new_record(self) -> RolloutRecord:
        if self._known:
            return RolloutRecord(plan=self._order.plan, state=self._known)
        now, order, names = self._clock(), self._order, self._names
        state = RolloutState(
            endpoint_name=order.endpoint_name,
            requested_config=names.config_name,
            model_name=names.model_name,
            model_package_arn=order.model_package_arn,
            variant_name=order.variant_name,
            started_at=now,
            deadline=now + order.timeout_seconds,
        )
        return RolloutRecord(plan=order.plan, state=as_asked(state, order, names))


def as_asked(state: RolloutState, order: RolloutOrder, names: RolloutNames) -> RolloutState:
    """Return the state of a rollout that has not touched the endpoint, with what the order asks for besides its plan.

    An earlier try may have been asked for something else: a retry follows edited arguments.
    """
    if state.updated_at is not None:
        return state
    rehearsal = state.rehearsal
    if order.sample_requests:
        # One that has passed without a reason only names endpoints that former rollouts have left.
        is_new = rehearsal is None or not (rehearsal.reason or rehearsal.verdict is RehearsalVerdict.PENDING)
        rehearsal = replace(rehearsal or Rehearsal(), verdict=RehearsalVerdict.PENDING) if is_new else rehearsal
    elif rehearsal:  # what was made for it still has to go
        rehearsal = replace(rehearsal, verdict=RehearsalVerdict.PASSED) if rehearsal.endpoints else None
    return state.but(
        topic=order.sns_topic_arn or "",
        shadow_config=names.shadow_config_name if order.plan.shadow_seconds else "",
        rehearsal=rehearsal,
    )
