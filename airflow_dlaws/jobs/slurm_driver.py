"""The program that runs a training job on a Slurm cluster. Standard library only; Python 3.9 or newer runs it.

It travels as `dlaws_slurm.py`, beside the script and `dlaws_entry.py`:

    python3 dlaws_slurm.py job FOLDER     the batch script, on the first node: begins, watches and ends the job
    python3 dlaws_slurm.py host FOLDER    what it has srun start once on each node: one host of the job

FOLDER is the job's own, on a file system that all nodes share. It holds order.json, what was asked for, and gets

    claim          symbolic link to the id of the one Slurm job that may run here
    start, end     one line of JSON each: when it began, and how it ended
    model/         SM_MODEL_DIR of all hosts; output-data/ the same for SM_OUTPUT_DATA_DIR
    hosts/algo-N/  what is /opt/ml elsewhere, for one host
    archives/      model.tar.gz and output.tar.gz

A job that Slurm begins anew (its node failed, it was preempted) starts over with these, and keeps its checkpoints.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

METRICS_KEY = "dlaws_metrics"
#: What a job may take to end after SIGKILL before this program gives up on srun.
KILL_LIMIT_S = 30
#: How often this program looks whether it was asked to stop.
LOOK_EVERY_S = 2
#: Above the ports that services listen on, below those that Linux hands out to clients.
MASTER_PORTS = (20000, 12000)


def main(argv: list[str]) -> int:
    """Do one of the two parts; return the exit code."""
    if len(argv) != 2 or argv[0] not in ("job", "host"):
        raise SystemExit(f"usage: dlaws_slurm.py job|host FOLDER, not {argv}")
    folder = Path(argv[1])
    order = json.loads((folder / "order.json").read_text())
    if argv[0] == "host":
        return start_host(folder, order)
    if not claim(folder, os.environ["SLURM_JOB_ID"]):
        return 0
    return Job(folder, order).run()


def claim(folder: Path, job_id: str) -> bool:
    """Tell whether this Slurm job is the one that may run here: the first that asks, also when it begins anew.

    Slurm knows no unique names. A submission that was cut off and repeated can leave two jobs in the queue.
    """
    try:
        (folder / "claim").symlink_to(job_id)
    except FileExistsError:
        return str((folder / "claim").readlink()) == job_id
    return True


class Job:
    """One life of the job, from its beginning on the first node to its end."""

    def __init__(self, folder: Path, order: dict[str, Any]) -> None:
        self.folder, self.order = folder, order
        self.restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        self.asked_to_stop = False

    def run(self) -> int:
        """Run the job and write down how it ended; return its exit code."""
        if has_completed(self.folder):  # queued again after its last act: its node failed, or somebody asked for it
            return 0
        signal.signal(signal.SIGTERM, self._stop)
        # Slurm's own limit counts the copying of data too.
        deadline = time.time() + self.order["max_runtime_s"]
        self._begin()
        try:
            if not fetch_channels(self.folder, self.order, lambda: bool(self._why_to_end(deadline))):
                return self._end(143, detail=self._why_to_end(deadline), reason="")
        except ChannelError as error:
            return self._end(1, detail="Failed", reason=f"ClientError: {error}")
        steps = subprocess.Popen(srun_command(self.folder, self.order))
        detail = self._watch(steps, deadline)
        return self._end(steps.returncode if steps.returncode is not None else 137, detail=detail, reason="")

    def _stop(self, _number: int, _frame: object) -> None:
        self.asked_to_stop = True

    def _begin(self) -> None:
        now, start, log = int(time.time()), self.folder / "start", self.folder / "log"
        first, earlier = now, 0
        if start.exists():  # the life before this one has lasted until its last word
            before = json.loads(start.read_text())
            first = before["first"]
            earlier = before["earlier_s"] + max(0, int(before_end(self.folder, log)) - before["at"])
        for name in ("model", "output-data", "hosts", "archives", "data"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for name in ("model", "output-data", "hosts", "archives"):
            (self.folder / name).mkdir(exist_ok=True)  # NFS keeps a file that a dying process has open
        Path(self.order["checkpoint_dir"]).mkdir(parents=True, exist_ok=True)
        write_json(start, {"at": now, "first": first, "earlier_s": earlier, "restarts": self.restarts})

    def _why_to_end(self, deadline: float) -> str:
        """Tell why the job must end, if it must."""
        # A signal that came before this program could hear it has left its mark in the folder.
        self.asked_to_stop = self.asked_to_stop or (self.folder / "stop").exists()
        if self.asked_to_stop:
            return "Stopped"
        return "MaxRuntimeExceeded" if time.time() >= deadline else ""

    def _watch(self, steps: subprocess.Popen[bytes], deadline: float) -> str:
        """Wait for the hosts; have them end at the deadline or when asked to. Return why they were ended, if so."""
        detail = ""
        kill_at = give_up_at = float("inf")
        look_at = 0.0
        while steps.poll() is None and time.time() < give_up_at:
            now = time.time()
            if not detail and (self.asked_to_stop or now >= min(look_at, deadline)):
                look_at = now + LOOK_EVERY_S
                detail = self._why_to_end(deadline)
                if detail:
                    kill_at = now + self.order["grace_s"]
                    signal_steps("TERM")
            if now >= kill_at:
                kill_at, give_up_at = float("inf"), now + KILL_LIMIT_S
                signal_steps("KILL")
            time.sleep(0.2)
        if steps.poll() is None:
            steps.kill()
        return detail

    def _end(self, code: int, *, detail: str, reason: str) -> int:
        """Pack what was written and say how the job ended; the last act."""
        phase = "Failed"
        if not reason and code == 0 and not detail:
            phase, detail = "Completed", "Completed"
        elif detail in ("Stopped", "MaxRuntimeExceeded"):
            phase = "Stopped"
        else:
            detail, reason = "Failed", reason or f"AlgorithmError: {failure(self.folder, code)}, exit code: {code}"
        try:
            for source, name in (("model", "model"), ("output-data", "output")):
                pack(self.folder / source, self.folder / "archives" / f"{name}.tar.gz")
        except (OSError, tarfile.TarError) as error:  # another job would be paid for to end like this
            reason = reason or f"ClientError: what the job has written could not be packed: {error}"
            phase, detail = ("Failed", "Failed") if phase == "Completed" else (phase, detail)
        shutil.rmtree(self.folder / "data", ignore_errors=True)
        document = {"phase": phase, "detail": detail, "reason": reason[:1024], "at": int(time.time())}
        metrics = last_metrics(self.folder / "log", self.order["metrics"])
        write_json(self.folder / "end", {**document, "restarts": self.restarts, "metrics": metrics})
        return 0 if phase == "Completed" else (code or 143)


def has_completed(folder: Path) -> bool:
    """Tell whether an earlier life of the job has done all there was to do."""
    end = folder / "end"
    return end.exists() and json.loads(end.read_text())["phase"] == "Completed"


def before_end(folder: Path, log: Path) -> float:
    """Return when the life before this one gave its last sign."""
    end = folder / "end"
    signs = [path.stat().st_mtime for path in (end,) if path.exists()] or [
        path.stat().st_mtime for path in (log,) if path.exists()
    ]
    return max(signs, default=0.0)


class ChannelError(Exception):
    """A channel's data could not be had."""


