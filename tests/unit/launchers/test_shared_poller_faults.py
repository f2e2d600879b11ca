"""What nobody has foreseen: one job's trouble is no other's, and a clock that is set back stops nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_dlaws.jobs.phase import SAGEMAKER_PHASES, JobPhase
from airflow_dlaws.jobs.reference import JobReference, JobStatus
from airflow_dlaws.launchers import poller as module
from airflow_dlaws.launchers.job_list import ListedJob, ListPage, Stretch, read_page
from airflow_dlaws.launchers.poll_plan import FEW_JOBS
from airflow_dlaws.launchers.poller import SharedPoller
from airflow_dlaws.launchers.protocol import LogCursor, LogPage, LogTask, SharedLogPage

CREATED = datetime(2026, 11, 1, tzinfo=UTC)
NAMES = [f"job-{number}" for number in range(FEW_JOBS + 2)]


class Account:
    """An account in memory; the description of a job in `broken` is one that this package cannot read."""

    def __init__(self) -> None:
        self.jobs = dict.fromkeys(NAMES, JobPhase.RUNNING)
        self.broken: set[str] = set()
        self.asked = 0

    def describe(self, reference: JobReference) -> JobStatus:
        self.asked += 1
        if reference.name in self.broken:
            raise KeyError("a status of the future")
        return JobStatus(phase=self.jobs[reference.name], created_at=CREATED)

    def list_page(self, stretch: Stretch) -> ListPage:
        self.asked += 1
        return ListPage(rows=tuple(ListedJob(name=n, phase=p, created_at=CREATED) for n, p in self.jobs.items()))

    def log_lines(self, reference: JobReference, cursor: LogCursor) -> LogPage:
        return LogPage(lines=(), cursor=cursor)

    def read_logs(self, tasks: Sequence[LogTask], now_ms: int) -> SharedLogPage:
        return SharedLogPage(pages={})

    def recent_streams(self, token: str | None = None) -> tuple[tuple[str, ...], str | None]:
        return (), None


async def end_of(shared: SharedPoller, name: str) -> JobPhase:
    reference = JobReference(engine="sagemaker", name=name, arn=name, region="us-east-1")
    async with shared.watching(reference, poll_interval=0.05, cursor=LogCursor()) as seat:
        while True:
            look = await seat.look()
            if look.status is not None and look.status.terminal:
                return look.status.phase


def poller(account: Account) -> SharedPoller:
    return SharedPoller(lambda: account, in_thread=asyncio.to_thread, renew=lambda: None)


def test_a_description_that_cannot_be_read_fails_its_own_task_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIST_SPACING_S", 0.01)
    account = Account()
    account.broken = {NAMES[0]}
    account.jobs[NAMES[0]] = JobPhase.SUCCEEDED

    async def run() -> list[Any]:
        shared = poller(account)
        waiting = [asyncio.create_task(end_of(shared, name)) for name in NAMES]
        with pytest.raises(KeyError, match="future"):
            await waiting[0]
        account.jobs = dict.fromkeys(NAMES, JobPhase.SUCCEEDED)
        return await asyncio.wait_for(asyncio.gather(*waiting[1:]), 20)

    assert asyncio.run(run()) == [JobPhase.SUCCEEDED] * (len(NAMES) - 1)


def test_a_clock_that_is_set_back_by_an_hour_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIST_SPACING_S", 0.01)
    account, real = Account(), time.time

    async def run() -> list[Any]:
        shared = poller(account)
        waiting = [asyncio.create_task(end_of(shared, name)) for name in NAMES]
        while account.asked < 2:
            await asyncio.sleep(0.01)
        monkeypatch.setattr(time, "time", lambda: real() - 3600)
        account.jobs = dict.fromkeys(NAMES, JobPhase.SUCCEEDED)
        return await asyncio.wait_for(asyncio.gather(*waiting), 10)

    assert asyncio.run(run()) == [JobPhase.SUCCEEDED] * len(NAMES)


def test_a_row_with_an_unknown_status_is_left_out_of_the_list() -> None:
    rows = [
        {"Name": name, "Status": status, "CreationTime": CREATED}
        for name, status in (("theirs", "Hibernating"), ("ours", "InProgress"))
    ]
    page = read_page({"Rows": rows}, rows="Rows", name="Name", status="Status", phases=SAGEMAKER_PHASES)
    assert [row.name for row in page.rows] == ["ours"]
