"""Nothing outlives the local AWS: no process, no port; not after a stop, not after a kill."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from trainer import Trainer

from airflow_dlaws.local.leftovers import ProcessRecord, ServerRecord, record_child
from airflow_dlaws.local.process import LocalAws, LocalAwsError


@pytest.fixture(params=["auto", "env"])
def own_aws(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LocalAws]:
    """A local AWS of the test's own, with namespaces and without."""
    aws = LocalAws(tmp_path / "state", time_scale=0.05, environment={"DLAWS_LOCAL_ISOLATION": request.param})
    aws.start()
    yield aws
    aws.stop()


def train_for_ever(aws: LocalAws) -> str:
    """Start a job that does not end; return the text by which its processes are known."""
    aws.client("s3").create_bucket(Bucket="leftovers")
    trainer = Trainer(aws, "leftovers")
    mark = f"3600.{time.monotonic_ns()}"
    name = trainer.start(f"echo ready; (setsid sleep {mark} &) ; sleep {mark}", instances=2)
    trainer.wait(name, lambda job: job["SecondaryStatus"] == "Training" and len(trainer.logs(name)) == 2)
    assert running(mark)
    return mark


def running(mark: str) -> list[int]:
    """Return the processes that have `mark` in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def refuses_connections(url: str) -> bool:
    """Tell whether nobody listens at `url`."""
    port = urlsplit(url).port
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(port or 0))) != 0


def test_a_stop_ends_running_jobs_and_frees_the_port(own_aws: LocalAws) -> None:
    url, mark = own_aws.endpoint_url, train_for_ever(own_aws)
    assert own_aws.children()
    assert own_aws.stop()
    assert running(mark) == []
    assert own_aws.children() == []
    assert refuses_connections(url)
    assert not own_aws.stop()


def test_a_killed_server_leaves_no_job_behind(own_aws: LocalAws) -> None:
    url, mark = own_aws.endpoint_url, train_for_ever(own_aws)
    record = ServerRecord.read(own_aws.state_dir)
    assert record
    os.kill(record.pid, signal.SIGKILL)
    eventually(lambda: running(mark) == [])
    assert refuses_connections(url)
    with pytest.raises(LocalAwsError, match="no local AWS is running"):
        own_aws.client("s3")
    again = LocalAws(own_aws.state_dir)
    again.start()
    assert again.health()["status"] == "ok"
    again.stop()


def test_a_stop_ends_recorded_children_that_lost_their_server(tmp_path: Path) -> None:
    child = subprocess.Popen(["sleep", "3600"], start_new_session=True)
    record_child(tmp_path, child.pid)
    LocalAws(tmp_path).stop()
    assert child.wait(timeout=10) == -signal.SIGTERM


def test_a_process_id_that_was_used_again_is_left_alone(tmp_path: Path) -> None:
    child = subprocess.Popen(["sleep", "3600"], start_new_session=True)
    try:
        other = ProcessRecord(pid=child.pid, started="1")
        assert not other.alive
        other.end()
        assert child.poll() is None
        assert ProcessRecord.of(child.pid).alive
    finally:
        child.kill()
        child.wait()


def test_the_server_ends_with_the_program_that_started_it(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys; from airflow_dlaws.local.process import LocalAws\n"
        "aws = LocalAws(pathlib.Path(sys.argv[1])); aws.start(); print(aws.endpoint_url, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    started = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, timeout=60)
    url = started.stdout.strip()
    assert url.startswith("http://127.0.0.1:"), started.stderr
    eventually(lambda: refuses_connections(url))


def test_two_servers_cannot_share_a_folder(own_aws: LocalAws) -> None:
    with pytest.raises(LocalAwsError, match=r"is running in .* stop it first"):
        LocalAws(own_aws.state_dir).start()
    assert own_aws.health()["status"] == "ok"


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(LocalAwsError, match=r"(?s)did not start.*[Aa]ddress already in use|in use"):
            LocalAws(tmp_path, port=taken.getsockname()[1]).start()
