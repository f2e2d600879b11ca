"""Lets a task wait for a moment without a worker slot: no job runs meanwhile, so there is nothing to stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow_dlaws._compat import BaseTrigger, TriggerEvent
from airflow_dlaws.triggers.departure import worker_gone


class PauseTrigger(BaseTrigger):
    """Fires once, at a moment.

    :param until: seconds since the epoch, so that a restarted triggerer does not start counting anew.
    """

    def __init__(self, *, until: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.until = until

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what another triggerer needs to go on."""
        return "airflow_dlaws.triggers.pause.PauseTrigger", {"until": self.until}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Sleep; the event says nothing."""
        began = time.monotonic()
        await asyncio.sleep(max(0.0, self.until - time.time()))
        await worker_gone(self, began)
        yield TriggerEvent({})  # type: ignore[no-untyped-call]
