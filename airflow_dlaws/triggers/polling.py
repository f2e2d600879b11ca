"""How a trigger comes by the looks at its job: from the poller that all triggers share, or from a watch of its own."""

from __future__ import annotations

import asyncio
import json
import weakref
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from airflow_dlaws._compat import in_thread
from airflow_dlaws.errors import ServiceRefused
from airflow_dlaws.hooks.aws import AwsConnection, forget_clients, shared_clients
from airflow_dlaws.hooks.launcher import launcher_for
from airflow_dlaws.jobs.reference import JobReference
from airflow_dlaws.jobs.wire import to_json
from airflow_dlaws.launchers.poller import SharedPoller
from airflow_dlaws.launchers.protocol import Launcher, LogCursor, Watchable
from airflow_dlaws.launchers.watch import JobWatch, Look

#: The pollers of each event loop, by connection (which has the region) and kind of job.
_POLLERS: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, SharedPoller]] = weakref.WeakKeyDictionary()


async def looks(
    connection: AwsConnection, reference: JobReference, *, poll_interval: float, cursor: LogCursor
) -> AsyncGenerator[Look, None]:
    """Yield what is seen of a job, for ever.

    :raises ServiceRefused: AWS has refused to answer several times in a row.
    """
    launcher = launcher_for(reference.engine, shared_clients(connection))
    if not isinstance(launcher, Watchable):
        async for look in _looks_alone(connection, reference, poll_interval, cursor):
            yield look
        return
    async with (
        _shared_poller(connection, reference.engine) as poller,
        poller.watching(reference, poll_interval=poll_interval, cursor=cursor) as seat,
    ):
        while True:
            yield await seat.look()


async def _looks_alone(
    connection: AwsConnection, reference: JobReference, poll_interval: float, cursor: LogCursor
) -> AsyncGenerator[Look, None]:
    """Look at a job whose service lists none."""

    def launcher() -> Launcher[Any]:
        return launcher_for(reference.engine, shared_clients(connection))

    watch = JobWatch(launcher, reference, poll_interval=poll_interval, cursor=cursor)
    while True:
        look = await in_thread(watch.look)
        if look.refused:
            forget_clients(connection)
        yield look
        await asyncio.sleep(look.wait_s)


@asynccontextmanager
async def _shared_poller(connection: AwsConnection, engine: str) -> AsyncIterator[SharedPoller]:
    """Return the poller of this event loop; it is forgotten when nobody waits any more."""
    pollers = _POLLERS.setdefault(asyncio.get_running_loop(), {})
    key = json.dumps([to_json(connection), engine], sort_keys=True, default=str)
    if key not in pollers:
        pollers[key] = _new_poller(connection, engine)
    try:
        yield pollers[key]
    finally:
        if key in pollers and pollers[key].idle:
            del pollers[key]


def _new_poller(connection: AwsConnection, engine: str) -> SharedPoller:
    def launcher() -> Watchable:
        found = launcher_for(engine, shared_clients(connection))
        if not isinstance(found, Watchable):
            raise ServiceRefused(f"the jobs of {engine!r} cannot be listed")
        return found

    return SharedPoller(launcher, in_thread=in_thread, renew=lambda: forget_clients(connection))
