"""The Slurm launcher against a real Slurm: the contract of all launchers, and what is Slurm's own."""

from __future__ import annotations

import functools
import sys
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import job_spec
import pytest
from launcher_contract import Count, Killed, LauncherContract, Specs
from slurm_cluster import SlurmCluster

from airflow_dlaws.hooks.ssh import SshShell
from airflow_dlaws.jobs.identity import TaskIdentity
from airflow_dlaws.jobs.reference import JobReference
from airflow_dlaws.jobs.slurm_spec import SlurmCluster as Cluster
from airflow_dlaws.jobs.slurm_spec import SlurmSpec
from airflow_dlaws.launchers.protocol import Launcher
from airflow_dlaws.launchers.shell import DEFAULT_LIMIT_S, Answer
from airflow_dlaws.launchers.slurm import SlurmLauncher
from airflow_dlaws.local.process import LocalAws


class DyingShell:
    """Its user is killed when sbatch has just answered."""

    def __init__(self, shell: SshShell) -> None:
        self._shell = shell

    def prepare(self) -> None:
        """See the protocol."""

    def run(self, script: str, *, limit_s: float = DEFAULT_LIMIT_S) -> Answer:
        answer = self._shell.run(script, limit_s=limit_s)
        if "sbatch" in script:
            raise Killed
        return answer


class TestSlurmLauncher(LauncherContract):
    @pytest.fixture
    def launcher(self, local_aws: LocalAws, shell: SshShell) -> Launcher[SlurmSpec]:
        return SlurmLauncher(functools.cache(local_aws.client), lambda _: shell)

    @pytest.fixture
    def dying(self, local_aws: LocalAws, shell: SshShell) -> Launcher[SlurmSpec]:
        return SlurmLauncher(local_aws.client, lambda _: DyingShell(shell))

    @pytest.fixture
    def work_dir(self, cluster: SlurmCluster) -> Path:
        return cluster.shared / uuid.uuid4().hex[:8]

    @pytest.fixture
    def spec(self, cluster: SlurmCluster, work_dir: Path, bucket: str, tmp_path: Path) -> Specs:
        source, data = job_spec.write_scripts(tmp_path / "code"), work_dir / "data"
        data.mkdir(parents=True)
        for name in ("a", "b"):
            (data / name).write_text("1\n")
        place = Cluster(address="ssh://slurm_head", work_dir=str(work_dir), python=sys.executable, grace_s=5)

        def make(script: str = "good.py", **changes: Any) -> SlurmSpec:
            fields: dict[str, Any] = {
                "cluster": place,
                "source": str(source),
                "entry_point": script,
                "output_s3_uri": f"s3://{bucket}/models",
                "channels": {"train": str(data)},
                "max_runtime_s": 120,
            }
            return SlurmSpec(**{**fields, **changes})

        return make

    @pytest.fixture
    def count_jobs(self, cluster: SlurmCluster, work_dir: Path) -> Count:
        def count(task: TaskIdentity) -> int:
            orders = [path for path in work_dir.glob("*/order.json") if task.run_id in path.read_text()]
            return sum(len(cluster.jobs(path.parent.name)) for path in orders)

        return count

    @pytest.fixture
    def taken_name(self, work_dir: Path) -> Callable[[JobReference], None]:
        def take(reference: JobReference) -> None:
            (work_dir / reference.name / "digest").write_text("other\n")

        return take

    @pytest.fixture
    def impossible(self) -> Sequence[tuple[dict[str, Any], str]]:
        return (
            ({"output_s3_uri": "s3://no-such-bucket/models"}, "bucket 'no-such-bucket' does not exist"),
            ({"channels": {"train": "/no/such/folder"}}, "'/no/such/folder'. are not there on the head node"),
            ({"entry_point": "missing.py"}, "entry_point='missing.py' is not in"),
        )
