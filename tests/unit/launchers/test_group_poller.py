"""Jobs of an engine without a list, looked at together: few questions, and one job's trouble is no other's."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from airflow_dlaws.errors import NoSuchJob, ServiceRefused, ServiceUnavailable
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.reference import JobReference, JobStatus
from airflow_dlaws.launchers.group_poller import GroupPoller
from airflow_dlaws.launchers.protocol import LogCursor, LogPage
from airflow_dlaws.launchers.watch import REFUSALS_TOLERATED, Look

#: Short, so that a test sees many rounds.
INTERVAL = 0.02


def reference(name: str) -> JobReference:
    return JobReference(engine="cluster", name=name, arn=f"cluster://head/{name}", region="us-east-1")


@dataclass
class Cluster:
    """A cluster in memory: its jobs, the lines they have printed, and what it was asked."""

    jobs: dict[str, JobPhase]
    lines: dict[str, list[str]] = field(default_factory=dict)
    log_group: str = ""
    portion: int = 200
    #: What a question runs into: it may raise.
    trouble: Callable[[Sequence[str]], None] = lambda names: None
    questions: list[int] = field(default_factory=list)
    threads: Counter[int] = field(default_factory=Counter)
    at_once: int = 0

    def group(self, reference: JobReference) -> str:
        return "cluster"

    def describe_many(self, references: Sequence[JobReference]) -> dict[JobReference, JobStatus]:
        self.at_once += 1
        self.questions.append(len(references))
        try:
            assert self.at_once == 1
            self.trouble([each.name for each in references])
            return {each: JobStatus(phase=self.jobs[each.name]) for each in references if each.name in self.jobs}
        finally:
            self.at_once -= 1

    def log_lines(self, reference: JobReference, cursor: LogCursor) -> LogPage:
        self.threads[threading.get_ident()] += 1
        lines = self.lines.get(reference.name, [])
        return LogPage(lines=tuple(lines[cursor.offset :]), cursor=LogCursor(offset=len(lines)))


def poller(cluster: Cluster, renewals: list[int] | None = None) -> GroupPoller:
    renewed = renewals if renewals is not None else []
    return GroupPoller(
        lambda: cluster,
        portion=cluster.portion,
        log_spacing=0.0,
        in_thread=asyncio.to_thread,
        renew=lambda: renewed.append(1),
    )


async def heard(of: GroupPoller, name: str) -> list[Look]:
    """Wait for a job to its end; return all that was told of it."""
    looks = []
    async with of.watching(reference(name), poll_interval=INTERVAL, cursor=LogCursor()) as seat:
        while True:
            looks.append(await seat.look())
            status = looks[-1].status
            if status is not None and status.terminal:
                return looks


def lines_of(looks: Sequence[Look]) -> list[str]:
    return [line for look in looks for line in look.lines]


def test_a_thousand_jobs_are_seen_with_a_handful_of_questions_and_each_hears_its_own_end() -> None:
    names = [f"job-{number}" for number in range(1000)]
    cluster = Cluster(dict.fromkeys(names, JobPhase.RUNNING), lines={name: [f"{name} began"] for name in names})

    async def all_of_them() -> list[list[Look]]:
        shared = poller(cluster)
        waiting = [asyncio.create_task(heard(shared, name)) for name in names]
        while len(cluster.questions) < 5:
            await asyncio.sleep(0.01)
        assert cluster.questions[:5] == [200] * 5
        for name in names:
            cluster.lines[name].append(f"{name} ended")
            cluster.jobs[name] = JobPhase.SUCCEEDED
        told = list(await asyncio.gather(*waiting))
        assert shared.idle
        return told

    for name, looks in zip(names, asyncio.run(all_of_them()), strict=True):
        assert lines_of(looks) == [f"{name} began", f"{name} ended"]


def test_throttling_on_every_third_question_fails_nothing() -> None:
    cluster = Cluster({"a": JobPhase.RUNNING, "b": JobPhase.RUNNING}, portion=1)

    def throttle(_: Sequence[str]) -> None:
        if len(cluster.questions) % 3 == 0:
            raise ServiceUnavailable("slow down")
        if len(cluster.questions) > 9:
            cluster.jobs = dict.fromkeys(cluster.jobs, JobPhase.SUCCEEDED)

    cluster.trouble = throttle

    async def both() -> list[list[Look]]:
        shared = poller(cluster)
        return list(await asyncio.gather(heard(shared, "a"), heard(shared, "b")))

    for looks in asyncio.run(both()):
        assert [look.status.phase for look in looks if look.status] == [JobPhase.RUNNING, JobPhase.SUCCEEDED]


@pytest.mark.parametrize("error", [ServiceRefused("not yours"), KeyError("a state of the future")])
def test_what_befalls_one_job_is_its_own_trouble(error: Exception) -> None:
    cluster = Cluster({"bad": JobPhase.RUNNING, "good": JobPhase.RUNNING}, portion=1)

    def refuse(names: Sequence[str]) -> None:
        if "bad" in names:
            raise error

    cluster.trouble = refuse

    async def both() -> list[Look]:
        shared = poller(cluster)
        good = asyncio.create_task(heard(shared, "good"))
        with pytest.raises(type(error)):
            await heard(shared, "bad")
        cluster.jobs["good"] = JobPhase.SUCCEEDED
        return await good

    assert asyncio.run(both())[-1].note == ""


def test_a_job_that_is_not_there_is_given_up_after_some_looks_and_credentials_are_not_blamed() -> None:
    cluster, renewals = Cluster({"here": JobPhase.RUNNING}), list[int]()

    async def both() -> None:
        shared = poller(cluster, renewals)
        here = asyncio.create_task(heard(shared, "here"))
        with pytest.raises(NoSuchJob, match="gone"):
            await heard(shared, "gone")
        cluster.jobs["here"] = JobPhase.SUCCEEDED
        await here

    asyncio.run(both())
    assert REFUSALS_TOLERATED <= len(cluster.questions) <= REFUSALS_TOLERATED + 3
    assert renewals == []


def test_a_head_node_that_does_not_answer_keeps_one_thread_busy_and_not_all() -> None:
    names = [f"job-{number}" for number in range(300)]
    cluster, silence = Cluster(dict.fromkeys(names, JobPhase.RUNNING)), threading.Event()
    cluster.trouble = lambda _: (silence.wait(20), None)[1]

    async def others_go_on() -> float:
        shared = poller(cluster)
        waiting = [asyncio.create_task(heard(shared, name)) for name in names]
        while not cluster.questions:
            await asyncio.sleep(0.01)
        began = time.monotonic()
        await asyncio.to_thread(lambda: None)  # as the pollers of other connections do
        took = time.monotonic() - began
        cluster.jobs = dict.fromkeys(names, JobPhase.STOPPED)
        silence.set()
        await asyncio.gather(*waiting)
        return took

    assert asyncio.run(others_go_on()) < 1.0


def test_who_leaves_is_not_looked_for_any_more_and_the_last_one_ends_the_polling() -> None:
    cluster = Cluster({"a": JobPhase.RUNNING})

    async def leave() -> int:
        shared = poller(cluster)
        waiting = asyncio.create_task(heard(shared, "a"))
        while not cluster.questions:
            await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        asked = len(cluster.questions)
        await asyncio.sleep(5 * INTERVAL)
        assert shared.idle
        return len(cluster.questions) - asked

    assert asyncio.run(leave()) == 0


def test_who_waits_is_told_when_the_polling_ends_unasked() -> None:
    cluster = Cluster({"a": JobPhase.RUNNING})

    async def cancelled() -> None:
        shared = poller(cluster)
        waiting = asyncio.create_task(heard(shared, "a"))
        while not cluster.questions:
            await asyncio.sleep(0.01)
        assert shared._task is not None
        shared._task.cancel()
        with pytest.raises(ServiceUnavailable, match="has ended"):
            await asyncio.wait_for(waiting, 5)

    asyncio.run(cancelled())


def test_who_comes_while_the_last_one_leaves_is_heard() -> None:
    cluster = Cluster({"a": JobPhase.RUNNING, "b": JobPhase.SUCCEEDED})

    async def change() -> list[Look]:
        shared = poller(cluster)
        waiting = asyncio.create_task(heard(shared, "a"))
        while not cluster.questions:
            await asyncio.sleep(0.01)
        waiting.cancel()
        return (await asyncio.gather(waiting, heard(shared, "b"), return_exceptions=True))[1]  # type: ignore[return-value]

    assert asyncio.run(asyncio.wait_for(change(), 5))[-1].status is not None
