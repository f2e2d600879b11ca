"""The program that runs a job on a cluster's first node, as Slurm starts it: here while it copies a channel from S3."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_dlaws.jobs import slurm_driver


def start(folder: Path, *, max_runtime_s: int) -> subprocess.Popen[bytes]:
    """Start a job whose channel takes a minute to copy."""
    order = {
        "channels": {"train": "s3://bucket/large/"}, "checkpoint_dir": str(folder / "checkpoints"), "metrics": [],
        "max_runtime_s": max_runtime_s, "grace_s": 5,
    }  # fmt: skip
    (folder / "order.json").write_text(json.dumps(order))
    slow = folder / "bin" / "aws"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    environment = {**os.environ, "PATH": f"{slow.parent}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    return subprocess.Popen([sys.executable, slurm_driver.__file__, "job", str(folder)], env=environment)


def end_of(job: subprocess.Popen[bytes], folder: Path) -> dict[str, Any]:
    try:
        job.wait(15)
    finally:
        job.kill()
    return dict(json.loads((folder / "end").read_text()))


@pytest.mark.parametrize("how", ["signal", "file"])
def test_a_job_that_is_stopped_while_it_copies_its_data_ends_at_once(tmp_path: Path, how: str) -> None:
    job = start(tmp_path, max_runtime_s=3600)
    until = time.monotonic() + 15
    while not (tmp_path / "data/train").exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    if how == "signal":
        job.terminate()
    else:
        (tmp_path / "stop").write_text("1\n")
    assert (end_of(job, tmp_path)["phase"], job.returncode) == ("Stopped", 143)


def test_a_job_that_has_completed_and_is_queued_again_keeps_what_it_has_made(tmp_path: Path) -> None:
    told = {"phase": "Completed", "detail": "Completed", "reason": "", "at": 1, "restarts": 0, "metrics": {}}
    (tmp_path / "end").write_text(json.dumps(told))
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model.pt").write_text("trained")
    job = start(tmp_path, max_runtime_s=3600)
    assert (end_of(job, tmp_path), job.returncode) == (told, 0)
    assert (tmp_path / "model/model.pt").read_text() == "trained"


def test_the_time_that_copying_takes_counts(tmp_path: Path) -> None:
    job = start(tmp_path, max_runtime_s=1)
    told = end_of(job, tmp_path)
    assert (told["phase"], told["detail"]) == ("Stopped", "MaxRuntimeExceeded")
