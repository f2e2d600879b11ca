"""The jobs that this package has handed to one Slurm cluster, as far as its controller knows them: all that have not
ended, and for some minutes those that have. Whose they are stands in each job's order."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.identity import TaskIdentity
from airflow_dlaws.jobs.ownership import JobClaim
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.slurm_spec import CLUSTER_CHECKS
from airflow_dlaws.jobs.wire import from_json
from airflow_dlaws.launchers.found_job import FoundJob
from airflow_dlaws.launchers.shell import Shell
from airflow_dlaws.launchers.slurm import ATTEMPT_LIMIT, SlurmLauncher
from airflow_dlaws.launchers.slurm_scripts import Sighting, scan_script

KIND = "slurm"


class SlurmJobFinder:
    """Finds the jobs in one `work_dir` of one cluster.

    :param cluster: address and folder in one, `ssh://CONNECTION/fsx/dlaws` or `ssm://USER@INSTANCE/fsx/dlaws`.
    """

    def __init__(self, cluster: str, client: Callable[[str], Any], shell: Callable[[str], Shell]) -> None:
        kind, _, rest = cluster.partition("://")
        host, _, path = rest.partition("/")
        self._address, self._work_dir = f"{kind}://{host}", f"/{path}".rstrip("/")
        CLUSTER_CHECKS["address"](f"cluster {cluster!r}: address", self._address)
        CLUSTER_CHECKS["work_dir"](f"cluster {cluster!r}: work_dir", self._work_dir)
        self.launcher = SlurmLauncher(client, shell)

    def find(self, phases: Iterable[JobPhase], *, since: datetime | None) -> Iterator[FoundJob]:
        """Yield the jobs in these phases.

        :param since: leaves out what was created before.
        :raises ServiceUnavailable: or ServiceRefused; half a list would be mistaken for a whole one.
        """
        orders = self._orders()
        sightings = self.launcher.look(self._address, self._work_dir, orders) if orders else {}
        for name, order in orders.items():
            job = self._described(name, order, sightings[name])
            created = job.status.created_at
            if job.status.phase in set(phases) and not (since and created and created < since):
                yield job

    def _orders(self) -> dict[str, dict[str, Any]]:
        """Return what each job was made from, by its name."""
        script = scan_script(self._work_dir)
        answer = self.launcher.ask(self._address, script, f"look for jobs in {self._work_dir}").stdout.decode()
        rows = (line.split("|", 1) for line in answer.splitlines())
        return {name: json.loads(base64.b64decode(order)) for name, order in rows}

    def _described(self, name: str, order: dict[str, Any], seen: Sighting) -> FoundJob:
        task = order.get("task")
        identity = from_json(TaskIdentity, task) if task else None
        attempt = _attempt(identity, seen.digest, name) if identity else None
        nodes = int(order.get("nodes", 0))
        return FoundJob(
            reference=self.launcher.reference(self._address, self._work_dir, name),
            kind=KIND,
            claim=JobClaim(identity=identity, exact=attempt is not None) if identity else None,
            status=seen.status,
            tags=_tags(identity, attempt) if identity else {},
            machines=f"{nodes} x node" if nodes else "?",
            instance_count=nodes,
        )


def cluster_of(job: FoundJob) -> str:
    """Return the cluster that a job of this kind is on, as the finder of that cluster was given it."""
    return job.reference.arn.removeprefix("slurm+").rpartition("/")[0]


def need_shell(address: str) -> Shell:
    """Stand in for the shells where nobody has given any.

    :raises SpecificationError: always.
    """
    raise SpecificationError(f"{address} cannot be reached: no connections to clusters were given")


def _attempt(identity: TaskIdentity, digest: str, name: str) -> int | None:
    """Return which of its task's jobs this is; None where its name does not follow from what its order says."""
    numbers = range(1, ATTEMPT_LIMIT + 1)
    return next((number for number in numbers if identity.name(digest, attempt=number) == name), None)


def _tags(identity: TaskIdentity, attempt: int | None) -> dict[str, str]:
    """Return what jobs elsewhere carry as tags."""
    return {
        "dlaws:dag": identity.dag_id,
        "dlaws:run": identity.run_id,
        "dlaws:task": identity.task_id,
        "dlaws:map-index": str(identity.map_index),
        "dlaws:run-began": identity.run_began,
        "dlaws:attempt": str(attempt or 1),
        "dlaws:deployment": identity.deployment,
    }
