"""The only module that knows one Airflow version from another (3.0.6 to 3.3)."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import FrameType
from typing import Any, TypeVar
from uuid import UUID

from airflow import __version__ as _airflow_version
from airflow.sdk import Asset, BaseOperator, BaseOperatorLink, Context, Param
from airflow.sdk.bases.sensor import BaseSensorOperator, PokeReturnValue
from airflow.sdk.exceptions import AirflowRuntimeError
from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent

try:  # 3.1 and later
    from airflow.sdk.exceptions import (
        AirflowException,
        AirflowFailException,
        AirflowNotFoundException,
        AirflowSensorTimeout,
        AirflowSkipException,
    )
except ImportError:  # 3.0
    from airflow.exceptions import (  # type: ignore[attr-defined, no-redef]
        AirflowException,
        AirflowFailException,
        AirflowNotFoundException,
        AirflowSensorTimeout,
        AirflowSkipException,
    )

#: Airflow 3.3 calls `BaseTrigger.on_kill` when a user acts on a deferred task; older versions only cancel the trigger.
TRIGGER_HAS_ON_KILL = hasattr(BaseTrigger, "on_kill")

#: Seen in 3.0.6, not in 3.2.1: the API server answers 422 to an XCom that is null (the worker sends it no body).
REFUSES_NULL_XCOMS = tuple(int(part) for part in _airflow_version.split(".")[:2]) < (3, 2)

#: Airflow 3.1 and later show a task's question in the UI (Human in the Loop), where a person answers it.
ASKS_PEOPLE = tuple(int(part) for part in _airflow_version.split(".")[:2]) >= (3, 1)

#: `next_method` of a task that is resumed only to fail, because its trigger timed out or crashed.
FAILED_TRIGGER_METHOD = "__fail__"
#: The error such a task is given where the time of its deferral is over.
TRIGGER_TIMED_OUT = "Trigger timeout"

T = TypeVar("T")


def deployment_url() -> str:
    """Return the base URL of this deployment's API server; empty where none is configured."""
    try:  # 3.2 and later
        from airflow.sdk.configuration import conf
    except ImportError:
        from airflow.configuration import conf
    return conf.get("api", "base_url", fallback="") or ""


