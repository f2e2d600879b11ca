"""A training task that is marked, cleared or handed over in moments in which Airflow itself tells nobody."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pluggy
import pytest
from airflow._shared.listeners.spec import taskinstance
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred
from airflow.sdk.execution_time.comms import CommsDecoder, GetVariable, _ResponseFrame
from running_task import RunningTask, airflow_says
from training_task import Training, event_of, trigger_of

from airflow_dlaws._compat import put_off
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.reference import JobStatus, TrainingResult
from airflow_dlaws.jobs.wire import from_json, to_json
from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.plugins import on_kill
from airflow_dlaws.plugins.killed_tasks import KilledTasksListener
from airflow_dlaws.triggers.job import JobEvent, JobEventKind


@pytest.mark.parametrize(("state", "left"), [("deferred", "InProgress"), ("failed", "Stopped")])
def test_a_triggerer_that_has_lost_a_trigger_to_another_one_leaves_its_job_alone(
    training: Training, monkeypatch: pytest.MonkeyPatch, state: str, left: str
) -> None:
    deferred = training.defer("forever.py")
    trigger = trigger_of(deferred)
    trigger.task_instance = training.task()
    airflow_says(monkeypatch, state, training.task())
    # Airflow 3.3.2 calls it for any trigger that its database does not assign to this triggerer any more.
    asyncio.run(trigger.on_kill())
    training.wait_for_jobs(left)
    if left == "InProgress":
        training.sagemaker.stop_training_job(TrainingJobName=deferred.trigger.reference.name)


@pytest.mark.parametrize("mark", ["failed", "success", "skipped"])
def test_a_task_that_is_marked_before_its_trigger_is_taken_up_leaves_no_job_running(
    training: Training, mark: str
) -> None:
    classpath, kwargs = training.defer("forever.py").trigger.serialize()
    row = SimpleNamespace(trigger=SimpleNamespace(classpath=classpath, kwargs=json.loads(json.dumps(kwargs))))
    listeners = pluggy.PluginManager("airflow")
    listeners.add_hookspecs(taskinstance)
    listeners.register(KilledTasksListener())
    details = {"error": None} if mark == "failed" else {}
    getattr(listeners.hook, f"on_task_instance_{mark}")(previous_state=None, task_instance=row, **details)
    training.wait_for_jobs("Stopped")


def test_what_tasks_have_noted_is_ended_one_by_one_and_only_by_triggers_of_this_package(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    training.defer("forever.py")
    noted = training.pushed["dlaws_on_kill"]
    others = {"classpath": "subprocess.run", "kwargs": {"args": ["false"]}}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps([others, noted])))
    assert on_kill.main() == 1
    training.wait_for_jobs("Stopped")
    with pytest.raises(ValueError, match=r"'subprocess\.run' is no trigger of this package"):
        on_kill.call_on_kill(**others)


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_task_that_is_killed_while_its_job_is_being_created_leaves_none_running(
    training: Training, deferrable: bool
) -> None:
    operator = training.operator("forever.py", deferrable=deferrable)
    events = operator.aws.client("sagemaker").meta.events
    events.register("before-call.sagemaker.CreateTrainingJob", lambda **_: operator.on_kill())
    with pytest.raises(AirflowException, match="was killed while it started job") as failed:
        operator.execute(training.task().context)
    assert not isinstance(failed.value, AirflowFailException)
    training.wait_for_jobs("Stopped")


def test_a_kill_that_interrupts_a_question_to_airflow_stops_the_job_without_asking_airflow(training: Training) -> None:
    """Airflow could not be asked for the connection: the process hung until SIGKILL, and the job ran on."""
    seen: list[str] = []

    class AskingTask(RunningTask):
        def xcom_push(self, key: str, value: Any) -> None:
            super().xcom_push(key, value)
            if key == "dlaws_job":
                ask_airflow(lambda: seen.extend(training.jobs()))

    operator = training.operator("forever.py", deferrable=False)
    with on_sigterm(operator.on_kill), pytest.raises(AirflowException, match="was killed"):
        operator.execute(AskingTask("train", run_id=training.run_id, max_tries=2).context)
    assert seen
    assert seen != ["InProgress"]
    training.wait_for_jobs("Stopped")


def test_a_kill_is_put_off_until_a_question_to_airflow_is_answered() -> None:
    heard: list[bool] = []
    answered: list[int] = []
    with on_sigterm(lambda: heard.append(put_off())):
        ask_airflow(lambda: answered.append(len(heard)))
        deadline = time.monotonic() + 30
        while heard[-1]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert all(heard[:-1])
    assert len(heard) > answered[0] >= 1


@contextmanager
def on_sigterm(handle: Callable[[], Any]) -> Iterator[None]:
    former = signal.signal(signal.SIGTERM, lambda *_: handle())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def ask_airflow(before_the_answer: Callable[[], Any]) -> None:
    """Ask a supervisor that kills this process first, and answers a moment later."""
    ours, supervisors = socket.socketpair()

    def answer() -> None:
        supervisors.recv(1 << 16)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)  # in which the signal is heard
        before_the_answer()
        supervisors.sendall(_ResponseFrame(id=0).as_bytes())

    supervisor = threading.Thread(target=answer)
    supervisor.start()
    with ours, supervisors:
        comms: CommsDecoder[Any, Any] = CommsDecoder(socket=ours)
        comms.send(GetVariable(key="any"))
        supervisor.join()


def test_a_task_that_was_marked_while_it_started_its_job_leaves_none_running(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow_says(monkeypatch, "failed", training.task())
    training.defer("forever.py")  # Airflow refuses that, and calls nothing of the task's any more
    training.wait_for_jobs("Stopped")


def test_a_worker_that_is_shut_down_while_a_deferred_task_leaves_it_stops_nothing(training: Training) -> None:
    operator = training.operator()
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(training.task().context)
    operator.on_kill()
    assert training.resume(deferred.value)["job_name"] == deferred.value.trigger.reference.name


def test_a_task_cleared_while_airflow_fails_it_for_its_trigger_trains_again(training: Training) -> None:
    first = training.train()
    cleared = training.task(try_number=2, max_tries=3)
    with pytest.raises(TaskDeferred) as again:
        training.operator().resume_execution("__fail__", {"error": "Trigger timeout"}, cleared.context)
    second = from_json(TrainingResult, training.resume(again.value, task=cleared))
    assert first.job_name != second.job_name


def test_news_of_another_job_is_no_news_of_this_one(training: Training) -> None:
    """Airflow on SQLite gives the id of a deleted trigger to the next one, and its last event with it."""
    deferred = training.defer("forever.py")
    for kind in JobEventKind:
        told = to_json(JobEvent(kind=kind, job="of-a-former-life", status=JobStatus(phase=JobPhase.SUCCEEDED)))
        with pytest.raises(TaskDeferred) as again:
            training.go_on(deferred, told, "forever.py")
        assert again.value.trigger.reference == deferred.trigger.reference
    assert training.jobs() == ["InProgress"]
    training.sagemaker.stop_training_job(TrainingJobName=deferred.trigger.reference.name)


def test_a_cleared_task_has_its_whole_time_to_wait_for_capacity(training: Training, local_aws: LocalAws) -> None:
    fields: dict[str, Any] = {"capacity_wait": timedelta(hours=1)}
    local_aws.order_fault(kind="capacity", target="CreateTrainingJob")
    try:
        first = training.defer(**fields)
        with pytest.raises(TaskDeferred):
            training.go_on(first, asyncio.run(event_of(trigger_of(first))), "good.py", **fields)
        training.pushed["dlaws_shortage"]["since"] -= 7200
        # It is cleared while it asks again: what it has pushed is there, for Airflow 3.3.2 resumes its next life.
        cleared = training.task(try_number=2, max_tries=3)
        with pytest.raises(TaskDeferred) as again:
            training.operator(**fields).resume_execution("ask_again", {"event": {}}, cleared.context)
        event = asyncio.run(event_of(trigger_of(again.value)))
        with pytest.raises(TaskDeferred) as paused:
            training.go_on(again.value, event, "good.py", task=cleared, **fields)
    finally:
        local_aws.clear_faults()
    assert paused.value.method_name == "ask_again"
