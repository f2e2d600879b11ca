"""`make demo` and `make demo-down`, as a newcomer types them: what the report says, and what is left behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import psutil
import pytest

ROOT = Path(__file__).parent.parent.parent
#: The loop's bar is eight minutes on two cores; fetching the flights and a busy machine come on top.
LIMIT_S = 840

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(LIMIT_S + 120)]


class Demo:
    """One run of the demo in a folder of its own, which is the home and the temporary folder of all it starts too."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "user"
        self.home.mkdir()
        (folder / "tmp").mkdir()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `dlaws demo` to its end."""
        command = [
            sys.executable,
            "-m",
            "airflow_dlaws.cli",
            "demo",
            "--home",
            "demo",
            "--cache",
            str(ROOT / ".dlaws/cache"),
        ]
        environment = {**os.environ, "HOME": str(self.home), "TMPDIR": str(self.folder / "tmp")}
        environment.pop("AIRFLOW_HOME", None)
        return subprocess.run(
            [*command, *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    def processes(self) -> list[psutil.Process]:
        """Return the running processes that work in this folder or name it."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and (
                    str(self.folder) in " ".join([process.cwd(), *process.cmdline()]) and process.pid != os.getpid()
                ):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Play the demo once."""
    demo = Demo(tmp_path_factory.mktemp("demo"))
    done = demo.run()
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        demo.report = json.loads((demo.folder / "demo-report.json").read_text())  # type: ignore[attr-defined]
        demo.said = done.stdout  # type: ignore[attr-defined]
        yield demo
    finally:
        demo.run("--down")


def test_the_loop_ends_in_time_and_says_where_to_look(demo: Any) -> None:
    assert demo.report["passed"] is True
    assert demo.report["loop_seconds"] < 480
    url = next(line.split()[-1] for line in demo.said.splitlines() if line.startswith("Airflow UI:"))
    with urlopen(url, timeout=30) as answer:
        assert b"Airflow" in answer.read()
    assert (demo.folder / "demo-report.html").read_text().count("<svg") == 4


def test_the_sensor_found_drift_and_its_asset_event_started_one_retrain(demo: Any) -> None:
    drift, promotion = demo.report["drift"], demo.report["promotion"]
    assert [feature["name"] for feature in drift["features"]]
    assert drift["window_from"] <= drift["window_to"]
    assert drift["rows"] >= 4000
    assert all(row["failed_requests"] == 0 for row in drift["replayed"])
    assert promotion["run"].startswith("asset_triggered__")


def test_every_task_that_trains_has_exactly_one_job(demo: Any) -> None:
    rows = demo.report["jobs_per_task"]
    assert {(row["dag"], row["task"]) for row in rows} == {
        ("retrain_on_drift", "train"),
        ("retrain_on_drift", "evaluate"),
    }
    assert len(rows) == 4
    assert {row["jobs"] for row in rows} == {1}
    hosts = {job["task"]: job["hosts"] for job in demo.report["training_jobs"]}
    assert hosts == {"train": 2, "evaluate": 1}


def test_the_challenger_was_better_on_the_same_rows_and_is_in_service(demo: Any) -> None:
    promotion = demo.report["promotion"]
    evaluation = promotion["results"]["evaluate"]
    assert evaluation["verdict"] == "better"
    assert evaluation["challenger"]["log_loss"] < evaluation["champion"]["log_loss"]
    assert evaluation["rows"] > 20_000
    assert evaluation["champion_endpoint_config"] == promotion["before"]["endpoint_config"]
    requested = promotion["results"]["roll_out"]["endpoint_config_name"]
    assert promotion["live"] == {"endpoint_config": requested, "status": "InService", "pending": False}
    assert promotion["traffic"]["failed"] == 0
    assert promotion["traffic"]["requests"] > 300


def test_the_bad_model_was_refused_and_the_task_is_red_and_says_why(demo: Any) -> None:
    refusal = demo.report["refusal"]
    assert refusal["tasks"]["roll_out"] == "failed"
    assert refusal["live"] == refusal["before"]
    assert refusal["before"]["endpoint_config"] == demo.report["promotion"]["live"]["endpoint_config"]
    assert "does harm" in refusal["reason"]
    assert 0 < refusal["traffic"]["failed"] < refusal["traffic"]["requests"] / 4


def test_after_demo_down_nothing_runs_listens_or_lies_outside(demo: Any) -> None:
    urls = [line.split()[-1] for line in demo.said.splitlines() if line.startswith("Airflow UI:")]
    urls.append(json.loads((demo.folder / "demo/aws/server.json").read_text())["endpoint_url"])
    assert len(demo.processes()) > 5
    assert demo.run("--down").returncode == 0
    assert demo.processes() == []
    for url in urls:
        with socket.socket() as probe:
            assert probe.connect_ex((urlsplit(url).hostname, urlsplit(url).port)) != 0, f"{url} still listens"
    assert sorted(path.name for path in demo.folder.iterdir()) == [
        "demo",
        "demo-report.html",
        "demo-report.json",
        "tmp",
        "user",
    ]
    assert list(demo.home.iterdir()) == []
    assert list((demo.folder / "tmp").iterdir()) == []
