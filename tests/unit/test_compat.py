"""What is done for Airflow versions other than the one these tests run on; `make matrix` runs it on those."""

from __future__ import annotations

import asyncio
import signal
import time
from io import StringIO
from typing import Any

import pytest
import structlog
from asgiref.sync import async_to_sync

from airflow_dlaws import _compat
from airflow_dlaws.operators.base import DlawsOperator


def finish(operator: DlawsOperator, result: dict[str, Any]) -> dict[str, Any]:
    """Do with a result what Airflow does before it keeps it."""
    if operator._post_execute_hook is not None:
        operator._post_execute_hook({}, result)
    return result


def test_fields_without_a_value_are_kept_where_airflow_can_keep_them() -> None:
    assert finish(DlawsOperator(task_id="task"), {"a": 1, "b": None}) == {"a": 1, "b": None}


def test_fields_without_a_value_are_left_out_where_airflow_refuses_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compat, "REFUSES_NULL_XCOMS", True)
    assert finish(DlawsOperator(task_id="task"), {"a": 0, "b": None}) == {"a": 0}


def test_a_users_own_hook_is_called_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compat, "REFUSES_NULL_XCOMS", True)
    heard: list[Any] = []
    operator = DlawsOperator(task_id="task", post_execute=lambda context, result: heard.append(dict(result)))
    finish(operator, {"a": 1, "b": None})
    assert heard == [{"a": 1}]


def test_before_3_3_a_question_is_heard_to_its_end_though_the_trigger_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_compat, "TRIGGER_HAS_ON_KILL", False)

    async def scenario() -> list[str]:
        asked, answer, heard = asyncio.Event(), asyncio.Event(), []

        async def question() -> None:
            asked.set()
            await answer.wait()
            heard.append("answer")

        trigger = asyncio.create_task(_compat.in_thread(async_to_sync(question)))
        await asyncio.wait_for(asked.wait(), 30)
        trigger.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trigger
        answer.set()
        await asyncio.wait_for(asyncio.gather(*_compat._being_asked), 30)
        return heard

    assert asyncio.run(scenario()) == ["answer"]


def test_a_kill_that_interrupts_the_writing_of_a_line_comes_again_when_it_is_written() -> None:
    """What a handler logs would wait for ever for the lock that the interrupted line holds."""
    kills: list[bool] = []

    class Terminal(StringIO):
        def write(self, text: str) -> int:
            if not kills:
                signal.raise_signal(signal.SIGTERM)
            return super().write(text)

    former = signal.signal(signal.SIGTERM, lambda *_: kills.append(_compat.put_off()))
    try:
        structlog.PrintLogger(Terminal()).info("a line")
        until = time.monotonic() + 20
        while len(kills) < 2 and time.monotonic() < until:
            time.sleep(0.01)
    finally:
        signal.signal(signal.SIGTERM, former)
    assert kills == [True, False]