def fetch_channels(folder: Path, order: dict[str, Any], must_end: Callable[[], bool]) -> bool:
    """Copy the channels that lie in S3 to the job's folder; look whether the others are there.

    Return whether all is there; False where the job must end first: copying may take hours.

    :raises ChannelError: no such data.
    """
    for name, uri in order["channels"].items():
        if uri.startswith("s3://"):
            if not copy_from_s3(uri, folder / "data" / name, name, must_end):
                return False
        elif not Path(uri).exists():
            raise ChannelError(f"channel {name!r}: {uri} is not there on node {os.environ.get('SLURMD_NODENAME')}")
    return True


def copy_from_s3(uri: str, target: Path, name: str, must_end: Callable[[], bool]) -> bool:
    """Copy what lies under a prefix, with the AWS CLI and this node's credentials; False if it was to end first."""
    target.mkdir(parents=True, exist_ok=True)
    # Releases of the CLI before 2.13 do not read this variable.
    endpoint = ["--endpoint-url", os.environ["AWS_ENDPOINT_URL"]] if os.environ.get("AWS_ENDPOINT_URL") else []
    command = ["aws", *endpoint, "s3", "cp", "--recursive", "--only-show-errors", uri, str(target)]
    with tempfile.TemporaryFile() as output:
        try:
            copying = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        except FileNotFoundError:
            raise ChannelError(f"channel {name!r}: {uri} needs the AWS CLI (`aws`) on the nodes' path") from None
        while copying.poll() is None:
            if must_end():
                copying.kill()
                copying.wait()
                return False
            time.sleep(0.2)
        output.seek(0)
        words = output.read().decode(errors="replace").strip()[-500:] or "there are no objects"
    if copying.returncode != 0 or not any(target.rglob("*")):
        raise ChannelError(f"channel {name!r}: {uri} could not be copied: {words}")
    return True


