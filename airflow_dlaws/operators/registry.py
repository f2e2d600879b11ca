"""Putting a trained model into the SageMaker model registry: `RegisterModelOperator`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_dlaws._compat import Context
from airflow_dlaws.errors import OutcomeUnacceptable, SpecificationError
from airflow_dlaws.jobs import wire
from airflow_dlaws.jobs.identity import digest_of
from airflow_dlaws.jobs.limits import is_template
from airflow_dlaws.jobs.output_archive import read_members
from airflow_dlaws.links.aws import ConsoleLink, sagemaker_console_url
from airflow_dlaws.operators.base import DlawsOperator, airflow_errors, held_back, identity_of, run_of
from airflow_dlaws.registry.manifest import (
    DRIFT_REFERENCE,
    MODEL_CARD,
    MONITOR_CONSTRAINTS,
    MONITOR_STATISTICS,
    ModelManifest,
    PublishedFiles,
    publish,
    read_manifest,
)
from airflow_dlaws.registry.package import (
    TOKEN_LIMIT,
    PackageResult,
    PackageSpec,
    create_once,
    ensure_group,
    quality_document,
    read_back,
)
from airflow_dlaws.storage import ObjectStore, S3Uri

#: Stands for an artifact that another task has yet to make, when the rest is checked at parse time.
_LATER = "s3://known-at-run-time/model.tar.gz"
_METRICS = "model_quality.json"
#: What only the training task knows, and has left in the manifest.
_OF_TRAINING = ("data_uris", "data", "data_changes", "request", "cost_usd", "cost_basis")


class RegisterModelOperator(DlawsOperator):
    """Register a model as a new version of a model package group, with its lineage and what is needed to watch it.

    Beside the artifact it writes manifest.json (lineage), model_quality.json (metrics), and drift_reference.json and
    model_card.json out of the training job's output archive; the drift reference also as model_monitor/statistics.json
    and constraints.json, which the version names as its baselines of data quality. A retry finds the version that an
    earlier try made; a cleared task makes another one. Returns a :class:`~airflow_dlaws.registry.package.PackageResult`
    as JSON.

    :param model_package_group: made if it is not there.
    :param artifact_uri: model.tar.gz in S3; taken from `training` if left out.
    :param output_uri: output.tar.gz of the training job; taken from `training` if left out, may be missing altogether.
    :param image: container image that serves the model.
    :param training: XCom of the training task, for lineage and the two locations above.
    :param evaluation: XCom of the evaluation task: its challenger's metrics become the version's.
    :param validation: XCom of the validation task.
    :param data_uris: where the training data are.
    :param lineage: more facts for the manifest (JSON): code digest, parameters; `commit_id` is shown in the console.
    :param content_types: what the model takes; :param response_types: what it answers.
    :param instance_types: what it is meant to be served on.
    :param environment: variables of the serving container.
    :param approval_status: "Approved", "PendingManualApproval" or "Rejected".
    :param allow_backfill: approve in backfills and overtaken runs too. Without it they register "PendingManualApproval"
        in place of "Approved", which often is what deploys: pipelines wait for it, or take the newest approved version.
    """

    template_fields: Sequence[str] = (
        "model_package_group",
        "artifact_uri",
        "output_uri",
        "image",
        "training",
        "evaluation",
        "validation",
        "data_uris",
        "lineage",
        "environment",
        "approval_status",
        "allow_backfill",
        "description",
    )
    operator_extra_links = (ConsoleLink(),)
    ui_color = "#e4e8f1"

    def __init__(
        self,
        *,
        model_package_group: str,
        image: str,
        artifact_uri: str | None = None,
        output_uri: str | None = None,
        training: Mapping[str, Any] | str | None = None,
        evaluation: Mapping[str, Any] | str | None = None,
        validation: Mapping[str, Any] | str | None = None,
        data_uris: str | Sequence[str] = (),
        lineage: Mapping[str, Any] | str | None = None,
        content_types: Sequence[str] = ("text/csv",),
        response_types: Sequence[str] = ("text/csv",),
        instance_types: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        approval_status: str = "PendingManualApproval",
        allow_backfill: bool | str = False,
        description: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_package_group = model_package_group
        self.image = image
        self.artifact_uri = artifact_uri
        self.output_uri = output_uri
        self.training = training
        self.evaluation = evaluation
        self.validation = validation
        self.data_uris = data_uris
        self.lineage = lineage
        self.content_types = content_types
        self.response_types = response_types
        self.instance_types = instance_types
        self.environment = environment
        self.approval_status = approval_status
        self.allow_backfill = allow_backfill
        self.description = description
        self._refuse_early()

    def execute(self, context: Context) -> dict[str, Any]:
        """Publish what belongs to the model, register it, read the version back."""
        with airflow_errors():
            identity = identity_of(context)
            sagemaker, store = self.aws.client("sagemaker"), ObjectStore(self.aws.client("s3"))
            manifest = self._manifest(store, context)
            folder = S3Uri.parse(manifest.artifact.uri).parent
            approval = self._approval(context)
            _refuse_unpassed(manifest.evaluation, approval)
            files = publish(store, folder, self._members(store, manifest), wire.to_json(manifest))
            metrics_uri = self._publish_metrics(store, folder, manifest)
            spec = self._spec(manifest, files, metrics_uri, approval)
            ensure_group(sagemaker, spec.group)
            token = identity.name(digest_of(wire.to_json(spec)), limit=TOKEN_LIMIT, role="package")
            package = read_back(sagemaker, create_once(sagemaker, store, spec, token=token))
            result = _result(package, files, metrics_uri)
            page = f"model-packages/{result.group}/{result.version}"
            ConsoleLink.store(context, sagemaker_console_url(self.aws.region, page))
            self.log.info("Registered %s as %s", result.artifact_uri, result.package_arn)
            return wire.to_json(result)  # type: ignore[no-any-return]

    def _refuse_early(self) -> None:
        """Refuse at parse time what is known by then to be wrong."""
        if self.artifact_uri is None and self.training is None:
            raise SpecificationError("give artifact_uri, or training: the XCom of the task that trained the model")
        known = {
            "group": self.model_package_group,
            "image": self.image,
            "approval_status": self.approval_status,
            "artifact_uri": self.artifact_uri or _LATER,
        }
        defaults = {"group": "later", "image": "later", "approval_status": "Approved", "artifact_uri": _LATER}
        checked: dict[str, Any] = {
            name: defaults[name] if is_template(value) else value for name, value in known.items()
        }
        PackageSpec(
            **checked,
            content_types=tuple(self.content_types),
            response_types=tuple(self.response_types),
        )

    def _approval(self, context: Context) -> str:
        """Return the status to register with: a backfill approves nothing that it was not asked to."""
        if self.approval_status != "Approved" or not held_back(context, self.allow_backfill):
            return self.approval_status
        self.log.info("A backfill approves nothing unless allow_backfill=True: registered as PendingManualApproval")
        return "PendingManualApproval"

    def _manifest(self, store: ObjectStore, context: Context) -> ModelManifest:
        training, evaluation = _mapping("training", self.training), _mapping("evaluation", self.evaluation)
        artifact = self.artifact_uri or training.get("artifact_uri")
        if not artifact:
            raise SpecificationError(f"training has no artifact_uri, only {sorted(training)}: give artifact_uri")
        if artifact.endswith("/"):
            raise SpecificationError(
                f"artifact_uri={artifact!r} is a model stored file by file (output_compression='NONE'); a package "
                "is registered from one archive: train with output_compression='GZIP'"
            )
        known: dict[str, Any] = {}
        if noted := training.get("manifest_uri"):
            trained = read_manifest(store, S3Uri.parse(noted))
            known = {name: getattr(trained, name) for name in _OF_TRAINING}
        data_uris = (self.data_uris,) if isinstance(self.data_uris, str) else tuple(self.data_uris or ())
        known["data_uris"] = data_uris or known.get("data_uris", ())
        billed = training.get("billable_seconds", 0) * training.get("instance_count", 1)
        return ModelManifest(
            **known,
            artifact=store.stat(S3Uri.parse(artifact)),
            image=self.image,
            environment=dict(self.environment or {}),
            model_package_group=self.model_package_group,
            training=training,
            validation=_mapping("validation", self.validation),
            evaluation=evaluation,
            lineage=_mapping("lineage", self.lineage),
            billable_instance_seconds=billed + evaluation.get("billable_seconds", 0),
            airflow=run_of(context),
        )

    def _members(self, store: ObjectStore, manifest: ModelManifest) -> dict[str, bytes]:
        """Return the drift reference and the model card out of the job's output archive, where it has them."""
        location = self.output_uri or manifest.training.get("output_uri")
        if not location:
            self.log.warning("No output archive: the model is registered without drift reference and model card")
            return {}
        with tempfile.TemporaryFile() as file:
            store.download(S3Uri.parse(location), file)
            file.seek(0)
            try:
                members = read_members(file, [DRIFT_REFERENCE, MODEL_CARD])
            except SpecificationError as error:
                raise SpecificationError(f"{location}: {error}") from error
        missing = sorted({DRIFT_REFERENCE, MODEL_CARD} - set(members))
        if missing:
            self.log.warning("%s has no %s: the training script writes them to SM_OUTPUT_DATA_DIR", location, missing)
        return {**members, **self._monitor_baselines(members)}

    def _monitor_baselines(self, members: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return the drift reference as Model Monitor's baselines, which the version names; none of another format."""
        from airflow_dlaws.drift.model_monitor_export import constraints_document, statistics_document
        from airflow_dlaws.drift.profile import parse_profile

        if DRIFT_REFERENCE not in members:
            return {}
        try:
            profile = parse_profile(members[DRIFT_REFERENCE])
        except SpecificationError as error:
            self.log.warning("The version gets no baselines for Model Monitor, and DriftSensor will refuse: %s", error)
            return {}
        documents = {
            MONITOR_STATISTICS: statistics_document(profile), MONITOR_CONSTRAINTS: constraints_document(profile),
        }  # fmt: skip
        return {name: json.dumps(document).encode() for name, document in documents.items()}

    def _publish_metrics(self, store: ObjectStore, folder: S3Uri, manifest: ModelManifest) -> str | None:
        metrics = manifest.evaluation.get("challenger") or manifest.training.get("metrics")
        if not metrics:
            return None
        store.write_json(folder / _METRICS, quality_document(metrics))
        return str(folder / _METRICS)

    def _spec(
        self, manifest: ModelManifest, files: PublishedFiles, metrics_uri: str | None, approval_status: str
    ) -> PackageSpec:
        return PackageSpec(
            group=self.model_package_group,
            image=self.image,
            artifact_uri=manifest.artifact.uri,
            content_types=tuple(self.content_types),
            response_types=tuple(self.response_types),
            instance_types=tuple(self.instance_types),
            environment=dict(self.environment or {}),
            approval_status=approval_status,
            description=self.description,
            metrics_s3_uri=metrics_uri,
            monitor_statistics_s3_uri=files.monitor_statistics_uri,
            monitor_constraints_s3_uri=files.monitor_constraints_uri,
            metadata=_facts(manifest, files),
            generated_by=str(manifest.training.get("job_arn") or manifest.training.get("job_name") or ""),
            commit_id=str(manifest.lineage.get("commit_id", "")),
        )


def _refuse_unpassed(evaluation: Mapping[str, Any], approval_status: str) -> None:
    """Refuse to approve what its evaluation did not let pass; it may still wait for a person."""
    if approval_status == "Approved" and evaluation.get("passed") is False:
        raise OutcomeUnacceptable(
            f"the evaluation did not let this model pass ({evaluation.get('reason')}): register it with "
            "approval_status='PendingManualApproval', or do not register it"
        )


def _facts(manifest: ModelManifest, files: PublishedFiles) -> dict[str, str]:
    """Return what the console should show of a version's lineage."""
    run, evaluation, validation = manifest.airflow, manifest.evaluation, manifest.validation
    return {
        "dag_id": run.dag_id,
        "run_id": run.run_id,
        "training_job": str(manifest.training.get("job_name", "")),
        "artifact_version": manifest.artifact.version_id or manifest.artifact.etag,
        "data": " ".join(manifest.data_uris),
        "manifest": files.manifest_uri,
        "drift_reference": files.drift_reference_uri or "",
        "model_card": files.model_card_uri or "",
        "verdict": str(evaluation.get("verdict", "")),
        "champion": str(evaluation.get("champion_artifact") or ""),
        "evaluation_report": str(evaluation.get("report_uri", "")),
        "validation_report": str(validation.get("report_uri", "")),
    }


def _result(package: Mapping[str, Any], files: PublishedFiles, metrics_uri: str | None) -> PackageResult:
    container = package["InferenceSpecification"]["Containers"][0]
    return PackageResult(
        package_arn=package["ModelPackageArn"],
        group=package["ModelPackageGroupName"],
        version=package["ModelPackageVersion"],
        approval_status=package["ModelApprovalStatus"],
        artifact_uri=container["ModelDataUrl"],
        image=container["Image"],
        manifest_uri=files.manifest_uri,
        drift_reference_uri=files.drift_reference_uri,
        model_card_uri=files.model_card_uri,
        metrics_uri=metrics_uri,
    )


def _mapping(name: str, value: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """Return an XCom that was handed over as it is, or as text by a Jinja template."""
    if not value:
        return {}
    if isinstance(value, Mapping):
        return dict(value)
    try:
        document = json.loads(value)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise SpecificationError(
            f"{name}={value!r} is no mapping: pass task.output, or a template that ends in | tojson"
        )
    return document
