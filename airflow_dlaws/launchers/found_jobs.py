"""The jobs that this package has started in an account and region, found by their tags.

SageMaker's own lists say what runs, at once and completely. The tags of a hundred jobs come in one call of the Resource
Groups Tagging API; that index lags behind by some seconds, so what it does not know yet (or what other teams have never
tagged) is asked for one by one with ListTags.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from airflow_dlaws.errors import NoSuchJob, ServiceRefused
from airflow_dlaws.jobs.ownership import claim_of
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.reference import JobStatus
from airflow_dlaws.launchers.aws_errors import service_errors
from airflow_dlaws.launchers.found_job import FoundJob, machines_of
from airflow_dlaws.launchers.found_rehearsals import KIND as REHEARSAL
from airflow_dlaws.launchers.found_rehearsals import RehearsalFinder
from airflow_dlaws.launchers.found_service_jobs import KIND as QUEUED
from airflow_dlaws.launchers.found_service_jobs import ServiceJobFinder
from airflow_dlaws.launchers.found_slurm_jobs import KIND as SLURM
from airflow_dlaws.launchers.found_slurm_jobs import SlurmJobFinder, cluster_of, need_shell
from airflow_dlaws.launchers.job_tags import DIGEST_TAG
from airflow_dlaws.launchers.processing import ProcessingLauncher
from airflow_dlaws.launchers.sagemaker import SageMakerLauncher
from airflow_dlaws.launchers.sagemaker_jobs import SageMakerJobs
from airflow_dlaws.launchers.shell import Shell
from airflow_dlaws.launchers.transform import TransformLauncher
from airflow_dlaws.launchers.tuning import TuningLauncher

#: The most ARNs that one GetResources takes.
_ARNS_IN_A_CALL = 100
_STATUSES = {
    JobPhase.RUNNING: "InProgress",
    JobPhase.STOPPING: "Stopping",
    JobPhase.SUCCEEDED: "Completed",
    JobPhase.FAILED: "Failed",
    JobPhase.STOPPED: "Stopped",
}
#: Not ended. SageMaker knows no job that waits, Batch does.
RUNNING = frozenset({JobPhase.PENDING, JobPhase.RUNNING, JobPhase.STOPPING})
_TRIAL_TAG = "dlaws:trial"


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """How one kind of job is listed, and where its description says what it runs on."""

    name: str
    launcher: type[SageMakerJobs]
    pages: Callable[[Any], Any]
    rows: str
    status: str
    resources: tuple[str, ...]


_KINDS = (
    _Kind(
        name="training",
        launcher=SageMakerLauncher,
        pages=lambda sagemaker: sagemaker.get_paginator("list_training_jobs"),
        rows="TrainingJobSummaries",
        status="TrainingJobStatus",
        resources=("ResourceConfig",),
    ),
    _Kind(
        name="transform",
        launcher=TransformLauncher,
        pages=lambda sagemaker: sagemaker.get_paginator("list_transform_jobs"),
        rows="TransformJobSummaries",
        status="TransformJobStatus",
        resources=("TransformResources",),
    ),
    _Kind(
        name="processing",
        launcher=ProcessingLauncher,
        pages=lambda sagemaker: sagemaker.get_paginator("list_processing_jobs"),
        rows="ProcessingJobSummaries",
        status="ProcessingJobStatus",
        resources=("ProcessingResources", "ClusterConfig"),
    ),
    _Kind(
        name="tuning",
        launcher=TuningLauncher,
        pages=lambda sagemaker: sagemaker.get_paginator("list_hyper_parameter_tuning_jobs"),
        rows="HyperParameterTuningJobSummaries",
        status="HyperParameterTuningJobStatus",
        resources=("TrainingJobDefinition", "ResourceConfig"),
    ),
)


class JobFinder:
    """Finds jobs through injected clients ("sagemaker", "batch", "resourcegroupstaggingapi").

    :param client: gives the boto3 client of a service by name.
    :param clusters: Slurm clusters that are asked too; see SlurmJobFinder. `shell` reaches them.
    """

    #: Why AWS Batch could not be asked the last time, in words: not everybody who may ask SageMaker may.
    batch_refused = ""
    #: Why the throw-away endpoints of rehearsals could not be looked for the last time.
    endpoints_refused = ""

    def __init__(
        self,
        client: Callable[[str], Any],
        *,
        clusters: Iterable[str] = (),
        shell: Callable[[str], Shell] = need_shell,
    ) -> None:
        self._client = client
        self._clusters = {name.rstrip("/"): SlurmJobFinder(name, client, shell) for name in clusters}
        self._launchers = {kind.name: kind.launcher(client) for kind in _KINDS}
        self._service_jobs = ServiceJobFinder(client)
        self._rehearsals = RehearsalFinder(client, self._tags)

    def find(self, phases: Iterable[JobPhase] = RUNNING, *, since: datetime | None = None) -> list[FoundJob]:
        """Return the jobs of this package in these phases, oldest first.

        :param since: leaves out what was created before.
        :raises ServiceUnavailable: or ServiceRefused; half a list would be mistaken for a whole one.
        """
        queued = self._queued(phases, since)
        found: list[FoundJob] = []
        for kind in _KINDS:
            names = dict(self._listed(kind, phases, since))
            tags = self._tags(names)
            ours = [arn for arn in names if DIGEST_TAG in tags[arn]]
            found += [self._described(kind, names[arn], tags[arn]) for arn in ours]
        # A service job and the training job it has become are one: who owns it and how it is stopped, the former says.
        for job in found:
            if job.reference.name in queued:
                began = replace(queued[job.reference.name].status, started_at=job.status.started_at)
                queued[job.reference.name] = replace(queued[job.reference.name], status=began)
        found = [job for job in found if job.reference.name not in queued] + list(queued.values())
        found += self._throw_away(phases, since)
        for cluster in self._clusters.values():
            found += cluster.find(phases, since=since)
        return sorted(found, key=lambda job: job.status.created_at or datetime.now(UTC))

    def runs(self, job: FoundJob) -> bool:
        """Ask again whether the job has not ended."""
        try:
            status: JobStatus = self._launcher(job).describe(job.reference)
        except NoSuchJob:
            return False
        return not status.terminal

    def stop(self, job: FoundJob) -> bool:
        """Ask for the job to be stopped; tell whether it was still running."""
        return bool(self._launcher(job).stop(job.reference))

    def _queued(self, phases: Iterable[JobPhase], since: datetime | None) -> dict[str, FoundJob]:
        self.batch_refused = ""
        try:
            return self._service_jobs.find(phases, since=since)
        except ServiceRefused as error:
            self.batch_refused = str(error)
            return {}

    def _throw_away(self, phases: Iterable[JobPhase], since: datetime | None) -> list[FoundJob]:
        self.endpoints_refused = ""
        try:
            return list(self._rehearsals.find(phases, since=since))
        except ServiceRefused as error:
            self.endpoints_refused = str(error)
            return []

    def _launcher(self, job: FoundJob) -> Any:
        if job.kind == REHEARSAL:
            return self._rehearsals
        if job.kind == QUEUED:
            return self._service_jobs.launcher
        if job.kind == SLURM:
            return self._clusters[cluster_of(job)].launcher
        return self._launchers["training" if job.kind == "trial" else job.kind]

    def _listed(self, kind: _Kind, phases: Iterable[JobPhase], since: datetime | None) -> Iterator[tuple[str, str]]:
        """Return (ARN, name) of all jobs of a kind, whoever started them."""
        launcher = self._launchers[kind.name].kind
        after = {"CreationTimeAfter": since} if since else {}
        with service_errors(f"list {launcher.noun}s"):
            for phase in sorted(phase for phase in phases if phase in _STATUSES):
                pages = kind.pages(self._client("sagemaker"))
                for page in pages.paginate(StatusEquals=_STATUSES[phase], MaxResults=100, **after):
                    for row in page[kind.rows]:
                        yield row[launcher.arn_field], row[launcher.name_field]

    def _tags(self, arns: Iterable[str]) -> dict[str, dict[str, str]]:
        """Return the tags of each ARN."""
        wanted = list(arns)
        known = self._indexed_tags(wanted)
        return {arn: known[arn] if DIGEST_TAG in known.get(arn, {}) else self._own_tags(arn) for arn in wanted}

    def _indexed_tags(self, arns: list[str]) -> dict[str, dict[str, str]]:
        """Return what the tagging API's index says; nothing where it may not be asked: ListTags says it too."""
        known: dict[str, dict[str, str]] = {}
        try:
            for start in range(0, len(arns), _ARNS_IN_A_CALL):
                with service_errors("read the tags of jobs"):
                    asked = arns[start : start + _ARNS_IN_A_CALL]
                    answer = self._client("resourcegroupstaggingapi").get_resources(ResourceARNList=asked)
                known |= {row["ResourceARN"]: _mapping(row["Tags"]) for row in answer["ResourceTagMappingList"]}
        except ServiceRefused:
            return {}
        return known

    def _own_tags(self, arn: str) -> dict[str, str]:
        with service_errors(f"read the tags of {arn}"):
            pages = self._client("sagemaker").get_paginator("list_tags").paginate(ResourceArn=arn)
            return _mapping([tag for page in pages for tag in page["Tags"]])

    def _described(self, kind: _Kind, name: str, tags: Mapping[str, str]) -> FoundJob:
        launcher = self._launchers[kind.name]
        answer = launcher.description(name)
        tuner = str(answer.get("TuningJobArn") or "")
        owner, limit = name, launcher.kind.name_limit
        if tuner:  # a tuner's jobs have its tags and names of its own
            owner, limit = tuner.rpartition("/")[2], self._launchers["tuning"].kind.name_limit
        machines, count = machines_of(answer, kind.resources)
        return FoundJob(
            reference=launcher.reference(name, answer[launcher.kind.arn_field]),
            kind="trial" if tuner or _TRIAL_TAG in tags else kind.name,
            claim=claim_of(tags, owner, limit=limit),
            status=launcher.kind.status(answer),
            tags=dict(tags),
            machines=machines,
            instance_count=count,
            tuner=tuner,
        )


def _mapping(tags: Iterable[Mapping[str, str]]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in tags}
