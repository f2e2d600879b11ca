"""Sweeps by SageMaker's own tuner: one tuning job a task, whose training jobs are the trials."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from airflow_dlaws.errors import DlawsError, ServiceRefused
from airflow_dlaws.jobs.identity import TUNING_NAME_LIMIT, TaskIdentity
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.reference import JobReference, JobStatus, Submission
from airflow_dlaws.launchers.aws_errors import service_errors
from airflow_dlaws.launchers.job_log import TRAINING_LOG_GROUP, read_tail
from airflow_dlaws.launchers.protocol import Launcher, LogCursor, LogPage
from airflow_dlaws.launchers.sagemaker import SageMakerLauncher
from airflow_dlaws.launchers.sagemaker_jobs import JobKind, JobOrder, SageMakerJobs
from airflow_dlaws.launchers.tuning_request import tuning_request, tuning_status
from airflow_dlaws.storage import S3Uri
from airflow_dlaws.sweeps.tuner import TunerSpec

ENGINE = "sagemaker-tuning"
#: The most that one List call returns.
_PAGE = 100

TUNING = JobKind(
    engine=ENGINE,
    noun="tuning job",
    method="hyper_parameter_tuning_job",
    name_field="HyperParameterTuningJobName",
    arn_field="HyperParameterTuningJobArn",
    status=tuning_status,
    missing=("can't find a tuning job",),
    log_group=TRAINING_LOG_GROUP,
    console="hyper-tuning-jobs",
    name_limit=TUNING_NAME_LIMIT,
)


class TuningLauncher(SageMakerJobs):
    """The tuning jobs of one account and region."""

    kind = TUNING

    def submit(self, spec: TunerSpec, identity: TaskIdentity, *, stop_former: bool = True) -> Submission:
        """Start the task's tuning job, or adopt the one an earlier try has started; see the protocol."""
        training, jobs = spec.sweep.training, SageMakerLauncher(self._client)
        code = jobs.code_of(training)
        order = JobOrder(
            request=tuning_request(spec, code.location),
            identity=identity,
            tags=training.tags,
            root=S3Uri.parse(training.output_s3_uri),
        )
        try:
            jobs.publish(training, code)
        except DlawsError:
            # Inputs may have gone since an earlier try started the job: that job is still this task's.
            if found := self.find(order):
                return found
            raise
        return self.create_or_adopt(order, stop_former=stop_former)

    def read_status(self, answer: Mapping[str, Any]) -> JobStatus:
        """Read the answer of Describe. Why a tuning job failed, its first failed trial says."""
        status = super().read_status(answer)
        if status.phase is not JobPhase.FAILED:
            return status
        children = self.children(answer["HyperParameterTuningJobName"])
        reasons = [child["FailureReason"] for child in children if child.get("FailureReason")]
        return dataclasses.replace(status, reason=f"{reasons[0]} ({status.reason})") if reasons else status

    def stop(self, reference: JobReference) -> bool:
        """Ask SageMaker to stop the tuning job and its training jobs; tell whether it was still running."""
        try:
            return super().stop(reference)
        except ServiceRefused:
            # How AWS words the refusal to stop what has ended is not documented.
            if self.describe(reference).terminal:
                return False
            raise

    def log_lines(self, reference: JobReference, cursor: LogCursor) -> LogPage:
        """Return what has become of the trials since `cursor`; what their hosts print is in CloudWatch."""
        seen, lines = set(cursor.seen), []
        for child in self.children(reference.name):
            mark = f"{child['TrainingJobName']} {child['TrainingJobStatus']}"
            if mark not in seen and child["TrainingJobStatus"] != "Stopping":
                lines.append(f"{mark}: {_words(child)}")
            seen.add(mark)
        return LogPage(lines=tuple(lines), cursor=LogCursor(seen=tuple(sorted(seen))))

    def log_tail(self, reference: JobReference, count: int) -> tuple[str, ...]:
        """Return the last `count` lines that the hosts of the trials have printed."""
        prefix = f"{reference.name}-"
        return read_tail(self._client("logs"), group=self.kind.log_group, stream_prefix=prefix, count=count)

    def children(self, name: str) -> list[Mapping[str, Any]]:
        """Return a row for each training job of the tuning job of that name, in the order of their launch."""
        asked: dict[str, Any] = {"HyperParameterTuningJobName": name, "MaxResults": _PAGE}
        rows: list[Mapping[str, Any]] = []
        with service_errors(f"list the training jobs of tuning job {name}"):
            while True:
                page = self._client("sagemaker").list_training_jobs_for_hyper_parameter_tuning_job(**asked)
                rows += page["TrainingJobSummaries"]
                if not page.get("NextToken"):
                    return sorted(rows, key=trial_number)
                asked["NextToken"] = page["NextToken"]


def trial_number(child: Mapping[str, Any]) -> int:
    """Return the number in a training job's name, which is <tuning job>-NNN-<8 hexadecimal digits>."""
    return int(str(child["TrainingJobName"]).rsplit("-", 2)[1])


def _words(child: Mapping[str, Any]) -> str:
    """Return what a trial tries, and how it ended."""
    tried = ", ".join(f"{name}={value}" for name, value in sorted(child["TunedHyperParameters"].items()))
    metric = child.get("FinalHyperParameterTuningJobObjectiveMetric")
    ending = child.get("FailureReason") or (f"{metric['MetricName']} {metric['Value']:.6g}" if metric else "")
    return f"{tried}; {ending}" if ending else tried


def _proof_of_conformance(client: Callable[[str], Any]) -> Launcher[TunerSpec]:
    """Have mypy check the protocol."""
    return TuningLauncher(client)