def srun_command(folder: Path, order: dict[str, Any]) -> list[str]:
    """Return the command that starts one host on each node; if one ends with an error, the others are ended too."""
    count = str(order["nodes"])
    command = ["srun", "--label", "--kill-on-bad-exit=1", "--nodes", count, "--ntasks", count, "--ntasks-per-node=1"]
    python = order["python"]
    if order["image"]:
        shared = {str(folder), order["code"], order["checkpoint_dir"]}
        shared |= {uri for uri in order["channels"].values() if not uri.startswith("s3://")}
        mounts = ",".join(f"{path}:{path}" for path in sorted(shared))
        command += [f"--container-image={order['image']}", f"--container-mounts={mounts}"]
        python = "python3"
    return [*command, python, "-u", f"{order['code']}/dlaws_slurm.py", "host", str(folder)]


def signal_steps(name: str) -> None:
    """Send a signal to the hosts, and not to this program."""
    subprocess.run(["scancel", f"--signal={name}", os.environ["SLURM_JOB_ID"]], check=False)


def start_host(folder: Path, order: dict[str, Any]) -> int:
    """Lay out what a script expects under /opt/ml, and become the entry program."""
    rank, count = int(os.environ["SLURM_PROCID"]), order["nodes"]
    hosts = [f"algo-{number}" for number in range(1, count + 1)]
    base = folder / "hosts" / hosts[rank]
    links = {
        "input/data/code": order["code"],
        "model": str(folder / "model"),
        "output/data": str(folder / "output-data"),
        "checkpoints": order["checkpoint_dir"],
        **{
            f"input/data/{name}": str(folder / "data" / name) if uri.startswith("s3://") else uri
            for name, uri in order["channels"].items()
        },
    }
    for name, target in links.items():
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).symlink_to(target)
    channels = {name: {"TrainingInputMode": "File"} for name in ("code", *order["channels"])}
    config = base / "input" / "config"
    config.mkdir(parents=True)
    write_json(config / "resourceconfig.json", {"current_host": hosts[rank], "hosts": hosts})
    write_json(config / "hyperparameters.json", order["hyperparameters"])
    write_json(config / "inputdataconfig.json", channels)
    environment = {
        "PYTHONDONTWRITEBYTECODE": "1",  # several jobs and users read the same code
        **os.environ,
        **order["environment"],
        "SAGEMAKER_BASE_DIR": str(base),
        # srun runs on the first node, which is the master; jobs that share a node must not share a port.
        "DLAWS_MASTER_ADDR": os.environ.get("SLURM_LAUNCH_NODE_IPADDR", hosts[0]),
        "DLAWS_MASTER_PORT": str(MASTER_PORTS[0] + int(os.environ["SLURM_JOB_ID"]) % MASTER_PORTS[1]),
    }
    entry = [sys.executable, "-u", f"{order['code']}/dlaws_entry.py", "--nproc-per-node", str(order["processes"])]
    sys.stdout.flush()
    os.execve(sys.executable, [*entry, order["entry_point"], *order["arguments"]], environment)


def failure(folder: Path, code: int) -> str:
    """Return the last words of the host that failed first: the others only followed."""
    files = sorted((folder / "hosts").glob("*/output/failure"), key=lambda path: path.stat().st_mtime_ns)
    return files[0].read_text().strip() if files else f"the hosts ended with exit code {code} and left no last words"


def pack(source: Path, archive: Path) -> None:
    """Pack a folder's entries into a .tar.gz, whole or not at all."""
    partial = archive.with_name(archive.name + ".partial")
    with tarfile.open(partial, "w:gz", compresslevel=1) as packed:
        for path in sorted(source.iterdir()):
            packed.add(path, arcname=path.name)
    partial.replace(archive)


def last_metrics(log: Path, names: list[str]) -> dict[str, float]:
    """Return the last value of each named metric in the log; the line's format is that of `metric_line.py`."""
    found: dict[str, float] = {}
    if not names or not log.exists():
        return found
    with log.open(errors="replace") as lines:
        for line in lines:
            start = line.find('{"' + METRICS_KEY + '"')
            if start >= 0:
                found.update(metrics_of(line[start:]))
    return {name: found[name] for name in names if name in found}


def metrics_of(text: str) -> dict[str, float]:
    """Read one metric line; a broken line reports none."""
    try:
        return {str(name): float(value) for name, value in json.loads(text)[METRICS_KEY].items()}
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError):
        return {}


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a document as one line, so that a reader sees it whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(document) + "\n")
    partial.replace(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
