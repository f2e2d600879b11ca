"""Waits for captured files to read, or for a verdict to act on. Only lists: reading and judging is a worker's work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

from airflow_dlaws._compat import BaseEventTrigger, BaseTrigger, TriggerEvent, deployment_url, in_thread
from airflow_dlaws.drift.progress import Progress, worth_reading
from airflow_dlaws.hooks.aws import AwsConnection, forget_clients, shared_clients
from airflow_dlaws.hooks.capture import list_unread
from airflow_dlaws.hooks.drift import read_progress
from airflow_dlaws.hooks.verdicts import VerdictInbox, verdict_folder
from airflow_dlaws.jobs.identity import digest_of
from airflow_dlaws.jobs.wire import from_json, to_json
from airflow_dlaws.storage import ObjectStore, S3Uri
from airflow_dlaws.triggers.departure import worker_gone

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
        self._known: tuple[str, Progress] | None = None

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
        began = time.monotonic()
        event = await self._event()
        await worker_gone(self, began)
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

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
        self._known = read_progress(store, S3Uri.parse(self.state_s3_uri), self._known)
        progress = self._known[1] if self._known else None
        files = list_unread(store, S3Uri.parse(self.capture_s3_uri), progress)
        return worth_reading(progress, files, min_rows=self.min_rows, now=datetime.now(UTC))


class DriftVerdictTrigger(BaseEventTrigger):
    """Starts DAGs within seconds of a verdict of drift: the trigger of an `AssetWatcher`.

        DRIFT = Asset("drift", watchers=[AssetWatcher(name="drift", trigger=DriftVerdictTrigger(
            endpoint_name="flights", state_s3_uri="s3://bucket/drift"))])

    A DAG scheduled on that asset is started by each verdict that is written after the watcher first looked, also in
    another Airflow than this one. `triggering_asset_events[DRIFT][i].extra["payload"]` has what the `DriftSensor` or
    the `DriftCheckOperator` gives its outlets as `extra`, and `id`, the verdict's name. A verdict is told at least
    once: a triggerer that is killed in the seconds after telling may tell it again.

    :param endpoint_name: whose traffic is judged; of a check without an endpoint its task id.
    :param state_s3_uri: the sensor's `state_s3_uri`, or the operator's `report_s3_uri`.
    :param variant_name: the endpoint's variant.
    :param watcher: watchers of one name in one Airflow (told by its base URL) share the verdicts out among them; give
        those that are each to hear of every verdict different names.
    :param poll_interval: seconds between two listings.
    :param aws_conn_id: Airflow connection; None uses boto3's own credential chain.
    :param region_name: AWS region; None takes it from the connection or the environment.
    """

    def __init__(
        self,
        *,
        endpoint_name: str,
        state_s3_uri: str,
        variant_name: str = "AllTraffic",
        watcher: str = "default",
        poll_interval: float = 5.0,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        S3Uri.parse(state_s3_uri)
        self.endpoint_name = endpoint_name
        self.state_s3_uri = state_s3_uri
        self.variant_name = variant_name
        self.watcher = watcher
        self.poll_interval = poll_interval
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that make this trigger again."""
        # Plain values only: Airflow finds out by comparing them whether the trigger of a DAG file is new.
        return "airflow_dlaws.triggers.drift.DriftVerdictTrigger", {
            "endpoint_name": self.endpoint_name,
            "state_s3_uri": self.state_s3_uri,
            "variant_name": self.variant_name,
            "watcher": self.watcher,
            "poll_interval": self.poll_interval,
            "aws_conn_id": self.aws_conn_id,
            "region_name": self.region_name,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield an event for each verdict, for ever. What fails is logged and tried again."""
        inbox: VerdictInbox | None = None
        told: list[str] = []
        while True:
            try:
                inbox = inbox or await in_thread(self._inbox)
                # Those of the round before: Airflow has had a whole interval to store the events.
                fresh = await in_thread(_round, inbox, told)
                told = []
                for name, document in fresh:
                    yield TriggerEvent({**document, "id": name})  # type: ignore[no-untyped-call]
                    told.append(name)
            except Exception as error:
                self.log.warning("cannot look for verdicts under %s: %s", self.state_s3_uri, error)
                forget_clients(self._connection)
                inbox = None
            await asyncio.sleep(self.poll_interval)

    @property
    def _connection(self) -> AwsConnection:
        return AwsConnection(aws_conn_id=self.aws_conn_id, region_name=self.region_name)

    def _inbox(self) -> VerdictInbox:
        root = S3Uri.parse(self.state_s3_uri)
        folder = verdict_folder(root, self.endpoint_name, self.variant_name)
        reader = digest_of([deployment_url(), self.watcher, str(folder)])
        store = ObjectStore(shared_clients(self._connection).client("s3"))
        return VerdictInbox(store, root, folder, reader=reader)


def _round(inbox: VerdictInbox, told: list[str]) -> list[tuple[str, dict[str, Any]]]:
    if told:
        inbox.mark_told(told, datetime.now(UTC))
    return inbox.untold(datetime.now(UTC))
