"""A trigger brings no task back before the scheduler has heard that the worker which deferred it has left."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import time
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_dlaws import triggers
from airflow_dlaws._compat import BaseEventTrigger, BaseTrigger
from airflow_dlaws.triggers import departure
from airflow_dlaws.triggers.job import JobEvent, JobEventKind
from airflow_dlaws.triggers.pause import PauseTrigger

TASK_INSTANCE: Any = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1)


def task_triggers() -> list[type[BaseTrigger]]:
    """Return the triggers that tasks wait for, of all modules."""
    modules = [
        importlib.import_module(found.name)
        for found in pkgutil.iter_modules(triggers.__path__, "airflow_dlaws.triggers.")
    ]
    return [
        thing
        for module in modules
        for thing in vars(module).values()
        if isinstance(thing, type)
        and issubclass(thing, BaseTrigger)
        and not issubclass(thing, BaseEventTrigger)
        and thing.__module__ == module.__name__
    ]


async def fires_after(trigger: BaseTrigger) -> float:
    """Return the seconds until a trigger fires."""
    began = time.monotonic()
    await anext(aiter(trigger.run()))
    return time.monotonic() - began


def one_that_has_seen_enough(kind: type[BaseTrigger], task_instance: Any) -> BaseTrigger:
    """Return a trigger that knows at once what it waits for."""

    async def seen() -> Any:
        return JobEvent(kind=JobEventKind.FINISHED)

    trigger = kind.__new__(kind)
    BaseTrigger.__init__(trigger)
    vars(trigger).update(_watch=seen, _event=seen, until=time.time())
    trigger.task_instance = task_instance
    return trigger


@pytest.mark.parametrize("kind", task_triggers())
def test_every_trigger_that_a_task_waits_for_lets_its_worker_leave(
    kind: type[BaseTrigger], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(departure, "WORKER_LEAVES_S", 1.0)
    assert 1.0 <= asyncio.run(fires_after(one_that_has_seen_enough(kind, TASK_INSTANCE))) < 5
    assert asyncio.run(fires_after(one_that_has_seen_enough(kind, None))) < 1.0


def test_the_triggers_of_all_modules_are_tried() -> None:
    names = {kind.__name__ for kind in task_triggers()}
    assert names >= {"ApprovalTrigger", "JobTrigger", "PauseTrigger", "RolloutTrigger", "UnreadCaptureTrigger"}


def test_a_pause_that_is_long_enough_is_not_made_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(departure, "WORKER_LEAVES_S", 1.5)
    trigger = PauseTrigger(until=time.time() + 1.6)
    trigger.task_instance = TASK_INSTANCE
    assert 1.59 <= asyncio.run(fires_after(trigger)) < 3.0