def without_null_outputs(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return an operator's arguments; where null XComs are refused, fields of its result that are None are left out.

    `task.output["field"]` is None then all the same, as for every XCom that is not there.
    """
    if not REFUSES_NULL_XCOMS:
        return dict(arguments)
    given = arguments.get("post_execute")

    def leave_out_nulls(context: Context, result: Any = None) -> None:
        if isinstance(result, dict):
            for name in [name for name, value in result.items() if value is None]:
                del result[name]
        if given is not None:
            given(context, result)

    return {**arguments, "post_execute": leave_out_nulls}


def follow_only(context: Context, task_ids: str | Iterable[str]) -> None:
    """Skip what is directly downstream of the task, but for the named tasks and task groups.

    Ends the task at once, as success; returns only where nothing is to be skipped.
    """
    try:  # 3.3 and later
        from airflow.sdk.bases.branch import BranchMixIn
    except ImportError:
        from airflow.providers.standard.operators.branch import BranchMixIn  # type: ignore[no-redef]
    chosen = [task_ids] if isinstance(task_ids, str) else list(task_ids)
    BranchMixIn().do_branch(context, chosen or None)  # type: ignore[no-untyped-call]


#: An event loop keeps no strong reference to what it runs.
_being_asked: set[asyncio.Future[Any]] = set()


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Run blocking code of a trigger in a thread where it may also ask Airflow for connections.

    Before 3.3 the triggerer answers only on its own event loop; asgiref carries the question back to it. There a
    question that has been asked is heard to its end, though the trigger be cancelled: the next one would read its
    answer ("Response read out of order"), and the whole triggerer end.
    """
    if TRIGGER_HAS_ON_KILL:
        return await asyncio.to_thread(function, *arguments)
    from asgiref.sync import sync_to_async

    asking = asyncio.ensure_future(sync_to_async(function, thread_sensitive=False)(*arguments))
    _being_asked.add(asking)
    asking.add_done_callback(_being_asked.discard)
    return await asyncio.shield(asking)


def _state_now(task_instance: Any) -> str | None:
    """Ask Airflow for the state of a task instance, from its worker or from a thread of a triggerer; None: it is gone.

    A task that was cleared and waits for its next worker has no state either.
    """
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    ti = task_instance
    states = RuntimeTaskInstance.get_task_states(
        dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
    )
    name = ti.task_id if ti.map_index is None or ti.map_index < 0 else f"{ti.task_id}_{ti.map_index}"
    state = states.get(ti.run_id, {}).get(name)
    return None if state is None else str(getattr(state, "value", state))


#: The function in a task's process that talks with its supervisor. Like the writing of a line, it holds a lock.
_WHERE_AIRFLOW_IS_ASKED = ("airflow.sdk.execution_time.comms", "send")
_WHERE_LINES_ARE_WRITTEN = "structlog._output"
#: Most answers take some milliseconds.
_AGAIN_S = 0.1
#: States of a task that is not to go on, and whose worker may not have heard so: it asks every few seconds.
_TAKEN_AWAY = frozenset({"failed", "success", "skipped", "upstream_failed", "removed", "restarting"})


def was_taken_away(task_instance: Any) -> bool:
    """Tell, on a task's own worker, whether the task was marked or cleared; where that cannot be found out, it was not.

    Airflow refuses the deferral of such a task and ends its process as if nothing were: nobody is told.
    """
    try:
        return _state_now(task_instance) in _TAKEN_AWAY
    except Exception:
        return False


async def killed_by_user(task_instance: Any) -> bool:
    """Tell, in a trigger that is cancelled or asked to kill, whether a user did it: is its task still deferred?

    A triggerer that restarts, or comes back after another one has taken its triggers over, leaves the task deferred;
    marking, clearing and deleting do not. Airflow 3.3 asks a trigger to kill in the second case too, for it takes any
    trigger that is not its own any more for one of a killed task. Where that cannot be found out, 3.3 is believed;
    before, it is a restart: a job that runs on is noticed by its limits, a job stopped by mistake is lost.

    :param task_instance: None where nobody but the API server, which knows, can have asked.
    """
    if task_instance is None:
        return True
    try:
        return await in_thread(_state_now, task_instance) != "deferred"
    except Exception:
        return TRIGGER_HAS_ON_KILL


def put_off() -> bool:
    """Tell, in an `on_kill`, whether the signal has interrupted a question to Airflow, or a line of the log.

    Nothing else can be asked before Airflow has answered, not even for the connection by which a job could be stopped,
    and nothing be logged before the line is written: the process would hang until SIGKILL. The signal comes again soon.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        where = frame.f_globals.get("__name__")
        if where == _WHERE_LINES_ARE_WRITTEN or (where, frame.f_code.co_name) == _WHERE_AIRFLOW_IS_ASKED:
            again = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), signal.SIGTERM))
            again.daemon = True
            again.start()
            return True
        frame = frame.f_back
    return False


def ask_people(
    context: Context,
    *,
    subject: str,
    body: str,
    options: Sequence[str],
    form: Mapping[str, Param],
    users: Sequence[str],
) -> str:
    """Show a question in Airflow's UI, for this task instance; its answer ends the deferral that must follow.

    Returns the subject that is shown: a task that has asked before, in an earlier try or life, shows what it asked
    first. Airflow (seen in 3.3.2) keeps the question with the task instance, and takes no other.

    :param body: Markdown.
    :param form: fields beside the options.
    :param users: ids of those who may answer; with none, everybody who may act on the DAG.
    """
    from airflow.sdk.execution_time.comms import CreateHITLDetailPayload
    from airflow.sdk.execution_time.hitl import HITLUser, upsert_hitl_detail
    from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

    asker = context["ti"].id
    upsert_hitl_detail(
        ti_id=asker,
        subject=subject,
        body=body,
        options=list(options),
        params={name: field.serialize() for name, field in form.items()},
        assigned_users=[HITLUser(id=user, name=user) for user in users],
    )
    # Asked again, Airflow changes nothing and tells what it shows; the function above keeps that to itself.
    again = CreateHITLDetailPayload(ti_id=asker, subject=subject, options=list(options), params={}, assigned_users=[])
    shown: Any = SUPERVISOR_COMMS.send(again)
    return str(getattr(shown, "subject", subject))


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a person answered to `ask_people`."""

    option: str
    form: Mapping[str, Any]
    by: str
    at: datetime


async def answer_event(task_instance_id: str) -> dict[str, Any] | None:
    """Return the event of an answer as Airflow 3.3 resumes a deferred task with it by itself; None before there is one.

    Older versions leave it to the trigger to find the answer; so does 3.3 if it came before the deferral. A task that
    was cleared has another id: nobody can answer the question any more.

    :raises AirflowRuntimeError: Airflow does not tell, or there is no such question.
    """

    def look() -> Any:
        from airflow.sdk.execution_time.hitl import get_hitl_detail_content_detail

        return get_hitl_detail_content_detail(ti_id=UUID(task_instance_id))

    detail = await in_thread(look)
    if not detail.response_received or not detail.chosen_options:
        return None
    user = detail.responded_by_user
    return {
        "chosen_options": list(detail.chosen_options),
        "params_input": dict(detail.params_input or {}),
        "responded_at": detail.responded_at,
        "responded_by_user": {"id": user.id, "name": user.name} if user else None,
    }


def answer_of(event: Mapping[str, Any]) -> Answer | None:
    """Return the answer that an event tells of, None if it tells of something else."""
    if not event.get("chosen_options"):
        return None
    user, at = event.get("responded_by_user") or {}, event["responded_at"]
    return Answer(
        option=event["chosen_options"][0],
        form=event.get("params_input") or {},
        by=str(user.get("name") or user.get("id") or ""),
        at=at if isinstance(at, datetime) else datetime.fromisoformat(at),
    )


async def push_xcom(task_instance: Any, key: str, value: Any) -> None:
    """Set an XCom of a deferred task from its trigger; every version's triggerer takes it, none has a method for it."""
    ti = task_instance

    def push() -> None:
        from airflow.sdk.execution_time.xcom import XCom

        XCom.set(key=key, value=value, dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=ti.map_index)

    await in_thread(push)


__all__ = [
    "ASKS_PEOPLE", "FAILED_TRIGGER_METHOD", "TRIGGER_HAS_ON_KILL", "TRIGGER_TIMED_OUT", "AirflowException",
    "AirflowFailException", "AirflowNotFoundException", "AirflowRuntimeError", "AirflowSensorTimeout",
    "AirflowSkipException", "Answer", "Asset", "BaseEventTrigger", "BaseOperator", "BaseOperatorLink",
    "BaseSensorOperator", "BaseTrigger", "Context", "Param", "PokeReturnValue", "TriggerEvent", "answer_event",
    "answer_of", "ask_people", "deployment_url", "follow_only", "in_thread", "killed_by_user", "push_xcom", "put_off",
    "was_taken_away", "without_null_outputs",
]  # fmt: skip
