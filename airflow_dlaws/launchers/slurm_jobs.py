"""The jobs of Slurm clusters that exist: how they stand, their logs, stopping them, and bringing home what they left.

A job's reference says where it is: `slurm+ssh://CONNECTION/work/dir/NAME` or `slurm+ssm://USER@INSTANCE/work/dir/NAME`.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from airflow_dlaws.errors import NoSuchJob, ServiceRefused, ServiceUnavailable
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.reference import JobReference, JobStatus
from airflow_dlaws.launchers import slurm_scripts as scripts
from airflow_dlaws.launchers.protocol import AskedJob, LogCursor, LogPage
from airflow_dlaws.launchers.shell import Answer, Shell
from airflow_dlaws.launchers.slurm_archives import upload
from airflow_dlaws.launchers.slurm_log import read_piece, read_tail
from airflow_dlaws.storage import S3Uri

ENGINE = "slurm"
#: A log that grows faster than this is read on at the next look.
_PIECES_PER_CALL = 8
#: A job is given `grace_s` to end (120 unless told otherwise), and packs what it has written.
STOP_LIMIT_S = 600
STOP_LOOK_S = 2.0
#: Trouble that passes by itself; the other kinds need a person.
_PASSING = frozenset({scripts.NO_CONTROLLER, scripts.BUSY, scripts.NO_CODE, scripts.NOT_ACCEPTED})


class SlurmJobs:
    """The jobs of all clusters that the connections reach.

    :param client: gives the boto3 client of a service by name.
    :param shell: gives the shell on a head node by its address (`SlurmCluster.address`).
    """

    #: The log is a file in the job's folder, and no cluster has a console of its own.
    log_group = ""
    #: Names that one look takes: squeue is given all in one argument, which may have 128 KB.
    portion = 200
    stops_with = ("s3",)

    def __init__(self, client: Callable[[str], Any], shell: Callable[[str], Shell]) -> None:
        self._client, self._shell = client, shell
        #: See the protocol `Asking`.
        self.asked_for: AskedJob | None = None

    def log_prefix(self, reference: JobReference) -> str:
        """See the protocol."""
        return reference.name

    def console_page(self, reference: JobReference) -> str:
        """See the protocol."""
        return ""

    def describe(self, reference: JobReference) -> JobStatus:
        """Ask how the job stands.

        :raises NoSuchJob: there is none.
        """
        found = self.describe_many([reference])
        if reference not in found:
            raise NoSuchJob(f"there is no job {reference.name} on the cluster ({reference.arn})")
        return found[reference]

    def describe_many(self, references: Sequence[JobReference]) -> dict[JobReference, JobStatus]:
        """Ask how jobs stand, with one command for each cluster and folder, or more where there are very many."""
        places: dict[tuple[str, str], list[JobReference]] = {}
        for reference in references:
            places.setdefault(place_of(reference), []).append(reference)
        found: dict[JobReference, JobStatus] = {}
        for (address, work_dir), group in places.items():
            sightings = self.look(address, work_dir, [reference.name for reference in group])
            for reference in group:
                sighting = sightings[reference.name]
                if sighting.exists:
                    found[reference] = sighting.status
        return found

    def group(self, reference: JobReference) -> str:
        """See the protocol `Together`: jobs are looked for in one folder of one cluster."""
        return "".join(place_of(reference))

    def look(self, address: str, work_dir: str, names: Iterable[str]) -> dict[str, scripts.Sighting]:
        """Return what is to be seen of the jobs of these names."""
        asked, seen = list(names), dict[str, scripts.Sighting]()
        for start in range(0, len(asked), self.portion):
            some = asked[start : start + self.portion]
            answer = self.ask(address, scripts.look_script(work_dir, some), f"look for {len(some)} jobs in {work_dir}")
            seen |= scripts.read_look(answer.stdout.decode(), some)
        return seen

    def holder(self, reference: JobReference) -> str:
        """See the protocol `Held`."""
        return self.look(*place_of(reference), [reference.name])[reference.name].files.holder

    def stop(self, reference: JobReference) -> bool:
        """Ask the job to end: SIGTERM, the grace, SIGKILL; tell whether it was still running."""
        address, work_dir = place_of(reference)
        answer = self.ask(address, scripts.stop_script(work_dir, reference.name), f"stop job {reference.name}")
        return b"stopped" in answer.stdout

    def stop_noted(self, note: str, *, until_ended: bool) -> bool:
        """Stop the job that was noted by its reference; see `StopsNoted`."""
        former = self._reference_of(note)
        stopped = self.stop(former)
        if until_ended:
            self.wait_until_ended(former)
        return stopped

    def wait_until_ended(self, reference: JobReference) -> None:
        """Wait until a job that is being stopped has written its last checkpoint: the next one begins with it.

        :raises ServiceUnavailable: it takes too long; a retry of the task waits on.
        """
        until = time.monotonic() + STOP_LIMIT_S
        while not all(status.terminal for status in self.describe_many([reference]).values()):
            if time.monotonic() >= until:
                raise ServiceUnavailable(
                    f"job {reference.name}, an earlier one of this task, has been stopping for {STOP_LIMIT_S} s and "
                    "may still write checkpoints: a retry of the task looks again"
                )
            time.sleep(STOP_LOOK_S)

    def log_lines(self, reference: JobReference, cursor: LogCursor) -> LogPage:
        """Return what the job has printed since `cursor`."""
        address, work_dir = place_of(reference)
        lines: list[str] = []
        more = True
        for _ in range(_PIECES_PER_CALL):
            script = scripts.log_script(work_dir, reference.name, cursor.offset)
            answer = self.ask(address, script, f"read the log of job {reference.name}")
            page, more = read_piece(answer.stdout, cursor, most=scripts.LOG_PIECE)
            lines += page.lines
            cursor = page.cursor
            if not more:
                break
        return LogPage(lines=tuple(lines), cursor=cursor, complete=not more)

    def log_tail(self, reference: JobReference, count: int) -> tuple[str, ...]:
        """Return the last `count` lines the job has printed."""
        address, work_dir = place_of(reference)
        script = scripts.tail_script(work_dir, reference.name, count)
        return read_tail(self.ask(address, script, f"read the log of job {reference.name}").stdout)

    def collect(self, reference: JobReference, status: JobStatus) -> JobStatus:
        """Bring a successful job's archives to S3, once; return the status that says where they are."""
        if status.phase is not JobPhase.SUCCEEDED or status.artifact_uri:
            return status
        address, work_dir = place_of(reference)
        sighting = self.look(address, work_dir, [reference.name])[reference.name]
        if not sighting.files.collected:
            folder, output = f"{work_dir}/{reference.name}", S3Uri.parse(sighting.files.output)
            for archive in ("output.tar.gz", "model.tar.gz"):
                target = output / "output" / archive
                upload(self._shell(address), self._client("s3"), f"{folder}/archives/{archive}", target)
            mark = f"date +%s >{shlex.quote(folder + '/collected')}\n"
            self.ask(address, mark, f"note that job {reference.name} is collected")
        files = dataclasses.replace(sighting.files, collected=True)
        return dataclasses.replace(sighting, files=files).status

    def request(self, reference: JobReference) -> dict[str, Any]:
        """Return what the job was made from; the environment may hold secrets."""
        address, work_dir = place_of(reference)
        script = scripts.order_script(work_dir, reference.name)
        answer = self.ask(address, script, f"read the order of job {reference.name}")
        return {name: value for name, value in json.loads(answer.stdout).items() if name != "environment"}

    def reference(self, address: str, work_dir: str, name: str) -> JobReference:
        """Return the reference of a job."""
        return self._reference_of(f"slurm+{address}{work_dir}/{name}")

    def _reference_of(self, arn: str) -> JobReference:
        region = str(self._client("s3").meta.region_name)
        return JobReference(engine=ENGINE, name=arn.rpartition("/")[2], arn=arn, region=region)

    def ask(self, address: str, script: str, action: str) -> Answer:
        """Run a script on a head node.

        :raises ServiceUnavailable: the node, its file system or the controller cannot be reached now.
        :raises ServiceRefused: the script cannot do its work there.
        """
        answer = self._shell(address).run(script)
        if answer.code:
            raise trouble(address, answer, action)
        return answer


def trouble(address: str, answer: Answer, action: str) -> ServiceRefused | ServiceUnavailable:
    """Return the error for a script that has failed."""
    why = scripts.TROUBLE.get(answer.code, f"the script ended with exit code {answer.code}")
    words = answer.stderr.strip()[-500:]
    if answer.code in _PASSING:
        return ServiceUnavailable(f"cannot {action} on {address} now, {why}: {words}")
    return ServiceRefused(f"cannot {action} on {address}, {why}: {words}")


def place_of(reference: JobReference) -> tuple[str, str]:
    """Return the head node's address and the folder that the job's own is in."""
    kind, _, rest = reference.arn.removeprefix("slurm+").partition("://")
    host, _, path = rest.partition("/")
    return f"{kind}://{host}", "/" + path.rpartition("/")[0]
