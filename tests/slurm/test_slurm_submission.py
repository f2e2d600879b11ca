"""A submission that is killed at any line neither blocks the next nor doubles the job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

import pytest
from slurm_cluster import SlurmCluster

from airflow_dlaws.launchers.slurm_request import driver_program
from airflow_dlaws.launchers.slurm_scripts import JobScript, look_script, read_look, submit_script

#: bash kills itself, as the kernel would, before the Nth command.
KILLER = "commands=0\ntrap 'commands=$((commands + 1)); [ $commands -ne {number} ] || kill -9 $$' DEBUG\n"
NOBODY = 65534
#: bash does something else before the Nth command.
MEANWHILE = "commands=0\ntrap 'commands=$((commands + 1)); [ $commands -ne {number} ] || {command}' DEBUG\n"


def job_script(work_dir: Path, name: str) -> JobScript:
    order = {"checkpoint_dir": str(work_dir / "checkpoints"), "channels": {"x": "/no/such/path"}, "metrics": []}
    return JobScript(
        name=name, digest="d1", holder="h1", output="s3://bucket/x", code="code", code_url="http://127.0.0.1:9/none",
        python=sys.executable, options={"nodes": "1"}, order=order,
    )  # fmt: skip


def bash(script: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def test_a_submission_killed_before_any_of_its_commands_leaves_one_job_to_the_next(cluster: SlurmCluster) -> None:
    work_dir = cluster.shared / uuid.uuid4().hex[:8]
    code = work_dir / "code/code"
    code.mkdir(parents=True)
    (code / "dlaws_slurm.py").write_bytes(driver_program())
    number, killed = 0, True
    while killed:
        number += 1
        name = f"killed-{work_dir.name}-{number}"
        script = submit_script(str(work_dir), job_script(work_dir, name))
        killed = bash(KILLER.format(number=number) + script, cluster.environment).returncode == -9
        again = bash(script, cluster.environment)
        assert again.returncode == 0, again.stderr
        assert len(cluster.jobs(name)) == 1, f"killed before command {number}: {again.stdout}"
        assert json.loads((work_dir / name / "order.json").read_text())["metrics"] == []
    assert number > 20


def test_a_job_that_is_submitted_while_somebody_looks_does_not_pass_for_forgotten(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    work_dir = cluster.shared / uuid.uuid4().hex[:8]
    code = work_dir / "code/code"
    code.mkdir(parents=True)
    (code / "dlaws_slurm.py").write_bytes(driver_program())
    number, submitted = 0, True
    while submitted:
        number += 1
        name = f"looked-at-{work_dir.name}-{number}"
        (work_dir / name).mkdir()  # as a submission that was killed leaves it
        (tmp_path / name).write_text(submit_script(str(work_dir), job_script(work_dir, name)))
        meanwhile = MEANWHILE.format(number=number, command=f"bash {tmp_path / name} >/dev/null")
        seen = bash(meanwhile + look_script(str(work_dir), [name]), cluster.environment)
        assert seen.returncode == 0, seen.stderr
        submitted = (work_dir / name / "id").exists()
        sighting = read_look(seen.stdout, [name])[name]
        assert not sighting.exists or "does not know" not in sighting.status.reason, f"submitted at command {number}"
    assert number > 5


def test_what_a_profile_hides_from_the_screen_is_seen(cluster: SlurmCluster) -> None:
    name = f"filtered-{uuid.uuid4().hex[:8]}"
    what = (f"--job-name={name}", "--hold", "--chdir=/tmp", "--output=/dev/null", "--wrap=true")
    job_id = cluster.run("sbatch", "--parsable", *what).strip()
    looked = bash(look_script("/tmp", [name]), {**cluster.environment, "SQUEUE_PARTITION": "closed"})
    cluster.run("scancel", job_id)
    assert read_look(looked.stdout, [name])[name].row is not None, looked.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="Slurm hides nothing from its own user, and only root may be another one")
def test_a_job_in_a_hidden_partition_is_seen(cluster: SlurmCluster) -> None:
    name = f"hidden-{uuid.uuid4().hex[:8]}"
    cluster.folder.chmod(0o755)  # the configuration and munge's socket are in it
    what = (f"--job-name={name}", "--partition=hidden", "--hold", "--chdir=/tmp", "--output=/dev/null", "--wrap=true")
    job_id = cluster.run("sbatch", "--parsable", f"--uid={NOBODY}", *what).strip()
    as_nobody = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    looked = subprocess.run(
        [*as_nobody, "bash", "-c", look_script("/tmp", [name])],
        env=cluster.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    cluster.run("scancel", job_id)
    row = read_look(looked.stdout, [name])[name].row
    assert row is not None, looked.stderr
    assert (row.job_id, row.state) == (job_id, "PENDING")


@pytest.mark.parametrize("again", [1, 2])
def test_of_two_slurm_jobs_of_one_name_one_runs(cluster: SlurmCluster, again: int) -> None:
    work_dir = cluster.shared / uuid.uuid4().hex[:8]
    code, job = work_dir / "code/code", work_dir / "twin"
    for folder in (code, job):
        folder.mkdir(parents=True)
    (code / "dlaws_slurm.py").write_bytes(driver_program())
    (job / "order.json").write_text(json.dumps(job_script(work_dir, "twin").order))
    command = f"exec {sys.executable} {code}/dlaws_slurm.py job {job}"
    options = ("--parsable", "--nodes=1", f"--output={job}/log", "--open-mode=append", f"--wrap={command}")
    ids = [cluster.run("sbatch", "--job-name=twin", *options).strip() for _ in range(again + 1)]
    states = {"COMPLETED", "FAILED"}
    cluster.wait_until(lambda: all(row[1] in states for row in cluster.jobs("twin") if row[0] in ids))
    ended = dict(row for row in cluster.jobs("twin") if row[0] in ids)
    # The one that may run fails, as its channel is missing; the others leave without a word.
    assert sorted(ended.values()) == [*["COMPLETED"] * again, "FAILED"]
    assert ended[str((job / "claim").readlink())] == "FAILED"
