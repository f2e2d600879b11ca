"""The program that starts scripts in the container, run as a program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_dlaws.jobs import container_entry

HOSTS = ["algo-1", "algo-2"]


class Container:
    """A folder that looks like /opt/ml, and the entry program in its code channel."""

    def __init__(self, base: Path, script: str, hosts: list[str], hyperparameters: dict[str, str]) -> None:
        self.base = base
        code, config = base / "input/data/code", base / "input/config"
        code.mkdir(parents=True)
        config.mkdir(parents=True)
        (base / "input/data/train").mkdir()
        (code / "train.py").write_text(script)
        (code / "dlaws_entry.py").write_bytes(Path(container_entry.__file__).read_bytes())
        resources = {"current_host": hosts[0], "hosts": hosts, "network_interface_name": "no-such-interface"}
        (config / "resourceconfig.json").write_text(json.dumps(resources))
        (config / "hyperparameters.json").write_text(json.dumps(hyperparameters))
        (config / "inputdataconfig.json").write_text(json.dumps({"train": {}, "code": {}}))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        entry = str(self.base / "input/data/code/dlaws_entry.py")
        return subprocess.Popen(
            [sys.executable, "-S", entry, "--nproc-per-node", "1", "train.py", *arguments],
            env={"SAGEMAKER_BASE_DIR": str(self.base), "PATH": os.environ["PATH"]},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def failure(self) -> str:
        return (self.base / "output/failure").read_text()


def container(tmp_path: Path, script: str, **hyperparameters: str) -> Container:
    return Container(tmp_path / "ml", script, ["algo-1"], hyperparameters)


def test_the_script_gets_hyperparameters_arguments_and_variables(tmp_path: Path) -> None:
    script = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]))"
    box = container(tmp_path, script, lr="0.1", epochs="3")
    output, _ = box.start("--last").communicate(timeout=30)
    arguments, variables, folder = json.loads(output.splitlines()[-1])
    assert arguments == ["--epochs", "3", "--lr", "0.1", "--last"]
    assert folder == str(box.base / "input/data/code")
    assert variables["SM_MODEL_DIR"] == str(box.base / "model")
    assert variables["SM_OUTPUT_DATA_DIR"] == str(box.base / "output/data")
    assert variables["SM_CHANNEL_TRAIN"] == str(box.base / "input/data/train")
    assert json.loads(variables["SM_HOSTS"]) == ["algo-1"]
    assert json.loads(variables["SM_HPS"]) == {"lr": "0.1", "epochs": "3"}
    assert variables["SM_HP_LR"] == "0.1"
    assert Path(variables["SM_MODEL_DIR"]).is_dir()


def test_argparse_reads_a_negative_number_of_any_size(tmp_path: Path) -> None:
    script = (
        "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('--shift', type=float)\n"
        "parser.add_argument('--epochs', type=int)\nprint(parser.parse_args())"
    )
    output, _ = container(tmp_path, script, shift=str(-1e-5), epochs="3").start().communicate(timeout=30)
    assert output.splitlines()[-1] == "Namespace(shift=-1e-05, epochs=3)"


def test_a_script_that_raises_leaves_its_error_and_its_exit_code(tmp_path: Path) -> None:
    box = container(tmp_path, "def f():\n    raise ValueError('label column is empty')\nf()")
    process = box.start()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "Traceback" in errors
    assert box.failure.startswith("ValueError: label column is empty\n")
    assert "train.py" in box.failure
    assert len(box.failure) <= 1024


def test_the_exit_code_of_the_script_is_kept(tmp_path: Path) -> None:
    box = container(tmp_path, "import sys; print('no disk', file=sys.stderr); sys.exit(7)")
    process = box.start()
    process.communicate(timeout=30)
    assert process.returncode == 7
    assert box.failure == "the script ended with exit code 7\nno disk"


def test_a_failure_file_of_the_script_itself_is_kept(tmp_path: Path) -> None:
    script = "import os\nopen(os.environ['SM_OUTPUT_DIR'] + '/failure', 'w').write('mine')\nraise SystemExit(1)"
    box = container(tmp_path, script)
    box.start().communicate(timeout=30)
    assert box.failure == "mine"


def test_a_killed_script_is_reported_with_its_signal(tmp_path: Path) -> None:
    box = container(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    process = box.start()
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGKILL
    assert "killed by signal 9 (out of memory?)" in box.failure


def test_the_job_ends_with_its_script_whatever_that_has_left_running(tmp_path: Path) -> None:
    script = "import subprocess, sys\nprint('bye', file=sys.stderr)\nprint(subprocess.Popen(['sleep', '60']).pid)\n"
    box = container(tmp_path, f"{script}sys.stdout.flush()\nsys.exit(3)")
    process = box.start()
    assert process.stdout is not None
    process.stdout.readline()  # what is run
    left = int(process.stdout.readline())
    try:
        assert process.wait(timeout=30) == 3
        assert box.failure == "the script ended with exit code 3\nbye"
    finally:
        os.kill(left, signal.SIGKILL)


def test_a_stop_is_passed_on_and_is_no_failure(tmp_path: Path) -> None:
    script = (
        "import pathlib, signal, sys, time\n"
        "def stop(*_):\n    pathlib.Path('stopped').touch()\n    sys.exit(3)\n"
        "signal.signal(signal.SIGTERM, stop)\npathlib.Path('ready').touch()\n"
        "while True:\n    time.sleep(0.01)\n"
    )
    box = container(tmp_path, script)
    code = box.base / "input/data/code"
    process = box.start()
    until = time.monotonic() + 20
    while not (code / "ready").exists() and time.monotonic() < until:
        time.sleep(0.01)
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 3
    assert (code / "stopped").exists()
    assert not (box.base / "output/failure").exists()


def launch(hosts: list[str], current: str, processes: int, environment: dict[str, str] | None = None) -> list[str]:
    resources: dict[str, Any] = {"hosts": hosts, "current_host": current}
    return container_entry.launch_command(resources, processes, environment or {})


def test_one_process_in_all_runs_without_torchrun() -> None:
    assert launch(["algo-1"], "algo-1", 1) == [sys.executable, "-u"]


@pytest.mark.parametrize(("hosts", "processes"), [(HOSTS, 1), (["algo-1"], 2), (HOSTS, 8)])
def test_several_processes_run_under_torchrun_with_the_first_host_as_master(hosts: list[str], processes: int) -> None:
    assert launch(hosts, hosts[-1], processes)[2:] == [
        "-m",
        "torch.distributed.run",
        f"--nnodes={len(hosts)}",
        f"--node-rank={len(hosts) - 1}",
        "--master-addr=algo-1",
        "--master-port=7777",
        f"--nproc-per-node={processes}",
    ]


def test_address_and_port_of_the_master_can_be_set() -> None:
    words = launch(HOSTS, "algo-1", 1, {"DLAWS_MASTER_ADDR": "127.0.0.2", "DLAWS_MASTER_PORT": "7001"})
    assert "--master-addr=127.0.0.2" in words
    assert "--master-port=7001" in words


def test_the_first_error_counts_not_the_report_of_torchrun() -> None:
    lines = [
        "[rank0]: Traceback (most recent call last):",
        '[rank0]:   File "train.py", line 3, in <module>',
        "[rank0]: RuntimeError: expected 13 features, got 12",
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: train.py FAILED",
    ]
    assert container_entry.last_words(lines, 1).startswith("RuntimeError: expected 13 features, got 12\n")


def test_wrong_arguments_say_how_to_call_it() -> None:
    with pytest.raises(SystemExit, match="usage"):
        container_entry.parse(["train.py"])


RESOURCES = {"current_group_name": "trainers", "current_instance_type": "ml.p4d.24xlarge"}


@pytest.mark.parametrize(
    ("wanted", "processes"),
    [("4", 4), ("trainers=8,loaders=1", 8), ("ml.g6.12xlarge=4,ml.p4d.24xlarge=2", 2)],
)
def test_a_host_finds_its_number_of_processes_by_group_or_type(wanted: str, processes: int) -> None:
    assert container_entry.parse(["--nproc-per-node", wanted, "train.py"])[0] == wanted
    assert container_entry.processes_here(wanted, RESOURCES) == processes


def test_a_host_that_nothing_is_said_of_does_not_guess() -> None:
    with pytest.raises(SystemExit, match="says nothing of this host"):
        container_entry.processes_here("loaders=1", RESOURCES)
    with pytest.raises(SystemExit, match="usage"):
        container_entry.parse(["--nproc-per-node", "loaders=", "train.py"])
