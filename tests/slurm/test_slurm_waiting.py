"""Many triggers in one event loop wait for jobs on a real Slurm: one command looks for them all."""

from __future__ import annotations

import asyncio
import functools
import time
import uuid
from pathlib import Path
from typing import Any

import job_spec
import pytest
from launcher_contract import any_task
from running_task import aws_environment
from slurm_cluster import SlurmCluster

from airflow_dlaws.hooks.ssh import SshShell
from airflow_dlaws.jobs.reference import JobReference
from airflow_dlaws.jobs.slurm_spec import SlurmCluster as Cluster
from airflow_dlaws.jobs.slurm_spec import SlurmSpec
from airflow_dlaws.jobs.wire import to_json
from airflow_dlaws.launchers.shell import DEFAULT_LIMIT_S, Answer
from airflow_dlaws.launchers.slurm import SlurmLauncher
from airflow_dlaws.launchers.watch import Look
from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.triggers import polling
from airflow_dlaws.triggers.job import JobTrigger

JOBS = 8


class Listener(JobTrigger):
    """A trigger that also remembers the lines it reports."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lines: list[str] = []

    def _report(self, look: Look) -> None:
        super()._report(look)
        self.lines += look.lines


def trigger(reference: JobReference) -> Listener:
    return Listener(
        connection={"aws_conn_id": None},
        reference=to_json(reference),
        poll_interval=0.5,
        deadline=time.time() + 120,
    )


def test_each_of_many_tasks_hears_of_its_own_job_and_all_are_looked_for_together(
    cluster: SlurmCluster,
    local_aws: LocalAws,
    shell: SshShell,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    aws_environment(monkeypatch, local_aws)
    launcher = SlurmLauncher(functools.cache(local_aws.client), lambda _: shell)
    place = Cluster(address="ssh://slurm_head", work_dir=str(cluster.shared / uuid.uuid4().hex[:8]))
    spec = SlurmSpec(
        cluster=place,
        source=str(job_spec.write_scripts(tmp_path / "code")),
        entry_point="talks.py",
        arguments=("3",),
        output_s3_uri=f"s3://{bucket}/models",
    )
    waiting = [trigger(launcher.submit(spec, any_task()).reference) for _ in range(JOBS)]
    asked, run = list[str](), SshShell.run

    def counted(self: SshShell, script: str, *, limit_s: float = DEFAULT_LIMIT_S) -> Answer:
        asked.append(script)
        return run(self, script, limit_s=limit_s)

    monkeypatch.setattr(SshShell, "run", counted)

    async def event_of(each: JobTrigger) -> Any:
        (payload,) = [event.payload async for event in each.run()]
        return payload

    async def events() -> list[Any]:
        found = await asyncio.gather(*map(event_of, waiting))
        assert polling._POLLERS[asyncio.get_running_loop()] == {}  # it has ended with the last job
        return list(found)

    for each, event in zip(waiting, asyncio.run(events()), strict=True):
        assert (event["kind"], event["status"]["phase"]) == ("finished", "succeeded")
        assert [line for line in each.lines if "line " in line] == [f"[algo-1] line {number} é" for number in range(3)]
    looks = [script for script in asked if "squeue" in script and "printf 'N|" in script]
    assert any(all(each.reference.name in script for each in waiting) for script in looks), (
        "they are asked for together"
    )
