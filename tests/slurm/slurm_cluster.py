"""A real Slurm of two nodes on this machine: munged, slurmctld, two slurmd and an sshd in front, all on loopback.

Debian's packages, not their services: everything lies in one folder, which also is the file system that the nodes
share, and ends with the test session.
"""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from airflow_dlaws.local.sessions import free_ports

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "sshd", "ssh-keygen", "curl", "flock")
#: Debian keeps daemons off an ordinary user's path.
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
START_LIMIT_S = 60.0
STOP_LIMIT_S = 20.0
NODES = ("node1", "node2")
#: More CPUs than any machine of CI has, so that no job waits for another one.
CONF = """\
ClusterName=dlaws
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
# A job that is queued again waits until its old credentials are void.
AuthInfo=socket={folder}/munge/socket,cred_expire=10
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld
SlurmdLogFile={folder}/log/slurmd-%n
# Containers have no cgroups to give away.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
MinJobAge={min_job_age}
KillWait=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=256 RealMemory=100000
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=256 RealMemory=100000
PartitionName=train Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP
PartitionName=urgent Nodes=node1,node2 PriorityTier=10 MaxTime=INFINITE State=UP
PartitionName=hidden Nodes=node1,node2 Hidden=YES MaxTime=INFINITE State=UP
PartitionName=closed Nodes=node1,node2 MaxTime=INFINITE State=INACTIVE
"""
SSHD = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/ssh/host
AuthorizedKeysFile {folder}/ssh/user.pub
PidFile none
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
SetEnv {variables}
"""


def missing_programs() -> str:
    """Say what must be installed for this, or nothing."""
    missing = [name for name in PROGRAMS if not shutil.which(name, path=PATH)]
    packages = "slurmctld slurmd slurm-client munge openssh-server openssh-client curl"
    return f"needs {', '.join(missing)}: apt-get install --no-install-recommends {packages}" if missing else ""


class SlurmCluster:
    """The daemons, and what tests ask of them beside the launcher.

    :param variables: of every user: what is an instance profile on AWS.
    :param min_job_age: seconds after which the controller forgets a job that has ended (Slurm takes no less than 2).
    """

    def __init__(self, *, variables: Mapping[str, str], min_job_age: int = 300) -> None:
        # Short, as Unix sockets are in it; not under pytest's folders.
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        self._ports = free_ports(4)
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._min_job_age, self._variables = min_job_age, variables
        self.environment = {**os.environ, "PATH": PATH, "SLURM_CONF": str(self.folder / "slurm.conf")}

    @property
    def shared(self) -> Path:
        """The folder for work_dir: all nodes see it."""
        return self.folder / "shared"

    def start(self) -> None:
        """Start the daemons, and wait until the nodes take jobs."""
        for name in ("munge", "state", "log", "ssh", "shared", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir()
        facts = {"folder": self.folder, "user": getpass.getuser(), "host": socket.gethostname().split(".")[0]}
        conf = CONF.format(**facts, ports=self._ports, min_job_age=self._min_job_age)
        (self.folder / "slurm.conf").write_text(conf)
        self._start_munge()
        self._start("slurmctld", "-D", "-f", self.folder / "slurm.conf")
        for node in NODES:
            self._start("slurmd", "-D", "-N", node, "-f", self.folder / "slurm.conf")
        self._start_ssh()
        self.wait_until(lambda: self.run("sinfo", "-h", "-N", "-p", "train", "-o", "%T").split() == ["idle", "idle"])

    def _start_munge(self) -> None:
        key = self.folder / "munge/key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        folder = self.folder / "munge"
        self._start(
            "munged", "--foreground", "--force", f"--socket={folder}/socket", f"--key-file={key}",
            f"--pid-file={folder}/pid", f"--log-file={folder}/log", f"--seed-file={folder}/seed",
        )  # fmt: skip
        self.wait_until((folder / "socket").exists)

    def _start_ssh(self) -> None:
        folder = self.folder / "ssh"
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        known = {**self._variables, "SLURM_CONF": self.environment["SLURM_CONF"]}
        variables = " ".join(f"{name}={value}" for name, value in known.items())
        (folder / "config").write_text(SSHD.format(port=self._ports[3], folder=self.folder, variables=variables))
        Path("/run/sshd").mkdir(exist_ok=True)
        self._start(str(shutil.which("sshd", path=PATH)), "-D", "-e", "-f", folder / "config")

    def _start(self, *command: str | Path) -> None:
        output = (self.folder / "log" / Path(command[0]).name).open("ab")
        with output:
            daemon = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=self.environment
            )
        self._daemons.append(daemon)

    def airflow_connection(self) -> str:
        """Return the connection of type SSH to the head node, as Airflow reads it from a variable."""
        host_key = " ".join((self.folder / "ssh/host.pub").read_text().split()[:2])
        extra = {"key_file": str(self.folder / "ssh/user"), "host_key": host_key, "no_host_key_check": False}
        fields = {"conn_type": "ssh", "host": "127.0.0.1", "port": self._ports[3], "login": getpass.getuser()}
        return json.dumps({**fields, "extra": extra})

    def run(self, *command: str, check: bool = True) -> str:
        """Run a program of Slurm, and return what it printed."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def jobs(self, name: str) -> list[list[str]]:
        """Return id and state of all jobs of that name that the controller knows."""
        rows = self.run("squeue", "-h", "-t", "all", f"--name={name}", "-o", "%A %T").splitlines()
        return [row.split() for row in rows]

    def wait_until(self, condition: Callable[[], bool], limit_s: float = START_LIMIT_S) -> None:
        """Poll until it is so."""
        until = time.monotonic() + limit_s
        while not condition():
            dead = [daemon.args for daemon in self._daemons if daemon.poll() is not None]
            assert not dead, f"{dead} ended: {self.logs()}"
            assert time.monotonic() < until, self.logs()
            time.sleep(0.1)

    def logs(self) -> str:
        """Return the last words of all daemons."""
        files = sorted((self.folder / "log").iterdir())
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-1500:]}" for file in files)

    def stop(self) -> Sequence[str]:
        """End everything; return what had to be killed."""
        self.run("scancel", f"--user={getpass.getuser()}", check=False)
        until = time.monotonic() + STOP_LIMIT_S
        while self.run("squeue", "-h", check=False).strip() and time.monotonic() < until:
            time.sleep(0.2)
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            try:
                daemon.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        left = self._left_over()
        for process in left:
            process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        return [str(process) for process in left]

    def _left_over(self) -> list[psutil.Process]:
        """Return processes of jobs that still run: Slurm's steps outlive their daemons."""
        found = []
        for process in psutil.process_iter(["cmdline", "environ"]):
            environment = process.info["environ"] or {}
            if environment.get("SLURM_CONF") == self.environment["SLURM_CONF"] and process.pid != os.getpid():
                found.append(process)
        return found
