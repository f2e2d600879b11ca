"""Waits for a rollout without a worker: looks at the endpoint and its metrics, and rings when a worker must act.

Each look is written to S3, so that a triggerer that dies loses nothing. The trigger itself changes one thing only: it
trips the verdict alarm, because that must not wait for a free worker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from airflow_dlaws._compat import TRIGGER_HAS_ON_KILL, BaseTrigger, TriggerEvent, in_thread, killed_by_user
from airflow_dlaws.errors import DlawsError
from airflow_dlaws.hooks.aws import AwsConnection, forget_clients, shared_clients
from airflow_dlaws.jobs.wire import from_json, to_json
from airflow_dlaws.launchers.rollout import ENDPOINT_ACTIONS, RolloutConductor
from airflow_dlaws.rollout.order import RolloutNames, RolloutOrder
from airflow_dlaws.rollout.plan import OnKill
from airflow_dlaws.rollout.state import Cause, RolloutState
from airflow_dlaws.triggers.departure import worker_gone

#: Airflow gives a trigger's on_kill 30 seconds; going back itself is AWS's work and goes on without us.
_KILL_WAIT_SECONDS = 20.0


class RolloutTrigger(BaseTrigger):
    """Looks at one rollout until a worker must act.

    :param connection: an `AwsConnection` as JSON.
    :param order: a `RolloutOrder` as JSON.
    :param names: its `RolloutNames` as JSON.
    :param state: the `RolloutState` to go on from, as JSON; the state file in S3 comes first.
    :param on_kill: an `OnKill`.
    """

    def __init__(
        self,
        *,
        connection: Mapping[str, Any],
        order: Mapping[str, Any],
        names: Mapping[str, Any],
        state: Mapping[str, Any],
        on_kill: str,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.connection, self.order, self.names, self.state = connection, order, names, state
        self.kill_policy = on_kill

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that make this trigger again."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "connection": dict(self.connection),
                "order": dict(self.order),
                "names": dict(self.names),
                "state": dict(self.state),
                "on_kill": self.kill_policy,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until a worker must act, or nothing more can be learnt; yield the reason."""
        began = time.monotonic()
        try:
            payload = await self._watch()
            await worker_gone(self, began)
        except asyncio.CancelledError:
            if not TRIGGER_HAS_ON_KILL and self.task_instance is not None:
                await self.on_kill()
            raise
        yield TriggerEvent(payload)  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Go back, or leave AWS in charge, because a person has failed, cleared or marked the task (Airflow 3.3)."""
        if not await killed_by_user(self.task_instance):
            self.log.info("The rollout goes on: its task is still deferred, and a triggerer watches it")
            return

        def abandon() -> None:
            self._conductor().abandon(
                Cause.KILLED,
                "the task was killed while the rollout was under way",
                wait_seconds=_KILL_WAIT_SECONDS,
                on_kill=OnKill(self.kill_policy),
            )

        await in_thread(abandon)

    async def _watch(self) -> dict[str, str]:
        conductor = await in_thread(self._conductor)
        while True:
            try:
                decision = await in_thread(conductor.look)
            except DlawsError as error:
                self.log.warning("cannot look at the rollout: %s", error)
                forget_clients(from_json(AwsConnection, self.connection))
                if error.permanent or conductor.run_out_of_time():
                    return {"error": str(error)}
            else:
                if decision.action in ENDPOINT_ACTIONS:
                    return {"action": decision.action.value, "reason": decision.reason}
            await asyncio.sleep(conductor.order.plan.look_seconds)

    def _conductor(self) -> RolloutConductor:
        return RolloutConductor(
            shared_clients(from_json(AwsConnection, self.connection)).client,
            from_json(RolloutOrder, self.order),
            from_json(RolloutNames, self.names),
            known=from_json(RolloutState, self.state),
        )


def trigger_for(connection: AwsConnection, conductor: RolloutConductor, on_kill: OnKill) -> RolloutTrigger:
    """Return the trigger that goes on with a rollout, on which the worker has looked just now."""
    return RolloutTrigger(
        connection=to_json(connection),
        order=to_json(conductor.order),
        names=to_json(conductor.names),
        state=to_json(conductor.state),
        on_kill=on_kill.value,
    )
