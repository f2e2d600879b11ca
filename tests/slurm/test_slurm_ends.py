"""Jobs on a real Slurm that are to end: none runs beside the next, and none comes back."""

from __future__ import annotations

import dataclasses
import functools
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import job_spec
import psutil
import pytest
from launcher_contract import any_task, ended, wait_for
from slurm_cluster import SlurmCluster

from airflow_dlaws.errors import DlawsError, ServiceRefused, ServiceUnavailable
from airflow_dlaws.hooks.ssh import SshShell
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.reference import JobReference
from airflow_dlaws.jobs.slurm_spec import SlurmCluster as Cluster
from airflow_dlaws.jobs.slurm_spec import SlurmSpec
from airflow_dlaws.launchers.sagemaker import SageMakerLauncher
from airflow_dlaws.launchers.shell import Shell
from airflow_dlaws.launchers.slurm import SlurmLauncher
from airflow_dlaws.local.process import LocalAws

#: Notes its lives in the checkpoints; told to end, it takes its time.
SLOW_TO_END = """\
import os, pathlib, signal, sys, time
lives = pathlib.Path(os.environ["SM_CHECKPOINT_DIR"], "lives")
def note(word):
    with lives.open("a") as file:
        file.write(word + "\\n")
def end(*_):
    time.sleep(3)
    note("end")
    sys.exit(1)
signal.signal(signal.SIGTERM, end)
note("begin")
print("begun", flush=True)
time.sleep(600)
"""
#: Hears nothing but SIGKILL.
DEAF = """\
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("begun", flush=True)
time.sleep(600)
"""


@dataclasses.dataclass
class Bench:
    """A folder on the cluster, and what makes specifications for it."""

    launcher: SlurmLauncher
    cluster: SlurmCluster
    source: Path
    bucket: str
    work_dir: Path

    def spec(self, script: str, **changes: Any) -> SlurmSpec:
        place = {"address": "ssh://slurm_head", "work_dir": str(self.work_dir), **changes}
        (self.source / script).write_text({"slow.py": SLOW_TO_END, "deaf.py": DEAF, **job_spec.SCRIPTS}[script])
        return SlurmSpec(
            cluster=Cluster(python=sys.executable, grace_s=10, **place),
            source=str(self.source),
            entry_point=script,
            output_s3_uri=f"s3://{self.bucket}/models",
            max_runtime_s=120,
        )

    def has_begun(self, reference: JobReference) -> None:
        self.cluster.wait_until(lambda: "begun" in " ".join(self.launcher.log_tail(reference, 5)))


@pytest.fixture
def bench(cluster: SlurmCluster, local_aws: LocalAws, shell: SshShell, bucket: str, tmp_path: Path) -> Bench:
    source = tmp_path / "code"
    source.mkdir()
    launcher = SlurmLauncher(functools.cache(local_aws.client), lambda _: shell)
    return Bench(launcher, cluster, source, bucket, cluster.shared / uuid.uuid4().hex[:8])


def test_the_next_try_waits_until_the_job_of_the_one_before_has_written_its_last_checkpoint(bench: Bench) -> None:
    task = any_task()
    first = bench.launcher.submit(bench.spec("slow.py"), task)
    bench.has_begun(first.reference)
    assert bench.launcher.stop(first.reference)
    second = bench.launcher.submit(bench.spec("slow.py"), task)
    assert (second.adopted, second.attempt) == (False, 2)
    assert bench.launcher.describe(first.reference).phase is JobPhase.STOPPED
    bench.has_begun(second.reference)
    (lives,) = bench.work_dir.glob("*/checkpoints/lives")
    assert lives.read_text().split() == ["begin", "end", "begin"]
    bench.launcher.stop(second.reference)


def test_a_job_that_is_stopped_on_its_way_back_into_the_queue_does_not_come_back(bench: Bench) -> None:
    reference = bench.launcher.submit(bench.spec("deaf.py"), any_task()).reference
    bench.has_begun(reference)
    ((job_id, _),) = bench.cluster.jobs(reference.name)
    bench.cluster.run("scontrol", "requeue", job_id)
    bench.cluster.wait_until(lambda: bench.cluster.jobs(reference.name)[0][1] == "COMPLETING")
    assert bench.launcher.stop(reference)
    assert wait_for(bench.launcher, reference, ended).phase is JobPhase.STOPPED
    assert bench.cluster.jobs(reference.name)[0][1] == "CANCELLED"


