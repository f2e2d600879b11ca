"""Many triggers in one event loop, on real jobs of the local AWS: one poller looks for them all."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from running_task import aws_environment
from trainer import Trainer

from airflow_dlaws.hooks import aws
from airflow_dlaws.jobs.reference import JobReference
from airflow_dlaws.jobs.wire import to_json
from airflow_dlaws.launchers.poll_plan import FEW_JOBS
from airflow_dlaws.launchers.watch import Look
from airflow_dlaws.triggers import polling
from airflow_dlaws.triggers.job import JobTrigger

JOBS = FEW_JOBS + 2
#: No retries inside boto: what the service says is what the poller sees.
NO_RETRIES = {"retries": {"mode": "standard", "total_max_attempts": 1}}


class Listener(JobTrigger):
    """A trigger that also remembers the lines it reports."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lines: list[str] = []

    def _report(self, look: Look) -> None:
        super()._report(look)
        self.lines += look.lines


@pytest.fixture(autouse=True)
def _environment(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    aws_environment(monkeypatch, trainer.aws)


def trigger(name: str, **changes: Any) -> Listener:
    reference = JobReference(engine="sagemaker", name=name, arn=f"arn:{name}", region="us-east-1")
    return Listener(
        **{
            "connection": {"aws_conn_id": None, "botocore_config": NO_RETRIES},
            "reference": to_json(reference),
            "poll_interval": 0.2,
            "deadline": time.time() + 120,
            **changes,
        }
    )


async def event_of(waiting: JobTrigger) -> Any:
    (payload,) = [event.payload async for event in waiting.run()]
    return payload


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def numbered_lines(number: int) -> str:
    return f"for line in 1 2 3 4 5; do echo job {number} line $line; sleep 0.2; done"


def start_all(trainer: Trainer) -> list[Listener]:
    return [trigger(trainer.start(numbered_lines(number))) for number in range(JOBS)]


def assert_each_heard_its_own_job(waiting: list[Listener], events: list[Any]) -> None:
    for number, (each, event) in enumerate(zip(waiting, events, strict=True)):
        assert event["kind"] == "finished"
        assert event["status"]["phase"] == "succeeded"
        spoken = [re.sub(r"^\[algo-1\] ", "", line) for line in each.lines if " line " in line]
        assert spoken == [f"job {number} line {line}" for line in range(1, 6)]


def test_each_task_hears_the_lines_and_the_end_of_its_own_job(trainer: Trainer) -> None:
    waiting = start_all(trainer)

    async def all_events() -> list[Any]:
        events = await asyncio.gather(*map(event_of, waiting))
        assert polling._POLLERS[asyncio.get_running_loop()] == {}  # it has ended with the last job
        return events

    assert_each_heard_its_own_job(waiting, asyncio.run(all_events()))


def test_every_third_call_throttled_fails_nothing(trainer: Trainer) -> None:
    waiting = start_all(trainer)
    trainer.aws.order_fault(kind="throttle", target="*", every=3)
    try:
        events = asyncio.run(_gathered(waiting))
    finally:
        trainer.aws.clear_faults()
    assert_each_heard_its_own_job(waiting, events)


def test_without_permission_to_list_the_jobs_are_described(trainer: Trainer) -> None:
    waiting = start_all(trainer)
    trainer.aws.order_fault(kind="error", target="ListTrainingJobs", code="AccessDeniedException", message="no")
    try:
        events = asyncio.run(_gathered(waiting))
    finally:
        trainer.aws.clear_faults()
    assert_each_heard_its_own_job(waiting, events)


def test_changed_credentials_are_read_anew_after_a_refusal(trainer: Trainer) -> None:
    waiting = start_all(trainer)
    trainer.aws.order_fault(kind="error", target="*", times=2, code="ExpiredTokenException", message="expired")
    before = aws.shared_clients(waiting[0].connection)
    try:
        events = asyncio.run(_gathered(waiting))
    finally:
        trainer.aws.clear_faults()
    assert_each_heard_its_own_job(waiting, events)
    assert aws.shared_clients(waiting[0].connection) is not before


def test_one_cancelled_trigger_does_not_disturb_the_others(trainer: Trainer) -> None:
    waiting = start_all(trainer)
    endless = trigger(trainer.start("echo ready; sleep 600"))

    async def cancel_one() -> list[Any]:
        tasks = [asyncio.ensure_future(event_of(each)) for each in waiting]
        cancelled = asyncio.ensure_future(event_of(endless))
        await until(lambda: bool(endless.lines))
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        return list(await asyncio.gather(*tasks))

    assert_each_heard_its_own_job(waiting, asyncio.run(cancel_one()))
    assert trainer.describe(endless.reference.name)["TrainingJobStatus"] == "InProgress"
    trainer.sagemaker.stop_training_job(TrainingJobName=endless.reference.name)


def test_a_job_that_is_not_there_is_lost_and_the_others_are_not(trainer: Trainer) -> None:
    waiting = start_all(trainer)
    missing = trigger("no-such-job")
    *events, lost = asyncio.run(_gathered([*waiting, missing]))
    assert lost["kind"] == "lost"
    assert "no-such-job" in lost["message"]
    assert_each_heard_its_own_job(waiting, events)


def test_two_that_wait_for_the_same_job_both_hear_of_its_end(trainer: Trainer) -> None:
    name = trainer.start(numbered_lines(0))
    events = asyncio.run(_gathered([trigger(name), trigger(name)]))
    assert [event["kind"] for event in events] == ["finished", "finished"]


def test_each_deadline_is_its_own(trainer: Trainer) -> None:
    waiting = start_all(trainer)
    endless = trigger(trainer.start("sleep 600"), deadline=time.time() + 2)
    *events, late = asyncio.run(_gathered([*waiting, endless]))
    assert late["kind"] == "deadline"
    assert_each_heard_its_own_job(waiting, events)
    assert trainer.wait(endless.reference.name)["TrainingJobStatus"] == "Stopped"


async def _gathered(waiting: list[Listener]) -> list[Any]:
    return list(await asyncio.gather(*map(event_of, waiting)))
