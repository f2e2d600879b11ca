"""`DistributedTrainingOperator`: one training job on N instances with G processes each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow_dlaws._compat import Context
from airflow_dlaws.errors import JobFailed
from airflow_dlaws.hooks.launcher import launcher_for
from airflow_dlaws.jobs.cost import Price, estimate, spot_saving, together
from airflow_dlaws.jobs.images import warn_if_outdated
from airflow_dlaws.jobs.limits import is_template
from airflow_dlaws.jobs.machines import instance_types
from airflow_dlaws.jobs.reference import JobReference, JobStatus, TrainingResult
from airflow_dlaws.jobs.spec import (
    DEFAULT_MAX_RUNTIME_S,
    FIELD_CHECKS,
    CapacityPreference,
    Channel,
    InstanceGroup,
    TrainingSpec,
)
from airflow_dlaws.jobs.together import check_together
from airflow_dlaws.jobs.wire import to_json
from airflow_dlaws.launchers.artifact import holds_files
from airflow_dlaws.launchers.extra_request import check_extra
from airflow_dlaws.launchers.prices import training_price
from airflow_dlaws.launchers.protocol import Traceable
from airflow_dlaws.operators.base import run_of
from airflow_dlaws.operators.chosen_data import data_read, is_first_try, refuse_model_of_other_data, refuse_other_data
from airflow_dlaws.operators.job import JobOutcome
from airflow_dlaws.operators.training_fields import INTEGERS, dollars, known_channels, read
from airflow_dlaws.operators.training_options import TrainingOptions
from airflow_dlaws.registry.manifest import FILE_NAME, ModelManifest
from airflow_dlaws.storage import ObjectStore, S3Uri

#: Places of code, which may be relative to the DAG file.
_FOLDERS = ("source", "dependencies")


class DistributedTrainingOperator(TrainingOptions):
    """Trains a model in one SageMaker training job and returns a `TrainingResult` as JSON.

    A retry adopts the job of the try before; a cleared task starts a new one. The script runs under torchrun with
    `instance_count` x `processes_per_instance` processes, or under plain Python where that is one. It finds its data
    under SM_CHANNEL_<NAME>, and writes the model to SM_MODEL_DIR and other results to SM_OUTPUT_DATA_DIR. Beside the
    model this task leaves manifest.json, a :class:`~airflow_dlaws.registry.manifest.ModelManifest`.

    :param image: URI of a container image with Python and what the script imports; or give `framework` and
        `framework_version` ("pytorch", "2.13") for AWS's Deep Learning Container in the region of the job.
    :param source: folder with the code, relative to the DAG file or absolute, or an s3://bucket/prefix.
    :param dependencies: further folders with code, such as ["../training_scripts/sm_runtime"], each copied beside the
        code under its own name; given as `source` is.
    :param entry_point: script in that folder; gets the hyperparameters as `--name value`, then `arguments`.
    :param channels: name -> s3://bucket/prefix, fsx://fs-ID/MOUNTNAME/path or efs://fs-ID/path, or a Channel, or the
        fields of one as a mapping.
    :param output_s3_uri: where the job's artifacts go, each under the job's name.
    :param data_snapshot: where the versions of the data are noted: the `snapshot` of ChooseDataOperator. The task fails
        if an object holds other bytes before the job starts, or when it has ended. The model's manifest names them all.
    :param role_arn: the role the job runs as.
    :param instance_type: of all hosts; or `instance_groups` ([{"name": ..., "instance_type": ..., "instance_count":
        ...}]), or `capacity_preferences` (["ml.p5.48xlarge", {"instance_type": ..., "instance_count": ...}]), of which
        AWS takes the first that it has.
    :param processes_per_instance: worker processes on each host; by default one an accelerator, 1 on a CPU machine.
    :param metrics: names from the script's metric lines that the service should track.
    :param spot: use spare capacity; needs `checkpoint_s3_uri` and `max_wait_s`.
    :param checkpoint_s3_uri: root of all checkpoints: each task has a folder of its own there, which its retries find
        and nobody else does.
    :param resume_on_clear: a cleared task goes on from its checkpoints, if what it trains is the same; without it, a
        cleared task begins at zero.
    :param price_per_hour: US dollars for an hour of one instance, for the cost in the result; without it, the on-demand
        price of the AWS Price List.
    :param code_s3_uri: where code is published under its digest; `<output_s3_uri>/code` if left out.
    :param extra_request: further members of CreateTrainingJob, checked against the installed botocore.

    The other parameters are those of :class:`TrainingOptions`, :class:`TrainingSpec` and :class:`JobOperator`.
    Numbers may be given as templates.
    """

    template_fields: Sequence[str] = (
        "image",
        "framework",
        "framework_version",
        "source",
        "dependencies",
        "entry_point",
        "arguments",
        "hyperparameters",
        "channels",
        "data_snapshot",
        "output_s3_uri",
        "code_s3_uri",
        "checkpoint_s3_uri",
        "role_arn",
        "instance_type",
        "instance_groups",
        "capacity_preferences",
        "training_plan_arn",
        "environment",
        "metrics",
        "tags",
        "subnets",
        "security_group_ids",
        "kms_key_id",
        "price_per_hour",
        "volume_kms_key_id",
        "output_compression",
        "mlflow",
        "model_package",
        "extra_request",
        "job_queue",
        *INTEGERS,
    )
    template_fields_renderers = {
        "job_queue": "json",
        "arguments": "json",
        "hyperparameters": "json",
        "channels": "json",
        "instance_groups": "json",
        "capacity_preferences": "json",
        "environment": "json",
        "metrics": "json",
        "tags": "json",
        "mlflow": "json",
        "model_package": "json",
        "extra_request": "json",
    }
    ui_color = "#d7e8fb"

    def __init__(
        self,
        *,
        source: str | Path,
        entry_point: str,
        output_s3_uri: str,
        role_arn: str,
        image: str | None = None,
        framework: str | None = None,
        framework_version: str | None = None,
        instance_type: str | None = None,
        instance_count: int | str = 1,
        instance_groups: Sequence[InstanceGroup | Mapping[str, Any]] | str = (),
        capacity_preferences: Sequence[CapacityPreference | Mapping[str, Any] | str] | str = (),
        processes_per_instance: int | str | None = None,
        dependencies: Sequence[str | Path] = (),
        channels: Mapping[str, str | Channel | Mapping[str, Any]] | None = None,
        data_snapshot: str | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        metrics: Sequence[str] = (),
        volume_size_gb: int | str = 30,
        max_runtime_s: int | str = DEFAULT_MAX_RUNTIME_S,
        spot: bool = False,
        max_wait_s: int | str | None = None,
        checkpoint_s3_uri: str | None = None,
        resume_on_clear: bool = False,
        price_per_hour: float | str | None = None,
        code_s3_uri: str | None = None,
        tags: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.image = image
        self.framework, self.framework_version = framework, framework_version
        self.source, self.dependencies, self.entry_point = source, dependencies, entry_point
        self.output_s3_uri = output_s3_uri
        self.role_arn = role_arn
        self.instance_type, self.instance_count = instance_type, instance_count
        self.instance_groups = instance_groups
        self.capacity_preferences = capacity_preferences
        self.processes_per_instance = processes_per_instance
        self.channels = channels
        self.data_snapshot = data_snapshot
        self.hyperparameters = hyperparameters
        self.arguments = arguments
        self.environment = environment
        self.metrics = metrics
        self.volume_size_gb = volume_size_gb
        self.max_runtime_s = max_runtime_s
        self.spot = spot
        self.max_wait_s = max_wait_s
        self.checkpoint_s3_uri, self.resume_on_clear = checkpoint_s3_uri, resume_on_clear
        self.price_per_hour, self.code_s3_uri = price_per_hour, code_s3_uri
        self.tags = tags
        self._check_what_is_known()

    def specification(self, context: Context) -> TrainingSpec:
        """Return the whole specification; by now nothing is a template any more."""
        if self.data_snapshot and is_first_try(context["ti"], self.retries):
            refuse_other_data(ObjectStore(self.aws.client("s3")), self.data_snapshot)
        fields = {name: self._value(name) for name in (*FIELD_CHECKS, "channels") if name not in _FOLDERS}
        folders = tuple(self._located(folder) for folder in self.dependencies)
        spec = TrainingSpec(**fields, source=self._located(self.source), dependencies=folders)
        if spec.image:
            return spec
        self._warn_if_outdated()
        return spec.in_region(self.aws.region)

    def result(self, context: Context, outcome: JobOutcome) -> dict[str, Any]:
        """Return the TrainingResult as JSON.

        :raises JobFailed: the job completed but has left no model behind.
        """
        reference, status = outcome.reference, outcome.status
        artifact = status.artifact_uri
        if not artifact or not holds_files(self.aws.client("s3"), S3Uri.parse(artifact)):
            raise JobFailed(
                f"Job {reference.name} completed, but there is no model file at {artifact or self.output_s3_uri}: "
                "the script must write it to the folder named by SM_MODEL_DIR"
            )
        result = TrainingResult(
            job_name=reference.name,
            job_arn=reference.arn,
            artifact_uri=artifact,
            output_uri=status.output_uri or "",
            metrics=status.metrics,
            billable_seconds=status.billable_seconds,
            **self._machines(status),
            adopted=outcome.adopted,
            attempts=outcome.attempt,
            manifest_uri=str(S3Uri.parse(artifact).parent / FILE_NAME),
            training_seconds=status.training_seconds,
            spot_saving=spot_saving(status.billable_seconds, status.training_seconds) if self.spot else None,
            interruptions=status.interruptions,
        )
        result = self._with_cost(result, reference)
        self._write_manifest(context, reference, result)
        self.log.info("Job %s completed: %s", reference.name, to_json(result))
        return dict(to_json(result))

    def _with_cost(self, result: TrainingResult, job: JobReference) -> TrainingResult:
        """Add what the job has cost; that the price is not known fails nothing."""
        groups = read("instance_groups", self.instance_groups)
        hosts = {result.instance_type: result.instance_count}
        if groups:
            hosts = dict.fromkeys((group.instance_type for group in groups), 0)
            for group in groups:
                hosts[group.instance_type] += group.instance_count
        estimates = [
            estimate(
                self._price(name, job.region),
                billable_seconds=result.billable_seconds,
                instances=count,
                instance_type=name,
            )
            for name, count in hosts.items()
        ]
        cost, basis = together(estimates)
        return replace(result, cost_usd=cost, cost_basis=basis)

    def _price(self, instance_type: str, region: str) -> Price:
        if (given := dollars("price_per_hour", self.price_per_hour)) is not None:
            return Price(usd_per_hour=given, source="price_per_hour")
        if instance_type.startswith("ml.") and "," not in instance_type:
            return training_price(self.aws.client("pricing"), region=region, instance_type=instance_type)
        why = f"no price list has {instance_type!r}; set price_per_hour to have it"
        return Price(usd_per_hour=None, source=why)

    def _machines(self, status: JobStatus) -> dict[str, Any]:
        """Return the hosts that the job had: what AWS has chosen, where it had a choice and tells it."""
        groups = read("instance_groups", self.instance_groups)
        asked = instance_types(self.instance_type, groups, read("capacity_preferences", self.capacity_preferences))
        chosen = () if groups or not status.instance_type else (status.instance_type,)
        count = sum(group.instance_count for group in groups) or status.instance_count or int(self.instance_count)
        return {"instance_type": ",".join(chosen or asked), "instance_count": count}

    def _write_manifest(self, context: Context, job: JobReference, result: TrainingResult) -> None:
        """Leave the model's lineage beside it; `job` has trained it.

        :raises OutcomeUnacceptable: the data are not the chosen ones any more; the manifest is there all the same.
        """
        store = ObjectStore(self.aws.client("s3"))
        snapshot, changed = data_read(store, self.data_snapshot)
        launcher = launcher_for(job.engine, self.aws)
        request = launcher.request(job) if isinstance(launcher, Traceable) else {}
        manifest = ModelManifest(
            artifact=store.stat(S3Uri.parse(result.artifact_uri)),
            image=self.image or str(request.get("AlgorithmSpecification", {}).get("TrainingImage", "")),
            training=to_json(result),
            data_uris=tuple(channel.uri for channel in read("channels", self.channels)),
            data=snapshot,
            data_changes=changed,
            request=request,
            billable_instance_seconds=result.billable_seconds * result.instance_count,
            cost_usd=result.cost_usd,
            cost_basis=result.cost_basis,
            airflow=run_of(context),
        )
        store.write_json(S3Uri.parse(str(result.manifest_uri)), to_json(manifest))
        refuse_model_of_other_data(changed, result)

    def _check_what_is_known(self) -> None:
        """Check, when the DAG is parsed, every value that holds no template."""
        for name, check in FIELD_CHECKS.items():
            if not is_template(getattr(self, name)):
                check(name, self._value(name))
        if not is_template(self.price_per_hour):
            dollars("price_per_hour", self.price_per_hour)
        read("channels", known_channels(self.channels))
        check_together(self._value, lambda name: not is_template(getattr(self, name)))
        if self.extra_request and not is_template(self.extra_request):
            check_extra(self.extra_request)
        if self.framework and not is_template([self.framework, self.framework_version]):
            self._warn_if_outdated()

    def _warn_if_outdated(self) -> None:
        """Warn when the DAG is parsed, and in the task's log: a template may have named the version."""
        warn_if_outdated(str(self.framework), str(self.framework_version), datetime.now(UTC).date())

    def _value(self, name: str) -> Any:
        """Return a field as TrainingSpec takes it."""
        return read(name, getattr(self, name))

    def _located(self, folder: str | Path) -> str:
        """Return a folder of code by its whole path; a relative one lies beside the DAG file."""
        if str(folder).startswith("s3://") or Path(folder).is_absolute():
            return str(folder)
        return str(Path(self.dag.fileloc).parent / folder)
