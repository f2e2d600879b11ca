"""Waits until there are captured files to read. Only lists: reading and judging is the worker's work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

from airflow_dlaws._compat import BaseTrigger, TriggerEvent, in_thread
from airflow_dlaws.drift.state import worth_reading
from airflow_dlaws.hooks.aws import AwsConnection, shared_clients
from airflow_dlaws.hooks.drift import list_unread, read_state
from airflow_dlaws.jobs.wire import from_json, to_json
from airflow_dlaws.storage import ObjectStore, S3Uri

#: A few failed listings in a row are weather; more are for the worker, whose attempt fails with the reason or succeeds.
_MAX_FAILURES = 5


class UnreadCaptureTrigger(BaseTrigger):
    """Fires when unread captured files probably hold the rows for a look, or at the deadline.

    :param connection: the AWS connection, as JSON.
    :param capture_s3_uri: the prefix under which keys start with their hour.
    :param state_s3_uri: the sensor's state document.
    :param min_rows: rows that a look needs.
    :param poll_interval: seconds between two listings.
    :param deadline: seconds since 1970.
    """

    def __init__(
        self,
        *,
        connection: Mapping[str, Any],
        capture_s3_uri: str,
        state_s3_uri: str,
        min_rows: int,
        poll_interval: float,
        deadline: float,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.connection = dict(connection)
        self.capture_s3_uri = capture_s3_uri
        self.state_s3_uri = state_s3_uri
        self.min_rows = min_rows
        self.poll_interval = poll_interval
        self.deadline = deadline

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that make this trigger again."""
        return "airflow_dlaws.triggers.drift.UnreadCaptureTrigger", {
            "connection": to_json(self.connection),
            "capture_s3_uri": self.capture_s3_uri,
            "state_s3_uri": self.state_s3_uri,
            "min_rows": self.min_rows,
            "poll_interval": self.poll_interval,
            "deadline": self.deadline,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: `{"status": "unread" | "deadline" | "trouble"}`."""
        yield TriggerEvent(await self._event())  # type: ignore[no-untyped-call]

    async def _event(self) -> dict[str, str]:
        failures = 0
        while (left := self.deadline - datetime.now(UTC).timestamp()) > 0:
            try:
                if await in_thread(self._has_work):
                    return {"status": "unread"}
                failures = 0
            except Exception as error:  # whatever it is, a worker can tell it better than a dead trigger
                failures += 1
                self.log.warning("cannot list %s: %s", self.capture_s3_uri, error)
                if failures > _MAX_FAILURES:
                    return {"status": "trouble", "message": str(error)}
            await asyncio.sleep(min(self.poll_interval, max(0.0, left)))
        return {"status": "deadline"}

    def _has_work(self) -> bool:
        store = ObjectStore(shared_clients(from_json(AwsConnection, self.connection)).client("s3"))
        stored = read_state(store, S3Uri.parse(self.state_s3_uri))
        state = stored[0] if stored else None
        files = list_unread(store, S3Uri.parse(self.capture_s3_uri), state)
        return worth_reading(state, files, min_rows=self.min_rows, now=datetime.now(UTC))
