"""`BatchInferenceOperator`: scores a data set in one SageMaker transform job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from typing import Any

from airflow_dlaws._compat import Context
from airflow_dlaws.errors import DlawsError
from airflow_dlaws.jobs.limits import is_template
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.reference import JobReference
from airflow_dlaws.jobs.spec import Channel
from airflow_dlaws.jobs.transform import (
    DEFAULT_MAX_RUNTIME_S,
    FIELD_CHECKS,
    ScoringModel,
    TransformResult,
    TransformSpec,
    check_payload,
    check_places,
)
from airflow_dlaws.jobs.wire import to_json
from airflow_dlaws.launchers.transform import ENGINE, TransformLauncher
from airflow_dlaws.operators.job import JobOperator, JobOutcome
from airflow_dlaws.operators.training_fields import channel, integer
from airflow_dlaws.storage import S3Uri

_INTEGERS = (
    "instance_count", "max_payload_mb", "max_concurrent", "invocation_timeout_s", "invocation_retries", "max_runtime_s",
)  # fmt: skip
#: Objects whose counts are handed on one by one: an XCom is to stay small.
_COUNTED = 100


class BatchInferenceOperator(JobOperator):
    """Scores a data set and returns a `TransformResult` as JSON; the predictions are in `<output_s3_uri>/<object>.out`.

    Green means: every object of the data has its output, written by this job, with a record for each record. A retry
    adopts the job of the try before; a cleared task starts a new one. Rows that cannot be scored are named by object
    and line: before anything is paid for, as far as `columns` can tell, and else in the failed task's message.

    What scores is `model_name` (a SageMaker model), or `model_package_arn` (a version of the registry), or
    `artifact_uri` and `image`; of the last two a model is made for the task, and deleted after success.

    :param data: s3://bucket/folder/ or one object, or {"uri": ..., "kind": "ManifestFile"}. CSV has no header.
    :param output_s3_uri: beside the data, not in it.
    :param role_arn: what a model made here runs as.
    :param columns: name -> "number" or "text" of each CSV column, in order; without it rows must only be equally wide.
    :param check_rows: read all rows before the job is created (CSV that is split by line).

    The other parameters are those of :class:`TransformSpec` and :class:`JobOperator`. Numbers may be templates.
    """

    template_fields: Sequence[str] = (
        "model_name",
        "model_package_arn",
        "artifact_uri",
        "image",
        "role_arn",
        "data",
        "output_s3_uri",
        "state_s3_uri",
        "instance_type",
        "content_type",
        "accept",
        "split",
        "strategy",
        "columns",
        "input_filter",
        "output_filter",
        "environment",
        "tags",
        "kms_key_id",
        *_INTEGERS,
    )
    template_fields_renderers = {"columns": "json", "environment": "json", "tags": "json"}
    engine = ENGINE
    ui_color = "#e2f0e0"

    def __init__(
        self,
        *,
        data: str | Channel | Mapping[str, Any],
        output_s3_uri: str,
        instance_type: str,
        model_name: str | None = None,
        model_package_arn: str | None = None,
        artifact_uri: str | None = None,
        image: str | None = None,
        role_arn: str | None = None,
        instance_count: int | str = 1,
        content_type: str = "text/csv",
        accept: str | None = None,
        split: str = "Line",
        strategy: str = "MultiRecord",
        max_payload_mb: int | str = 6,
        max_concurrent: int | str | None = None,
        invocation_timeout_s: int | str = 600,
        invocation_retries: int | str = 3,
        columns: Mapping[str, str] | None = None,
        check_rows: bool = True,
        input_filter: str = "$",
        output_filter: str = "$",
        join_input: bool = False,
        environment: Mapping[str, str] | None = None,
        max_runtime_s: int | str = DEFAULT_MAX_RUNTIME_S,
        state_s3_uri: str | None = None,
        tags: Mapping[str, str] | None = None,
        kms_key_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.data = data
        self.output_s3_uri = output_s3_uri
        self.instance_type = instance_type
        self.model_name = model_name
        self.model_package_arn = model_package_arn
        self.artifact_uri = artifact_uri
        self.image = image
        self.role_arn = role_arn
        self.instance_count = instance_count
        self.content_type = content_type
        self.accept = accept
        self.split = split
        self.strategy = strategy
        self.max_payload_mb = max_payload_mb
        self.max_concurrent = max_concurrent
        self.invocation_timeout_s = invocation_timeout_s
        self.invocation_retries = invocation_retries
        self.columns = columns
        self.check_rows = check_rows
        self.input_filter, self.output_filter, self.join_input = input_filter, output_filter, join_input
        self.environment = environment
        self.max_runtime_s = max_runtime_s
        self.state_s3_uri = state_s3_uri
        self.tags = tags
        self.kms_key_id = kms_key_id
        self._check_what_is_known()

    @property
    def noted_under(self) -> str:
        """See `KeptJob`."""
        return self.state_s3_uri or str(S3Uri.parse(self.output_s3_uri).parent)

    @cached_property
    def launcher(self) -> TransformLauncher:
        """The engine that runs the job."""
        return TransformLauncher(self.aws.client)

    def specification(self, context: Context) -> TransformSpec:
        """Return the whole specification; by now nothing is a template any more."""
        own = {field.name for field in fields(TransformSpec)} - {"model", "data"}
        return TransformSpec(
            model=self._model(), data=channel("data", self.data), **{name: self._value(name) for name in own}
        )

    def result(self, context: Context, outcome: JobOutcome) -> dict[str, Any]:
        """Return the TransformResult as JSON, and delete the model that was made for this task.

        :raises OutcomeUnacceptable: an output is missing, is older than the job, or has another number of records.
        """
        reference = outcome.reference
        model_name, scored = self.launcher.model_of(reference), self.launcher.scored(reference)
        counts = [one.records for one in scored if one.records is not None]
        result = TransformResult(
            job_name=reference.name,
            job_arn=reference.arn,
            model_name=model_name,
            output_s3_uri=self.output_s3_uri,
            objects=len(scored),
            records=sum(counts) if counts else None,
            counts={one.uri: one.records for one in scored[:_COUNTED] if one.records is not None},
            billable_seconds=outcome.status.billable_seconds,
            instance_count=int(self.instance_count),
            instance_type=self.instance_type,
            adopted=outcome.adopted,
            attempts=outcome.attempt,
        )
        if not self.model_name:
            self.launcher.delete_model(model_name)
        self.log.info("Job %s completed: %s", reference.name, to_json(result))
        return dict(to_json(result))

    def _failure(self, reference: JobReference, sentence: str) -> str:
        """Add which rows the container has refused, where it has refused any."""
        try:
            failed = self.launcher.describe(reference).phase is JobPhase.FAILED
            complaints = self.launcher.complaints(reference) if failed else []
        except DlawsError as error:
            complaints = [f"(what the container refused cannot be read: {error})"]
        return super()._failure(reference, "\n".join([sentence, *complaints]))

    def _check_what_is_known(self) -> None:
        """Check, when the DAG is parsed, every value that holds no template."""
        for name, check in FIELD_CHECKS.items():
            if not is_template(getattr(self, name)):
                check(name, self._value(name))
        if not is_template([self.max_payload_mb, self.max_concurrent]):
            check_payload(self._value("max_payload_mb"), self._value("max_concurrent"))
        if not is_template([self.model_name, self.model_package_arn, self.artifact_uri, self.image, self.role_arn]):
            self._model()
        if not is_template(self.data):
            uri = channel("data", self.data).uri
            if not is_template(self.output_s3_uri):
                check_places(uri, self.output_s3_uri)

    def _model(self) -> ScoringModel:
        """Return what scores; an XCom of nothing is an empty text, which is as good as None."""
        return ScoringModel(
            model_name=self.model_name or None,
            model_package_arn=self.model_package_arn or None,
            artifact_uri=self.artifact_uri or None,
            image=self.image or None,
            role_arn=self.role_arn,
        )

    def _value(self, name: str) -> Any:
        """Return a field as TransformSpec takes it."""
        value = getattr(self, name)
        if name in _INTEGERS:
            return integer(name, value)
        return {} if name in ("columns", "environment", "tags") and value is None else value
