"""What is done for Airflow versions other than the one these tests run on; `make matrix` runs it on those."""

from __future__ import annotations

from typing import Any

import pytest

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
