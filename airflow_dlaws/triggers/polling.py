"""How a trigger comes by the looks at its job: from the poller that all triggers share, or from a watch of its own."""

from __future__ import annotations

import asyncio
import json
import weakref
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from airflow_dlaws._compat import in_thread
from airflow_dlaws.hooks.aws import AwsConnection, forget_clients, shared_clients
from airflow_dlaws.hooks.launcher import launcher_for
from airflow_dlaws.jobs.reference import JobReference
from airflow_dlaws.jobs.wire import to_json
from airflow_dlaws.launchers.group_poller import CLOUDWATCH_SPACING_S, GroupPoller
from airflow_dlaws.launchers.poller import SharedPoller
from airflow_dlaws.launchers.protocol import Launcher, LogCursor, Together, Watchable
from airflow_dlaws.launchers.seats import Poller
from airflow_dlaws.launchers.watch import JobWatch, Look

#: The pollers of each event loop, by connection (which has the region) and kind of job.
_POLLERS: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Poller]] = weakref.WeakKeyDictionary()


async def looks(
    connection: AwsConnection, reference: JobReference, *, poll_interval: float, cursor: LogCursor
) -> AsyncGenerator[Look, None]:
    """Yield what is seen of a job, for ever.

    :raises ServiceRefused: AWS has refused to answer several times in a row.
    """
    launcher = launcher_for(reference.engine, shared_clients(connection))
    if not isinstance(launcher, Watchable | Together):
        async for look in _looks_alone(connection, reference, poll_interval, cursor):
            yield look
        return
    async with (
        _shared_poller(connection, reference, launcher) as poller,
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
async def _shared_poller(
    connection: AwsConnection, reference: JobReference, launcher: Watchable | Together
) -> AsyncIterator[Poller]:
    """Return the poller of this event loop; it is forgotten when nobody waits any more."""
    pollers = _POLLERS.setdefault(asyncio.get_running_loop(), {})
    group = launcher.group(reference) if isinstance(launcher, Together) else ""
    key = json.dumps([to_json(connection), reference.engine, group], sort_keys=True, default=str)
    if key not in pollers:
        pollers[key] = _new_poller(connection, reference.engine, launcher)
    try:
        yield pollers[key]
    finally:
        if key in pollers and pollers[key].idle:
            del pollers[key]


def _new_poller(connection: AwsConnection, engine: str, known: Watchable | Together) -> Poller:
    def launcher() -> Any:
        return launcher_for(engine, shared_clients(connection))

    def renew() -> None:
        forget_clients(connection)

    if isinstance(known, Together):
        spacing = CLOUDWATCH_SPACING_S if known.log_group else 0.0
        return GroupPoller(launcher, portion=known.portion, log_spacing=spacing, in_thread=in_thread, renew=renew)
    return SharedPoller(launcher, in_thread=in_thread, renew=renew)
