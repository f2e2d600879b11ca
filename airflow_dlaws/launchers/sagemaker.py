"""Training jobs on SageMaker, through injected clients. What all kinds of jobs share stands in `sagemaker_jobs`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from airflow_dlaws.errors import DlawsError
from airflow_dlaws.jobs.checkpoints import with_own_checkpoints
from airflow_dlaws.jobs.identity import TaskIdentity
from airflow_dlaws.jobs.reference import Submission
from airflow_dlaws.jobs.spec import TrainingSpec
from airflow_dlaws.launchers import preflight
from airflow_dlaws.launchers.job_log import TRAINING_LOG_GROUP
from airflow_dlaws.launchers.listed_jobs import ListedJobs
from airflow_dlaws.launchers.protocol import Launcher
from airflow_dlaws.launchers.sagemaker_jobs import JobKind, JobOrder
from airflow_dlaws.launchers.sagemaker_request import job_status, training_request
from airflow_dlaws.launchers.source import SourceBundle, read_source
from airflow_dlaws.storage import S3Uri

ENGINE = "sagemaker"

TRAINING = JobKind(
    engine=ENGINE,
    noun="training job",
    method="training_job",
    name_field="TrainingJobName",
    arn_field="TrainingJobArn",
    status=job_status,
    missing=("not found",),
    log_group=TRAINING_LOG_GROUP,
    console="jobs",
    list_method="list_training_jobs",
    summaries="TrainingJobSummaries",
)


@dataclass(frozen=True)
class JobCode:
    """The code of a job, read and digested, and the prefix that published code lies under."""

    bundle: SourceBundle
    destination: S3Uri

    @property
    def location(self) -> S3Uri:
        """Where this code lies once it is published."""
        return self.bundle.location(self.destination)


class SageMakerLauncher(ListedJobs):
    """The training jobs of one account and region."""

    kind = TRAINING

    def submit(self, spec: TrainingSpec, identity: TaskIdentity, *, stop_former: bool = True) -> Submission:
        """Start the task's job, or adopt the one an earlier try has started; see the protocol for what it raises."""
        code = self.code_of(spec)
        spec = with_own_checkpoints(spec, identity, code.bundle.digest)
        order = JobOrder(
            request=training_request(spec, code.location),
            identity=identity,
            tags=spec.tags,
            root=S3Uri.parse(spec.output_s3_uri),
        )
        try:
            self.publish(spec, code)
        except DlawsError:
            # Inputs may have gone since an earlier try started the job: that job is still this task's.
            if found := self.find(order):
                return found
            raise
        return self.create_or_adopt(order, stop_former=stop_former)

    def code_of(self, spec: TrainingSpec) -> JobCode:
        """Read the job's code; nothing is written.

        :raises SpecificationError: there is no such instance type, folder or script.
        """
        for instance_type in spec.instance_types:
            preflight.check_instance_type(self._client("sagemaker"), instance_type)
        destination = S3Uri.parse(spec.code_s3_uri or spec.output_s3_uri.rstrip("/") + "/code")
        bundle = read_source(
            self._client("s3"), source=spec.source, entry_point=spec.entry_point, dependencies=spec.dependencies
        )
        return JobCode(bundle, destination)

    def publish(self, spec: TrainingSpec, code: JobCode) -> None:
        """Put the code where the job will read it, once it is known that the data is there.

        :raises SpecificationError: a bucket or a channel's data is missing.
        """
        preflight.check_locations(self._client("s3"), spec)
        code.bundle.publish(self._client("s3"), code.destination)


def _proof_of_conformance(client: Callable[[str], Any]) -> Launcher[TrainingSpec]:
    """Have mypy check the protocol."""
    return SageMakerLauncher(client)
