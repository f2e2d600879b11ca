"""Ends what a task pays for: calls `on_kill` of its trigger, also as a program of its own.

    python -m airflow_dlaws.plugins.on_kill < triggers.json

with a list of `{"classpath": ..., "kwargs": ...}`. It fails after the last of them if one could not be ended.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import sys
from collections.abc import Mapping
from typing import Any

log = logging.getLogger(__name__)

#: Whoever writes a DAG may write an XCom, and is not to run code of his in the scheduler by it.
_OURS = "airflow_dlaws.triggers."


def call_on_kill(classpath: str, kwargs: Mapping[str, Any]) -> None:
    """Make a trigger of this package and call its `on_kill`.

    :raises ValueError: it is none of this package.
    """
    if not classpath.startswith(_OURS):
        raise ValueError(f"{classpath!r} is no trigger of this package: their names begin with {_OURS!r}")
    module, _, name = classpath.rpartition(".")
    trigger = getattr(importlib.import_module(module), name)(**kwargs)
    if hasattr(trigger, "on_kill"):  # before Airflow 3.3 only those have it that have something to stop
        asyncio.run(trigger.on_kill())


def main() -> int:
    """End all that standard input names; return 1 where one could not be ended."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    failed = 0
    for trigger in json.load(sys.stdin):
        try:
            call_on_kill(trigger["classpath"], trigger["kwargs"])
        except Exception:
            failed = 1
            log.exception("cannot stop what a killed task had started: %s", trigger)
    return failed


if __name__ == "__main__":
    sys.exit(main())
