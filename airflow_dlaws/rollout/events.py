"""What a rollout tells the world: which events are due in a state, and the message of each."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

from airflow_dlaws.jobs.wire import to_json
from airflow_dlaws.rollout.result import result_of
from airflow_dlaws.rollout.state import RolloutState, Step, is_final


class RolloutEvent(enum.StrEnum):
    """Something that people and programs wait for."""

    #: AWS has taken the update (or creates the endpoint).
    STARTED = "started"
    #: The task was killed; AWS goes on by itself, and how that ends nobody reads.
    ABANDONED = "abandoned"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    INCONCLUSIVE = "inconclusive"
    #: The endpoint does not serve what was asked for, and was not brought back either; or nothing was begun.
    NEEDS_A_PERSON = "needs_a_person"


_ENDS = {
    Step.PROMOTED: RolloutEvent.PROMOTED,
    Step.ROLLED_BACK: RolloutEvent.ROLLED_BACK,
    Step.INCONCLUSIVE: RolloutEvent.INCONCLUSIVE,
    Step.FAILED: RolloutEvent.NEEDS_A_PERSON,
}


def due_events(state: RolloutState) -> tuple[RolloutEvent, ...]:
    """Return the events that have happened and were not told, in their order."""
    happened = []
    if state.updated_at is not None and state.step is not Step.STARTING:
        happened.append(RolloutEvent.STARTED)
    if is_final(state.step):
        happened.append(_ENDS[state.step])
    elif state.abandoned:
        happened.append(RolloutEvent.ABANDONED)
    return tuple(event for event in happened if event.value not in state.told)


def message_of(event: RolloutEvent, state: RolloutState, *, report_uri: str, at: float) -> Mapping[str, Any]:
    """Return the message, plain JSON: the event, when it was told (epoch seconds), and the result so far."""
    return {"event": event.value, "at": at, **to_json(result_of(state, report_uri=report_uri))}
