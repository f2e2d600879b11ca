"""Training jobs on a Slurm cluster. One task, one job, although Slurm takes any number of jobs of one name.

See `slurm_scripts.submit_script` for the head node's part in that, and `slurm_driver.claim` for that of the nodes.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from airflow_dlaws.errors import IdentityConflict, JobFailed, ServiceRefused, ServiceUnavailable, SpecificationError
from airflow_dlaws.jobs.identity import TaskIdentity
from airflow_dlaws.jobs.outcome import Reuse, decide_reuse
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.reference import JobReference, JobStatus, Submission
from airflow_dlaws.jobs.slurm_spec import SlurmSpec
from airflow_dlaws.launchers import slurm_scripts as scripts
from airflow_dlaws.launchers.lives import TaskLives
from airflow_dlaws.launchers.protocol import AskedJob, Launcher
from airflow_dlaws.launchers.shell import Shell
from airflow_dlaws.launchers.slurm_jobs import ENGINE, SlurmJobs, trouble
from airflow_dlaws.launchers.slurm_plan import Plan
from airflow_dlaws.launchers.source import read_source
from airflow_dlaws.storage import ObjectStore, S3Uri

__all__ = ["ENGINE", "SlurmLauncher"]

log = logging.getLogger(__name__)

#: Jobs one task may start before it is cleared; far above any sane `retries`.
ATTEMPT_LIMIT = 50
#: What sbatch says when the controller is away or full: another time may do. Anything else is a refusal.
_PASSING = ("Unable to contact", "timed out", "Connection refused", "temporarily", "submit limit", "Zero Bytes")


class SlurmLauncher(SlurmJobs):
    """Submits training jobs to clusters, and answers for them."""

    def submit(self, spec: SlurmSpec, identity: TaskIdentity, *, stop_former: bool = True) -> Submission:
        """Start the task's job, or adopt the one an earlier try has started; see the protocol for what it raises."""
        bundle = read_source(
            self._client("s3"), source=spec.source, entry_point=spec.entry_point, dependencies=spec.dependencies
        )
        plan = Plan(spec, identity, bundle)
        root = S3Uri.parse(spec.output_s3_uri)
        lives = TaskLives(ObjectStore(self._client("s3")), root, identity, plan.digest, ENGINE)
        if stop_former:
            self._stop_former(plan, lives)
        for attempt in range(self._last_attempt(plan, lives), ATTEMPT_LIMIT + 1):
            found = self._adopt(plan, attempt)
            if found is None:
                code_url = self._prepare(plan)
                lives.note(self._reference_to(plan, attempt).arn)
                found = self._create(plan, attempt, code_url) or self._adopt(plan, attempt)
            if isinstance(found, Submission):
                return found
            self.wait_until_ended(self._reference_to(plan, attempt))  # all attempts write to the same checkpoints
        raise JobFailed(f"this task has started {ATTEMPT_LIMIT} jobs and none ended well: clear it to begin anew")

    def stop_last(self, root: str, identity: TaskIdentity) -> str | None:
        """See the protocol `Noting`."""
        lives = TaskLives(ObjectStore(self._client("s3")), S3Uri.parse(root), identity, "", ENGINE)
        return lives.stop_last(self, self._client)

    def _last_attempt(self, plan: Plan, lives: TaskLives) -> int:
        """Return which job this life has asked for last: earlier ones were of no use, and may have been deleted."""
        noted = lives.present_job()
        arns = {self._reference_to(plan, attempt).arn: attempt for attempt in range(1, ATTEMPT_LIMIT + 1)}
        return arns.get(noted or "", 1)

    def _stop_former(self, plan: Plan, lives: TaskLives) -> None:
        """Stop what the task had started before it was cleared or changed, on another cluster too.

        :raises ServiceUnavailable: a cluster cannot be asked now.
        """
        try:
            lives.stop_former(self, self._client, until_ended=plan.shares_checkpoints)
        except (ServiceRefused, ServiceUnavailable) as error:
            note = lives.former()
            if note is None or note.job_name.startswith(self._reference_to(plan, 1).arn.rpartition("/")[0]):
                raise
            if isinstance(error, ServiceUnavailable):
                raise ServiceUnavailable(
                    f"{note.job_name}, which this task had started before it was changed, may still run: {error}. "
                    "If that cluster is gone for good, delete its connection, or set stop_on_kill=False"
                ) from error
            log.warning("job %s cannot be looked for: see that it has ended. %s", note.job_name, error)

    def _reference_to(self, plan: Plan, attempt: int) -> JobReference:
        cluster = plan.spec.cluster
        return self.reference(cluster.address, cluster.work_dir, plan.name(attempt))

    def _adopt(self, plan: Plan, attempt: int) -> Submission | Reuse | None:
        """Return the job of that attempt if the task can go on with it, START_ANOTHER if not, None if there is none."""
        cluster, name = plan.spec.cluster, plan.name(attempt)
        self.asked_for = None
        sighting = self.look(cluster.address, cluster.work_dir, [name])[name]
        if not sighting.exists:
            return None
        if sighting.digest != plan.digest:
            raise IdentityConflict(
                f"the name {name} belongs to this task, but the job of that name on {cluster.address} was made from "
                f"something else (digest {sighting.digest!r}, expected {plan.digest!r}): rename the task, or clear it "
                "to get another name"
            )
        reuse, reason = decide_reuse(sighting.status)
        if reuse is Reuse.GIVE_UP:
            raise JobFailed(f"job {name}, started by an earlier try of this task, is not run again: {reason}")
        if reuse is Reuse.START_ANOTHER:
            return reuse
        self.asked_for = AskedJob(reference=self._reference_to(plan, attempt))
        return Submission(
            reference=self._reference_to(plan, attempt),
            status=sighting.status,
            adopted=True,
            attempt=attempt,
            holder="" if sighting.status.terminal else self._take_hold(plan, name),
        )

    def _take_hold(self, plan: Plan, name: str) -> str:
        """Note that another try looks after the job from now on: a former one that is killed late leaves it alone."""
        cluster, holder = plan.spec.cluster, uuid.uuid4().hex
        script = scripts.hold_script(cluster.work_dir, name, holder)
        self.ask(cluster.address, script, f"take over job {name}")
        return holder

    def _prepare(self, plan: Plan) -> str:
        """Check what can be checked, and publish the code; return where the head node can fetch it.

        :raises SpecificationError: a bucket or a channel's data is missing.
        """
        cluster = plan.spec.cluster
        shared = [uri for uri in plan.spec.channels.values() if not uri.startswith("s3://")]
        if shared:
            script = scripts.paths_script(cluster.work_dir, shared)
            missing = self.ask(cluster.address, script, "look for the channels").stdout.decode().split("\n")[:-1]
            if missing:
                raise SpecificationError(
                    f"{missing} are not there on the head node of {cluster.address}: correct the channels, or make the "
                    "task that writes the data come first"
                )
        return plan.publish(self._client("s3"))

    def _create(self, plan: Plan, attempt: int, code_url: str) -> Submission | None:
        """Hand the job to Slurm; None if it was there already.

        :raises SpecificationError: sbatch refuses it.
        """
        cluster, holder = plan.spec.cluster, uuid.uuid4().hex
        job = plan.job(attempt, code_url, holder)
        # There may be a job from here on, whether or not its answer comes.
        self.asked_for = AskedJob(reference=self._reference_to(plan, attempt), holder=holder)
        answer = self._shell(cluster.address).run(scripts.submit_script(cluster.work_dir, job))
        if answer.code == scripts.NOT_ACCEPTED and not any(words in answer.stderr for words in _PASSING):
            self.asked_for = None
            raise SpecificationError(f"Slurm refuses the job: {answer.stderr.strip()[-500:]}")
        if answer.code:
            raise trouble(cluster.address, answer, f"submit job {job.name}")
        if answer.stdout.strip() == b"taken":
            return None
        status = JobStatus(phase=JobPhase.PENDING, created_at=datetime.now(UTC))
        return Submission(
            reference=self._reference_to(plan, attempt), status=status, adopted=False, attempt=attempt, holder=holder
        )


def _proof_of_conformance(client: Callable[[str], Any], shell: Callable[[str], Shell]) -> Launcher[SlurmSpec]:
    """Have mypy check the protocol."""
    return SlurmLauncher(client, shell)
