"""SIGTERM, by which SageMaker announces a spot interruption or a stop: 120 seconds until SIGKILL."""

import signal
import threading

#: What a process that SIGTERM ended returns: 128 + 15.
STOPPED = 143

_wanted = threading.Event()


def listen() -> None:
    """Take note of SIGTERM from now on, instead of dying of it. Call it before anything slow."""
    signal.signal(signal.SIGTERM, lambda *_: _wanted.set())


def stop_wanted() -> bool:
    """Tell whether SIGTERM has come."""
    return _wanted.is_set()