def test_a_task_that_moves_to_another_cluster_stops_what_it_had_left_on_the_first(bench: Bench) -> None:
    task = any_task()
    first = bench.launcher.submit(bench.spec("forever.py"), task)
    second = bench.launcher.submit(bench.spec("forever.py", address="ssh://slurm_other"), task)
    assert not second.adopted
    assert wait_for(bench.launcher, first.reference, ended).phase is JobPhase.STOPPED
    elsewhere = bench.cluster.shared / uuid.uuid4().hex[:8]
    third = bench.launcher.submit(bench.spec("forever.py", work_dir=str(elsewhere)), task)
    assert wait_for(bench.launcher, second.reference, ended).phase is JobPhase.STOPPED
    bench.launcher.stop(third.reference)


@pytest.mark.parametrize("error", [ServiceRefused("no such connection"), ServiceUnavailable("no route")])
def test_a_cluster_that_is_gone_holds_up_no_task_once_its_connection_is_gone_too(
    bench: Bench, local_aws: LocalAws, shell: SshShell, error: DlawsError
) -> None:
    task = any_task()
    first = bench.launcher.submit(bench.spec("forever.py"), task)

    def moved(address: str) -> Shell:
        if address == "ssh://slurm_head":
            raise error
        return shell

    launcher = SlurmLauncher(functools.cache(local_aws.client), moved)
    there = bench.spec("forever.py", address="ssh://slurm_other", work_dir=str(bench.work_dir / "new"))
    if isinstance(error, ServiceUnavailable):
        with pytest.raises(ServiceUnavailable, match="delete its connection, or set stop_on_kill=False"):
            launcher.submit(there, task)
    else:
        launcher.stop(launcher.submit(there, task).reference)
    bench.launcher.stop(first.reference)


def test_a_task_that_comes_from_sagemaker_stops_what_it_had_left_there(bench: Bench, local_aws: LocalAws) -> None:
    sagemaker, task = SageMakerLauncher(functools.cache(local_aws.client)), any_task()
    local_aws.client("s3").put_object(Bucket=bench.bucket, Key="data/a", Body=b"1\n")
    spec = bench.spec("forever.py")
    first = sagemaker.submit(job_spec.spec(bench.source, bench.bucket, "forever.py"), task)
    second = bench.launcher.submit(spec, task)
    assert wait_for(sagemaker, first.reference, ended).phase is JobPhase.STOPPED
    bench.launcher.stop(second.reference)


def test_a_comment_that_somebody_has_written_on_the_job_hides_it_from_nobody(bench: Bench) -> None:
    reference = bench.launcher.submit(bench.spec("forever.py"), any_task()).reference
    bench.cluster.wait_until(lambda: bench.cluster.jobs(reference.name)[0][1] == "RUNNING")
    ((job_id, _),) = bench.cluster.jobs(reference.name)
    bench.cluster.run("scontrol", "update", f"JobId={job_id}", "Comment=cost centre | 4711\nsee | there")
    assert bench.launcher.describe(reference).phase is JobPhase.RUNNING
    assert bench.launcher.stop(reference)
    assert wait_for(bench.launcher, reference, ended).phase is JobPhase.STOPPED


def test_files_that_are_late_are_waited_for_by_the_clock_of_the_head_node(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = bench.launcher.submit(bench.spec("deaf.py"), any_task()).reference
    bench.has_begun(reference)
    with monkeypatch.context() as skewed:
        skewed.setattr("time.time", _an_hour_ahead())
        words = ["job", str(bench.work_dir / reference.name)]
        (program,) = [each for each in psutil.process_iter(["cmdline"]) if (each.info["cmdline"] or [])[-2:] == words]
        program.kill()  # it leaves no word; as if its last one had not come through yet
        bench.cluster.wait_until(lambda: bench.cluster.jobs(reference.name)[0][1] == "FAILED")
        seen = bench.launcher.describe(reference)
        assert (seen.phase, "files are not seen yet" in seen.detail) == (JobPhase.RUNNING, True)


def _an_hour_ahead() -> Callable[[], float]:
    real = time.time
    return lambda: real() + 3600
