"""The program `train` of our images: what SageMaker runs where a job names no program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from airflow_dlaws.jobs import container_entry

TRAIN = Path(__file__).parents[3] / "training_scripts" / "train"


def run(base: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `train` as in a container whose /opt/ml is `base`."""
    variables = {"SAGEMAKER_BASE_DIR": str(base), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        [TRAIN], env={**variables, **environment}, capture_output=True, text=True, timeout=30, check=False
    )


def channel(base: Path, **hyperparameters: str) -> None:
    """Put a script that prints its arguments and the entry program into the code channel."""
    code, config = base / "input/data/code", base / "input/config"
    code.mkdir(parents=True)
    config.mkdir(parents=True)
    script = "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ['SM_HPS'], os.environ['SM_NUM_CPUS']]))"
    (code / "fit.py").write_text(script)
    (code / "dlaws_entry.py").write_bytes(Path(container_entry.__file__).read_bytes())
    (config / "resourceconfig.json").write_text(json.dumps({"current_host": "algo-1", "hosts": ["algo-1"]}))
    (config / "hyperparameters.json").write_text(json.dumps(hyperparameters))


def test_it_runs_the_script_of_the_code_channel_without_what_the_tuner_adds(tmp_path: Path) -> None:
    channel(tmp_path, lr="0.1", _tuning_objective_metric="loss")
    done = run(tmp_path, DLAWS_ENTRY_POINT="fit.py", DLAWS_ARGUMENTS='["--last", "a b"]')
    assert done.returncode == 0, done.stderr
    arguments, hyperparameters, _ = json.loads(done.stdout.splitlines()[-1])
    assert arguments == ["--lr", "0.1", "--last", "a b"]
    assert json.loads(hyperparameters) == {"lr": "0.1"}


def test_without_a_code_channel_it_says_what_to_do(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 2
    assert "start the job with airflow-dlaws" in done.stderr
    assert (tmp_path / "output/failure").read_text() == done.stderr


def test_without_the_variables_it_says_how_it_is_used(tmp_path: Path) -> None:
    channel(tmp_path)
    done = run(tmp_path)
    assert done.returncode == 1
    assert "usage: dlaws_entry.py" in done.stderr


def test_the_number_of_processes_travels_as_a_variable() -> None:
    variables = {"DLAWS_ENTRY_POINT": "fit.py", "DLAWS_PROCESSES_PER_HOST": "4"}
    assert container_entry.parse(container_entry.arguments_of(variables)) == ("4", "fit.py", [])
