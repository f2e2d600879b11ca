"""Tells a rollout's events to an SNS topic: at least once, and without ever changing how the rollout ends."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from airflow_dlaws.errors import DlawsError
from airflow_dlaws.launchers.aws_errors import service_errors
from airflow_dlaws.rollout.events import RolloutEvent, due_events, message_of
from airflow_dlaws.rollout.state import RolloutState

log = logging.getLogger(__name__)

#: Publish: "up to 100 characters".
_SUBJECT_LENGTH = 100


def tell(client: Callable[[str], Any], state: RolloutState, *, report_uri: str, now: float) -> RolloutState:
    """Publish what is due; return the state that remembers it.

    What cannot be told now stays due; what AWS refuses is given up. Both are logged, and stand in the result.

    :param client: gives the boto3 client of a service ("sns"); not asked where the rollout has no topic.
    """
    if not state.topic:
        return state
    for event in due_events(state):
        message = message_of(event, state, report_uri=report_uri, at=now)
        try:
            _publish(client("sns"), state, event, json.dumps(message))
        except DlawsError as error:
            problem = f"{event.value} was not told: {error}"
            log.warning("%s", problem)
            state = state.but(not_told=problem)
            if not error.permanent:
                break
        state = state.but(told=(*state.told, event.value))
    return state


def _publish(sns: Any, state: RolloutState, event: RolloutEvent, message: str) -> None:
    values = {"event": event.value, "endpoint_name": state.endpoint_name}
    fifo = {
        "MessageGroupId": state.endpoint_name,
        "MessageDeduplicationId": f"{state.requested_config}-{event.value}",
    }
    with service_errors(f"publish to {state.topic}"):
        sns.publish(
            TopicArn=state.topic,
            Subject=f"{event.value.replace('_', ' ')}: endpoint {state.endpoint_name}"[:_SUBJECT_LENGTH],
            Message=message,
            MessageAttributes={name: {"DataType": "String", "StringValue": value} for name, value in values.items()},
            **(fifo if state.topic.endswith(".fifo") else {}),
        )
