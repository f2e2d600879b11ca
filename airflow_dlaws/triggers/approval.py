"""Waits for a person's word on a model package: in the registry, and where Airflow can ask people, in its UI too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from airflow_dlaws._compat import AirflowRuntimeError, BaseTrigger, TriggerEvent, answer_event, in_thread
from airflow_dlaws.errors import DlawsError
from airflow_dlaws.hooks.aws import AwsConnection, forget_clients, shared_clients
from airflow_dlaws.jobs.wire import from_json
from airflow_dlaws.registry.approval import approval_of, describe
from airflow_dlaws.triggers.departure import worker_gone


class ApprovalTrigger(BaseTrigger):
    """Fires when a word has been given, when nothing more can be learnt, or at the deadline.

    :param connection: an `AwsConnection` as JSON.
    :param package_arn: the model package.
    :param asked: id of the task instance that asks in Airflow's UI; None where Airflow cannot.
    :param poll_interval: seconds between two looks.
    :param deadline: seconds since the epoch, so that a restarted triggerer does not start counting anew.
    """

    def __init__(
        self,
        *,
        connection: Mapping[str, Any],
        package_arn: str,
        asked: str | None,
        poll_interval: float,
        deadline: float,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.connection, self.package_arn, self.asked = connection, package_arn, asked
        self.poll_interval, self.deadline = poll_interval, deadline

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that make this trigger again."""
        return "airflow_dlaws.triggers.approval.ApprovalTrigger", {
            "connection": dict(self.connection),
            "package_arn": self.package_arn,
            "asked": self.asked,
            "poll_interval": self.poll_interval,
            "deadline": self.deadline,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: an answer (see `answer_event`), or `{"status": "decided" | "trouble" | "deadline"}`."""
        began = time.monotonic()
        event = await self._event()
        await worker_gone(self, began)
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def _event(self) -> dict[str, Any]:
        while True:
            if answer := await self._answer():
                return answer
            try:
                if await in_thread(self._is_decided):
                    return {"status": "decided"}
            except DlawsError as error:
                self.log.warning("%s", error)
                forget_clients(from_json(AwsConnection, self.connection))
                if error.permanent:
                    return {"status": "trouble"}
            left = self.deadline - time.time()
            if left <= 0:
                return {"status": "deadline"}
            await asyncio.sleep(min(self.poll_interval, left))

    async def _answer(self) -> dict[str, Any] | None:
        """Return the event of an answer in Airflow; what Airflow cannot tell now may still be said in the registry."""
        if self.asked is None:
            return None
        try:
            return await answer_event(self.asked)
        except AirflowRuntimeError as error:
            self.log.warning(
                "Airflow does not tell whether its question about %s is answered: %s", self.package_arn, error
            )
            return None

    def _is_decided(self) -> bool:
        clients = shared_clients(from_json(AwsConnection, self.connection))
        return approval_of(describe(clients.client("sagemaker"), self.package_arn)) is not None
