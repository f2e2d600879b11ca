"""The program that starts a training script inside the container. Standard library only; any image with Python runs it.

It travels as `dlaws_entry.py` in the channel `code`, beside the script:

    python3 /opt/ml/input/data/code/dlaws_entry.py --nproc-per-node G train.py [ARGUMENT ...]

Where hosts differ, G is a list such as `trainers=8,loaders=1`, by instance group or by instance type.

The jobs of SageMaker's hyperparameter tuner cannot be given arguments: without any, it reads the script from
DLAWS_ENTRY_POINT, the processes from DLAWS_PROCESSES_PER_HOST and further arguments, a JSON list, from DLAWS_ARGUMENTS.

It reads the files under /opt/ml/input/config, exports the SM_* variables that scripts expect, passes hyperparameters
on as `--name value`, and runs torchrun with a static rendezvous (the first host is the master), or plain Python where
there is one process in all. It passes SIGTERM on, keeps the script's exit code, and leaves the last words of a script
that failed in /opt/ml/output/failure, from where SageMaker makes the failure reason.

Variables of its own: SAGEMAKER_BASE_DIR in place of /opt/ml, DLAWS_MASTER_ADDR in place of the first host,
DLAWS_MASTER_PORT in place of 7777.
"""

from __future__ import annotations

import collections
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: SageMaker's own PyTorch launcher uses this port, so security groups that allow training allow it.
DEFAULT_MASTER_PORT = "7777"
#: SageMaker reads this much of the failure file.
FAILURE_LENGTH = 1024
#: Of the 120 seconds that SageMaker leaves a container after SIGTERM, those that torchrun leaves a script; its own
#: default of 30 is too short to save a large model.
SHUTDOWN_SECONDS = 100
#: torchrun ends with a report of about 30 lines; the script's own traceback stands before it.
KEPT_LINES = 400

#: What the script has said last is read within this time after its end. The job does not wait, and is not paid for,
#: until processes that the script has left behind have ended too.
DRAIN_SECONDS = 5.0

#: What the tuner tells the container and no script has asked for.
TUNER_HYPERPARAMETER = "_tuning_objective_metric"

_PROCESSES = re.compile(r"\d+|[A-Za-z0-9._-]+=\d+(,[A-Za-z0-9._-]+=\d+)*")
_ERROR_LINE = re.compile(r"^(?:\[rank\d+\]: ?)?((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit)\b.*)$")


def main(argv: list[str]) -> int:
    """Run the script as the job's configuration says; return its exit code."""
    wanted, script, arguments = parse(argv or arguments_of(os.environ))
    base = Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
    resources = _read_json(base / "input/config/resourceconfig.json")
    processes = processes_here(wanted, resources)
    hyperparameters = _read_json(base / "input/config/hyperparameters.json")
    hyperparameters.pop(TUNER_HYPERPARAMETER, None)
    environment = {**os.environ, **sm_variables(base, resources, hyperparameters, processes)}
    folder = Path(__file__).resolve().parent
    words = [str(folder / script), *hyperparameter_arguments(hyperparameters), *arguments]
    command = launch_command(resources, processes, environment) + words
    print("dlaws_entry: " + " ".join(command), flush=True)  # noqa: T201  stdout is the job's log
    return run(command, environment=environment, folder=folder, failure_file=base / "output" / "failure")


def parse(argv: list[str]) -> tuple[str, str, list[str]]:
    """Split the arguments into processes per host, script, and the script's own arguments."""
    if len(argv) < 3 or argv[0] != "--nproc-per-node" or not _PROCESSES.fullmatch(argv[1]):
        raise SystemExit(f"usage: dlaws_entry.py --nproc-per-node G SCRIPT [ARGUMENT ...], not {argv}")
    return argv[1], argv[2], argv[3:]


def processes_here(wanted: str, resources: Mapping[str, Any]) -> int:
    """Return how many processes this host runs, by its instance group, its instance type, or as all hosts do."""
    if wanted.isdigit():
        return int(wanted)
    counts = dict(pair.split("=") for pair in wanted.split(","))
    for key in ("current_group_name", "current_instance_type"):
        if resources.get(key) in counts:
            return int(counts[resources[key]])
    raise SystemExit(f"--nproc-per-node {wanted} says nothing of this host: {dict(resources)}")


def arguments_of(environment: Mapping[str, str]) -> list[str]:
    """Return the arguments that the variables of a tuning job stand for; none where there are none."""
    if "DLAWS_ENTRY_POINT" not in environment:
        return []
    processes, further = environment.get("DLAWS_PROCESSES_PER_HOST", "1"), environment.get("DLAWS_ARGUMENTS", "[]")
    return ["--nproc-per-node", processes, environment["DLAWS_ENTRY_POINT"], *json.loads(further)]


def hyperparameter_arguments(hyperparameters: dict[str, str]) -> list[str]:
    """Return the hyperparameters as `--name value`, in a fixed order; a value with a dash in front as `--name=value`.

    argparse takes "-1e-05" behind a name for an option, and the job ends with exit code 2.
    """
    words: list[str] = []
    for name in sorted(hyperparameters):
        value = str(hyperparameters[name])
        words += [f"--{name}={value}"] if value.startswith("-") else [f"--{name}", value]
    return words


