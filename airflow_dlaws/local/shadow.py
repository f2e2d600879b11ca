"""Copies of requests for shadow variants, whose answers nobody sees.

The share that is copied is the shadow variant's weight over the production variant's, at most all: AWS documents the
percentage of inference experiments, and not how it follows from the weights of an endpoint configuration; its examples
use them so. A copy is sent once the user has been answered. Copies that cannot be kept up with are dropped: a shadow
that is too slow must not hold up production.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from airflow_dlaws.local.fleet import Fleet
from airflow_dlaws.local.model_server import ModelServer

#: Copies that are sent at a time, and that may wait for it.
_THREADS = 4
_MOST_WAITING = 100


def shadow_for(fleet: Fleet, production_weight: float) -> ModelServer | None:
    """Return the shadow that gets a copy of this request, by the weights; None where there is none."""
    for server in fleet.shadows.values():
        if random.random() * production_weight < server.spec.weight:
            return server
    return None


class Mirrors:
    """Sends copies in the background."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="mirror")
        self._room = threading.Semaphore(_MOST_WAITING)

    def send(self, shadow: ModelServer, copy: Callable[[], None]) -> None:
        """Send a copy soon, or drop it; the shadow is kept alive until that is done."""
        if not self._room.acquire(blocking=False):
            return
        shadow.enter()

        def run() -> None:
            try:
                copy()
            finally:
                shadow.leave()
                self._room.release()

        with contextlib.suppress(RuntimeError):  # the interpreter is going down
            self._pool.submit(run)
