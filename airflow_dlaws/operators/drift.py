"""Checking a data set for drift once: `DriftCheckOperator`. `DriftSensor` watches an endpoint's traffic instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from airflow_dlaws._compat import AirflowSkipException, Asset, Context, follow_only
from airflow_dlaws.drift.batch import BatchPlan
from airflow_dlaws.drift.batch_readers import CAPTURE
from airflow_dlaws.drift.outside import parse_evidence
from airflow_dlaws.drift.report import DriftSummary, event_extra
from airflow_dlaws.drift.settings import DriftSettings
from airflow_dlaws.drift.verdict import DriftOutcome
from airflow_dlaws.errors import Inconclusive, OutcomeUnacceptable, SpecificationError
from airflow_dlaws.hooks.verdicts import first_found, publish, verdict_folder
from airflow_dlaws.jobs import limits
from airflow_dlaws.jobs.limits import is_template
from airflow_dlaws.jobs.processing import FIELD_CHECKS, ProcessingSpec
from airflow_dlaws.jobs.wire import to_json
from airflow_dlaws.launchers.drift_check import Checked, CheckOrder, DriftChecks, findings_folder, job_command
from airflow_dlaws.launchers.drift_data import Source
from airflow_dlaws.launchers.drift_evidence import gather
from airflow_dlaws.launchers.processing import ENGINE
from airflow_dlaws.links.aws import ReportLink, report_url
from airflow_dlaws.operators.base import airflow_errors, identity_of
from airflow_dlaws.operators.drift_fields import interval_of, label_plan, label_source, reference_of, text_map
from airflow_dlaws.operators.job import JobOperator, JobOutcome
from airflow_dlaws.operators.training_fields import integer
from airflow_dlaws.storage import ObjectStore, S3Uri

_CHOICES = {
    "on_drift": ("event", "fail", "branch", "return"),
    "on_inconclusive": ("fail", "skip"),
    "execution": ("worker", "sagemaker"),
}
_JOB_FIELDS = ("image", "role_arn", "instance_type", "volume_size_gb", "max_runtime_s", "environment", "tags",
               "subnets", "security_group_ids")  # fmt: skip


class DriftCheckOperator(JobOperator):
    """Judge a data set against the reference of a model, once, at a false-alarm rate of the decision.

    The data are one of: `data` (objects and prefixes in S3: CSV, JSON lines, Parquet), `data_manifest_s3_uri`,
    `data_snapshot` of a ChooseDataOperator (the very versions that it noted), `athena_query_id` (a query's result, or
    what it unloaded), or `capture_s3_uri` with `endpoint_name` (the captured requests of the run's data interval: a
    backfill reads its own past). Files are read one at a time, in bounded memory.

    Returns a :class:`~airflow_dlaws.drift.report.DriftSummary` as JSON, and leaves `drift.json` and `drift.html` in a
    folder of this task's own under `report_s3_uri`. Drift is also told to each `DriftVerdictTrigger` whose
    `state_s3_uri` is `report_s3_uri`, and whose `endpoint_name` is this one's, or the task id where there is none. A
    task that fails or is skipped has the same under the XCom key `drift_result`.

    :param reference_s3_uri: the reference profile; None takes drift_reference.json beside the model that
        `endpoint_name` serves.
    :param format: "csv", "jsonlines" or "parquet"; captured requests need none.
    :param header: whether the first line of each CSV file names the columns; else they are the reference's, in order.
    :param columns: {name in the reference: name in the data} where they differ. The model's answers are watched where
        the data have them: `prediction`, `predicted_label`, `probability[CLASS]`.
    :param window: the time that is meant, up to now, by a run without a data interval.
    :param labels: true labels that came later, to measure the accuracy with: {"data": ..., "format": "csv",
        "id_column": "id", "label_column": "label", "row_id_column": "id"}. Captured requests are known by their
        inference id.
    :param evidence: what others have found: {"kind": "model_monitor", "s3_uri": ...} and {"kind": "cloudwatch",
        "namespace": ..., "metric": ..., "above" or "below": ...}. See drift/outside.py for what they may decide.
    :param alpha: chance of a false alarm of this check, over all columns and all tests.
    :param min_effect: least population stability index that counts as drift.
    :param min_rows: fewer give no verdict.
    :param features: columns to watch; None watches all.
    :param on_drift: "event": succeed, and skip without drift, so that `outlets` tell drift alone. "fail": fail on
        drift, succeed without. "branch": go on with `follow_on_drift`, or `follow_on_no_drift`. "return": succeed with
        either.
    :param on_inconclusive: "fail" or "skip".
    :param execution: "worker", or "sagemaker": a processing job of `image`, which needs Python 3.11 and numpy (and
        pyarrow for Parquet), on an `instance_type`, as `role_arn`; it gets the data as files and needs no network.
    """

    template_fields: Sequence[str] = (
        "reference_s3_uri", "endpoint_name", "variant_name", "report_s3_uri", "data", "data_manifest_s3_uri",
        "data_snapshot", "athena_query_id", "capture_s3_uri", "columns", "labels", "evidence", "alpha", "min_effect",
        "min_rows", "features", "image", "role_arn", "instance_type", "environment", "tags",
    )  # fmt: skip
    template_fields_renderers = {"labels": "json", "evidence": "json", "columns": "json"}
    operator_extra_links = (*JobOperator.operator_extra_links, ReportLink())  # type: ignore[assignment]
    engine = ENGINE
    #: Airflow looks for what was skipped by a branch only where this is set.
    inherits_from_skipmixin = True
    ui_color = "#f6e7e2"

    def __init__(
        self,
        *,
        report_s3_uri: str,
        reference_s3_uri: str | None = None,
        endpoint_name: str | None = None,
        variant_name: str = "AllTraffic",
        data: str | Sequence[str] | None = None,
        data_manifest_s3_uri: str | None = None,
        data_snapshot: str | None = None,
        data_part: str = "evaluation",
        athena_query_id: str | None = None,
        capture_s3_uri: str | None = None,
        format: str = "csv",
        header: bool = True,
        columns: Mapping[str, str] | None = None,
        window: timedelta = timedelta(days=1),
        labels: Mapping[str, Any] | None = None,
        evidence: Sequence[Mapping[str, Any]] = (),
        alpha: float | str = 0.05,
        min_effect: float | str = 0.2,
        min_rows: int | str = 100,
        features: Sequence[str] | None = None,
        on_drift: Literal["event", "fail", "branch", "return"] = "event",
        on_inconclusive: Literal["fail", "skip"] = "fail",
        follow_on_drift: str | Sequence[str] = (),
        follow_on_no_drift: str | Sequence[str] = (),
        execution: Literal["worker", "sagemaker"] = "worker",
        image: str | None = None,
        role_arn: str | None = None,
        instance_type: str | None = None,
        volume_size_gb: int = 30,
        max_runtime_s: int = 3600,
        environment: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        subnets: Sequence[str] = (),
        security_group_ids: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.report_s3_uri, self.reference_s3_uri = report_s3_uri, reference_s3_uri
        self.endpoint_name, self.variant_name = endpoint_name, variant_name
        self.data, self.data_manifest_s3_uri = data, data_manifest_s3_uri
        self.data_snapshot, self.data_part = data_snapshot, data_part
        self.athena_query_id, self.capture_s3_uri = athena_query_id, capture_s3_uri
        self.format, self.header, self.columns, self.window = format, header, columns, window
        self.labels, self.evidence = labels, evidence
        self.alpha, self.min_effect, self.min_rows, self.features = alpha, min_effect, min_rows, features
        self.on_drift, self.on_inconclusive = on_drift, on_inconclusive
        self.follow_on_drift, self.follow_on_no_drift = follow_on_drift, follow_on_no_drift
        self.execution, self.image, self.role_arn, self.instance_type = execution, image, role_arn, instance_type
        self.volume_size_gb, self.max_runtime_s = volume_size_gb, max_runtime_s
        self.environment, self.tags = environment, tags
        self.subnets, self.security_group_ids = subnets, security_group_ids
        self._refuse_early()

    def execute(self, context: Context) -> Any:
        """Check here, or start the job that does."""
        with airflow_errors():
            order = self._order(context)
            if self.execution == "worker" or not order.source.is_given:
                return self._conclude(context, order, self._checks.run_here(order))
        return super().execute(context)

    def specification(self, context: Context) -> ProcessingSpec:
        """Return the job; pins the data, for all tries of the task."""
        order = self._order(context)
        return ProcessingSpec(
            image=str(self.image),
            command=job_command(),
            inputs=self._checks.prepare_job(order),
            outputs={"verdict": str(findings_folder(order))},
            role_arn=str(self.role_arn),
            instance_type=str(self.instance_type),
            volume_size_gb=self.volume_size_gb,
            environment=dict(self.environment or {}),
            max_runtime_s=self.max_runtime_s,
            subnets=tuple(self.subnets),
            security_group_ids=tuple(self.security_group_ids),
            tags=dict(self.tags or {}),
        )

    def result(self, context: Context, outcome: JobOutcome) -> Any:
        """Read the verdict that the job has left, and act on it."""
        order = self._order(context)
        return self._conclude(context, order, self._checks.job_findings(order))

    def _conclude(self, context: Context, order: CheckOrder, checked: Checked) -> Any:
        """Ask the others, publish the report, and turn the outcome into a task state."""
        start, end = interval_of(context, self.window)
        evidence = gather(self.aws.client, [parse_evidence(each) for each in self.evidence], start, end)
        summary = self._checks.publish(order, checked, evidence)
        address = report_url(self.aws.client("s3"), S3Uri.parse(summary.report_html_uri))
        ReportLink.store(context, address)
        self.log.info("%s. Report: %s", summary.sentence.rstrip("."), address)
        document: dict[str, Any] = to_json(summary)
        context["ti"].xcom_push(key="drift_result", value=document)
        if summary.outcome is DriftOutcome.DRIFT:
            self._tell_watchers(order, document)
        return self._act(context, summary, document, address)

    def _tell_watchers(self, order: CheckOrder, document: Mapping[str, Any]) -> None:
        """Write the verdict that asset watchers look for, once for all tries of the task."""
        store = ObjectStore(self.aws.client("s3"))
        found = first_found(store, order.folder, datetime.now(UTC))
        folder = verdict_folder(S3Uri.parse(self.report_s3_uri), order.subject, self.variant_name)
        publish(store, folder, found, event_extra(document))

    def _act(self, context: Context, summary: DriftSummary, document: dict[str, Any], address: str) -> Any:
        message = f"{summary.sentence.rstrip('.')}. Report: {address}"
        if summary.outcome is DriftOutcome.INCONCLUSIVE:
            raise AirflowSkipException(message) if self.on_inconclusive == "skip" else Inconclusive(message)
        drifted = summary.outcome is DriftOutcome.DRIFT
        if drifted and self.on_drift == "fail":
            raise OutcomeUnacceptable(message)
        if not drifted and self.on_drift == "event":
            raise AirflowSkipException(message)
        if self.on_drift == "branch":
            # Skipping ends the task without its return value: whoever follows finds it, and its fields, all the same.
            for key, value in {"return_value": document, **document}.items():
                context["ti"].xcom_push(key=key, value=value)
            follow_only(context, self.follow_on_drift if drifted else self.follow_on_no_drift)
        if drifted:
            for outlet in self.outlets:
                if isinstance(outlet, Asset):
                    context["outlet_events"][outlet].extra = event_extra(document)
        return document

    @property
    def _checks(self) -> DriftChecks:
        return DriftChecks(self.aws.client)

    def _order(self, context: Context) -> CheckOrder:
        start, end = interval_of(context, self.window)
        source = self._source(context)
        reference, model = reference_of(
            self.aws.client, self.reference_s3_uri, self.endpoint_name, self.variant_name, needed=source.is_given
        )
        labels = label_source(self.labels) if self.labels else None
        return CheckOrder(
            subject=self.endpoint_name or self.task_id,
            model=model,
            reference=reference,
            plan=BatchPlan(
                format=CAPTURE if source.capture else self.format,
                settings=self._settings(),
                header=self.header,
                columns=text_map("columns", self.columns),
                start=start if source.capture else None,
                end=end if source.capture else None,
                labels=label_plan(self.labels) if self.labels else None,
            ),
            source=source,
            labels=labels,
            # A folder for each task of each run, the same for its retries.
            folder=S3Uri.parse(self.report_s3_uri) / identity_of(context).name("drift", role="check"),
        )

    def _source(self, context: Context) -> Source:
        capture = None
        if self.capture_s3_uri:
            if not self.endpoint_name:
                raise SpecificationError("capture_s3_uri needs endpoint_name: captured files lie under it")
            capture = str(S3Uri.parse(self.capture_s3_uri) / self.endpoint_name / self.variant_name)
        start, end = interval_of(context, self.window)
        return Source(
            locations=(self.data,) if isinstance(self.data, str) else tuple(self.data or ()),
            manifest=self.data_manifest_s3_uri or None,
            snapshot=self.data_snapshot or None,
            part=self.data_part,
            athena_query_id=self.athena_query_id or None,
            capture=capture,
            start=start,
            end=end,
        )

    def _settings(self) -> DriftSettings:
        try:
            return DriftSettings(
                alpha=float(self.alpha),
                min_effect=float(self.min_effect),
                min_rows=integer("min_rows", self.min_rows) or 0,
                features=None if self.features is None else tuple(self.features),
            )
        except (TypeError, ValueError) as error:
            raise SpecificationError(f"DriftCheckOperator: {error}") from error

    def _refuse_early(self) -> None:
        """Refuse at parse time what is known by then to be wrong."""
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise SpecificationError(f"{name}={getattr(self, name)!r} is none of {list(allowed)}")
        told = [outlet for outlet in self.outlets if isinstance(outlet, Asset)]
        if told and self.on_drift in ("branch", "return"):
            raise SpecificationError(
                f"on_drift={self.on_drift!r} succeeds without drift too, and Airflow then tells of {told[0]}: "
                "set on_drift='event', or leave the asset out"
            )
        if (self.on_drift == "branch") != bool(self.follow_on_drift or self.follow_on_no_drift):
            raise SpecificationError(
                "on_drift='branch' and follow_on_drift, follow_on_no_drift (task ids) belong together"
            )
        if not is_template([self.alpha, self.min_effect, self.min_rows, self.features]):
            self._settings()
        if not is_template(self.report_s3_uri):
            limits.check_s3_uri("report_s3_uri", self.report_s3_uri)
        if not is_template(self.evidence):
            _ = [parse_evidence(each) for each in self.evidence]
        self._refuse_job_early()

    def _refuse_job_early(self) -> None:
        if self.execution != "sagemaker":
            return
        for name in _JOB_FIELDS:
            value = getattr(self, name)
            value = {} if name in ("environment", "tags") and value is None else value
            if name in FIELD_CHECKS and not is_template(value):
                FIELD_CHECKS[name](name, value)