def launch_command(resources: dict[str, Any], processes: int, environment: dict[str, str]) -> list[str]:
    """Return the words before the script: torchrun for several processes in all, plain Python for one."""
    hosts = resources["hosts"]
    if len(hosts) * processes == 1:
        return [sys.executable, "-u"]
    options = {
        "--nnodes": len(hosts),
        "--node-rank": hosts.index(resources["current_host"]),
        "--master-addr": environment.get("DLAWS_MASTER_ADDR", hosts[0]),
        "--master-port": environment.get("DLAWS_MASTER_PORT", DEFAULT_MASTER_PORT),
        "--nproc-per-node": processes,
    }
    torchrun = [sys.executable, "-u", "-m", "torch.distributed.run"]
    return torchrun + [f"{option}={value}" for option, value in options.items()]


def sm_variables(
    base: Path, resources: dict[str, Any], hyperparameters: dict[str, str], processes: int
) -> dict[str, str]:
    """Return the SM_* variables, as SageMaker's own training toolkit names them."""
    data = base / "input" / "data"
    channels = sorted(_read_json(base / "input/config/inputdataconfig.json")) or _folders(data)
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    variables = {
        "SM_MODEL_DIR": base / "model",
        "SM_INPUT_DIR": base / "input",
        "SM_INPUT_CONFIG_DIR": base / "input" / "config",
        "SM_OUTPUT_DIR": base / "output",
        "SM_OUTPUT_DATA_DIR": base / "output" / "data",
        "SM_CHECKPOINT_DIR": base / "checkpoints",
        "SM_HOSTS": json.dumps(resources["hosts"]),
        "SM_CURRENT_HOST": resources["current_host"],
        "SM_CURRENT_INSTANCE_TYPE": resources.get("current_instance_type", ""),
        "SM_CURRENT_INSTANCE_GROUP": resources.get("current_group_name", ""),
        "SM_INSTANCE_GROUPS": json.dumps(resources.get("instance_groups", [])),
        "SM_NETWORK_INTERFACE_NAME": resources.get("network_interface_name", ""),
        "SM_RESOURCE_CONFIG": json.dumps(resources),
        "SM_CHANNELS": json.dumps(channels),
        "SM_HPS": json.dumps(hyperparameters),
        "SM_NUM_GPUS": gpus,
        "SM_NUM_CPUS": os.cpu_count() or 1,
        "SM_PROCESSES_PER_HOST": processes,
        "SM_MODULE_DIR": data / "code",
        **{f"SM_CHANNEL_{_variable(name)}": data / name for name in channels},
        **{f"SM_HP_{_variable(name)}": value for name, value in hyperparameters.items()},
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": os.environ.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", SHUTDOWN_SECONDS),
        **_interface_variables(resources.get("network_interface_name", "")),
    }
    for folder in ("SM_MODEL_DIR", "SM_OUTPUT_DATA_DIR"):
        Path(str(variables[folder])).mkdir(parents=True, exist_ok=True)
    return {name: str(value) for name, value in variables.items()}


def run(command: list[str], *, environment: dict[str, str], folder: Path, failure_file: Path) -> int:
    """Run the command, pass SIGTERM on, and write the failure file where it fails; return its exit code."""
    child = subprocess.Popen(command, env=environment, cwd=folder, stderr=subprocess.PIPE)
    stopped = threading.Event()

    def stop(number: int, _frame: object) -> None:
        stopped.set()
        child.send_signal(number)

    signal.signal(signal.SIGTERM, stop)
    kept: collections.deque[str] = collections.deque(maxlen=KEPT_LINES)
    copier = threading.Thread(target=_copy_errors, args=(child, kept), daemon=True)
    copier.start()
    code = child.wait()
    copier.join(DRAIN_SECONDS)
    if code < 0:
        kept.append(f"the script was killed by signal {-code}" + (" (out of memory?)" if code == -9 else ""))
        code = 128 - code
    if code != 0 and not stopped.is_set() and not failure_file.exists():
        failure_file.parent.mkdir(parents=True, exist_ok=True)
        failure_file.write_text(last_words(list(kept), code))
    return code


def last_words(lines: list[str], code: int) -> str:
    """Return why the script failed: the first error it named and the lines before it, at most 1024 characters.

    The first, because torchrun and the other ranks add errors of their own that only follow from it.
    """
    named = [number for number, line in enumerate(lines) if _ERROR_LINE.match(line) and "ChildFailedError" not in line]
    if not named:
        return "\n".join([f"the script ended with exit code {code}", *lines[-10:]])[-FAILURE_LENGTH:]
    end = named[0]
    match = _ERROR_LINE.match(lines[end])
    error = match.group(1) if match else lines[end]
    return "\n".join([error, *lines[max(0, end - 8) : end]])[:FAILURE_LENGTH]


def _copy_errors(child: subprocess.Popen[bytes], kept: collections.deque[str]) -> None:
    """Copy the child's standard error to ours until it ends; keep the last lines.

    It ends with the last process that has it open: one that the script has left behind may run for ever.
    """
    assert child.stderr is not None
    for line in child.stderr:
        _write_error(line)
        kept.append(line.decode(errors="replace").rstrip())


def _write_error(line: bytes) -> None:
    """Write to standard error without Python's buffer: a thread that holds its lock at the end makes Python abort."""
    while line:
        line = line[os.write(2, line) :]


def _read_json(path: Path) -> dict[str, Any]:
    """Return the document; SageMaker leaves out the files it has nothing to say in."""
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _folders(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir()) if path.is_dir() else []


def _variable(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


def _interface_variables(interface: str) -> dict[str, str]:
    """Point gloo and NCCL to the network between the hosts, where that interface exists here and nobody has chosen."""
    if not interface or not Path("/sys/class/net", interface).exists():
        return {}
    wanted = {"NCCL_SOCKET_IFNAME": interface, "GLOO_SOCKET_IFNAME": interface}
    return {name: value for name, value in wanted.items() if name not in os.environ}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
