"""Transform jobs on SageMaker: batch inference. What all kinds of jobs share stands in `sagemaker_jobs`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_dlaws.errors import DlawsError, SpecificationError
from airflow_dlaws.jobs.identity import TaskIdentity, digest_of
from airflow_dlaws.jobs.reference import JobReference, Submission
from airflow_dlaws.jobs.rows import ROWS_IN_MESSAGE, suspects
from airflow_dlaws.jobs.transform import TransformSpec
from airflow_dlaws.launchers import preflight
from airflow_dlaws.launchers.aws_errors import service_errors
from airflow_dlaws.launchers.data_log import read_data_log
from airflow_dlaws.launchers.listed_jobs import ListedJobs
from airflow_dlaws.launchers.model import delete_model, ensure_model
from airflow_dlaws.launchers.protocol import Launcher
from airflow_dlaws.launchers.sagemaker_jobs import JobKind, JobOrder
from airflow_dlaws.launchers.transform_data import ScoredObject, find_bad_rows, input_objects, scored_objects
from airflow_dlaws.launchers.transform_request import container, data_of, transform_request, transform_status
from airflow_dlaws.storage import ObjectStore, S3Uri

ENGINE = "sagemaker-transform"

TRANSFORM = JobKind(
    engine=ENGINE,
    noun="transform job",
    method="transform_job",
    name_field="TransformJobName",
    arn_field="TransformJobArn",
    status=transform_status,
    missing=("Could not find requested job", "Could not find job to update"),
    log_group="/aws/sagemaker/TransformJobs",
    console="transform-jobs",
    list_method="list_transform_jobs",
    summaries="TransformJobSummaries",
)


class TransformLauncher(ListedJobs):
    """The transform jobs of one account and region."""

    kind = TRANSFORM

    def submit(self, spec: TransformSpec, identity: TaskIdentity, *, stop_former: bool = True) -> Submission:
        """Start the task's job, or adopt the one an earlier try has started; see the protocol for what it raises.

        :raises SpecificationError: also where a row of the data cannot be scored; it names object and line.
        """
        preflight.check_instance_type(self._client("sagemaker"), spec.instance_type, "Transform")
        name = spec.model.model_name or identity.name(digest_of(container(spec.model)), role="model")
        order = JobOrder(
            request=transform_request(spec, name),
            identity=identity,
            tags=spec.tags,
            root=S3Uri.parse(spec.state_s3_uri) if spec.state_s3_uri else S3Uri.parse(spec.output_s3_uri).parent,
        )
        if found := self.find(order):  # its data have been looked at; they may have gone since
            return found
        self._check_data(spec)
        if spec.model.model_name is None:
            made_of = container(spec.model)
            ensure_model(self._client("sagemaker"), name, made_of, role_arn=spec.model.role_arn)
        return self.create_or_adopt(order, stop_former=stop_former)

    def model_of(self, reference: JobReference) -> str:
        """Return the name of the model that a job used."""
        return str(self.description(reference.name)["ModelName"])

    def delete_model(self, name: str) -> None:
        """Delete a model that was made for a task; one that is not there is no error."""
        delete_model(self._client("sagemaker"), name)

    def scored(self, reference: JobReference) -> list[ScoredObject]:
        """Return what a completed job has written, once it is seen to be whole.

        :raises OutcomeUnacceptable: it is not.
        """
        job = self.description(reference.name)
        return scored_objects(
            self._store,
            input_objects(self._store, data_of(job)),
            S3Uri.parse(job["TransformOutput"]["S3OutputPath"]),
            created=job["CreationTime"],
            by_line=job["TransformInput"].get("SplitType") == "Line",
        )

    def complaints(self, reference: JobReference) -> list[str]:
        """Return what the container has said about records it refused, each with the line it is likely to mean."""
        data_log = read_data_log(self._client("logs"), self.log_group, reference.name)
        found: list[str] = []
        for uri, words in list(data_log.words.items())[:ROWS_IN_MESSAGE]:
            try:
                with service_errors(f"read {uri}"):
                    lines = suspects(words, self._store.lines(uri), data_log.requests)
            except DlawsError as trouble:
                words, lines = f"{words} (its lines could not be looked at: {trouble})", []
            found.append(f"{uri}{_shown(lines)}: {words}")
        return found

    @property
    def _store(self) -> ObjectStore:
        return ObjectStore(self._client("s3"))

    def _check_data(self, spec: TransformSpec) -> None:
        preflight.check_bucket(self._client("s3"), "output_s3_uri", S3Uri.parse(spec.output_s3_uri))
        preflight.check_channel(self._client("s3"), spec.data)
        objects = input_objects(self._store, spec.data)
        bad = find_bad_rows(self._store, objects, spec.columns) if spec.reads_rows else []
        if bad:
            more = " or more" if len(bad) == ROWS_IN_MESSAGE else ""
            raise SpecificationError(
                f"{len(bad)}{more} rows cannot be scored; no job was started. Correct them, or set check_rows=False "
                "to leave it to the model:\n" + "\n".join(map(str, bad))
            )


def _shown(lines: list[int]) -> str:
    return f" line {' or '.join(f'{line:,}' for line in lines)}" if lines else ""


def _proof_of_conformance(client: Callable[[str], Any]) -> Launcher[TransformSpec]:
    """Have mypy check the protocol."""
    return TransformLauncher(client)
