"""`dlaws local up|status|down` as a user types it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import boto3
import pytest

from airflow_dlaws.local.process import LocalAws


def dlaws(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in `folder`."""
    command = [sys.executable, "-m", "airflow_dlaws.cli", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_up_status_and_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    up = dlaws("local", "up", folder=tmp_path)
    try:
        assert up.returncode == 0, up.stderr
        for line in up.stdout.splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            monkeypatch.setenv(name, value)
        assert boto3.client("s3").list_buckets()["Buckets"] == []
        status = dlaws("local", "status", "--json", folder=tmp_path)
        assert status.returncode == 0
        assert json.loads(status.stdout)["endpoint_url"] == os.environ["AWS_ENDPOINT_URL"]
        for more in ((), ("--foreground",)):
            again = dlaws("local", "up", *more, folder=tmp_path)
            assert again.returncode == 1
            assert "stop it first" in again.stderr
        assert dlaws("local", "status", folder=tmp_path).returncode == 0
    finally:
        down = dlaws("local", "down", folder=tmp_path)
    assert (down.returncode, down.stdout) == (0, "ended\n")
    assert dlaws("local", "status", folder=tmp_path).returncode == 1
    assert json.loads(dlaws("local", "down", "--json", folder=tmp_path).stdout) == {"ran": False}
    assert [path.name for path in tmp_path.iterdir()] == [".dlaws"]


@pytest.mark.parametrize("trapped", ["", "trap '' INT; "], ids=["by a person", "by a script in the background"])
def test_in_the_foreground_it_ends_with_ctrl_c(tmp_path: Path, trapped: str) -> None:
    up = f"{trapped}exec {sys.executable} -m airflow_dlaws.cli local up --foreground --json"
    command = ["bash", "-c", up]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert json.loads(process.stdout.readline())["running"]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
    aws, deadline = LocalAws(tmp_path / ".dlaws" / "local"), time.monotonic() + 20
    while aws.running:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--image=nonsense", "is no PATTERN=FOLDER with an existing folder"),
        ("--port=70000", "is no port; give 0"),
        ("--time-scale=-1", "is no time scale"),
    ],
)
def test_a_bad_option_is_refused_before_anything_starts(tmp_path: Path, option: str, words: str) -> None:
    answer = dlaws("local", "up", option, folder=tmp_path)
    assert answer.returncode == 2
    assert words in answer.stderr
    assert list(tmp_path.iterdir()) == []
