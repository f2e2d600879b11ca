"""`SlurmTrainingOperator`: one training job on N nodes of a Slurm cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from airflow_dlaws._compat import Context
from airflow_dlaws.errors import JobFailed, SpecificationError
from airflow_dlaws.hooks.launcher import launcher_for
from airflow_dlaws.jobs.cost import Price, estimate
from airflow_dlaws.jobs.limits import is_template
from airflow_dlaws.jobs.reference import TrainingResult
from airflow_dlaws.jobs.slurm_spec import SLURM_FIELD_CHECKS, SlurmCluster, SlurmSpec
from airflow_dlaws.jobs.spec import DEFAULT_MAX_RUNTIME_S
from airflow_dlaws.jobs.wire import to_json
from airflow_dlaws.launchers.artifact import holds_files
from airflow_dlaws.launchers.protocol import Collecting, Traceable
from airflow_dlaws.launchers.slurm import ENGINE
from airflow_dlaws.operators.base import run_of
from airflow_dlaws.operators.chosen_data import data_read, is_first_try, refuse_model_of_other_data, refuse_other_data
from airflow_dlaws.operators.job import JobOperator, JobOutcome
from airflow_dlaws.operators.training_fields import dollars, integer
from airflow_dlaws.registry.manifest import FILE_NAME, ModelManifest
from airflow_dlaws.storage import ObjectStore, S3Uri

#: Numbers, which may come from templates as text.
_INTEGERS = ("instance_count", "processes_per_instance", "max_runtime_s")


class SlurmTrainingOperator(JobOperator):
    """Trains a model in one job of a Slurm cluster (ParallelCluster, PCS) and returns a `TrainingResult` as JSON.

    The script finds the same surroundings as in a SageMaker job (SM_* variables, torchrun over all nodes), and the task
    behaves alike: a retry adopts the job of the try before, killing the task stops the job.

    :param cluster: a :class:`SlurmCluster`, or its fields as a mapping: `{"address": "ssh://CONNECTION", "work_dir":
        "/fsx/dlaws", "partition": "gpu"}`.
    :param channels: name -> path that all nodes share, or s3://bucket/prefix.
    :param instance_count: nodes; `processes_per_instance` worker processes on each.
    :param output_s3_uri: where the task puts the model once the job has ended.
    :param data_snapshot: where the versions of data in S3 are noted: the `snapshot` of ChooseDataOperator. The task
        fails if an object holds other bytes before the job starts, or when it has ended.
    :param resume_on_clear: a cleared task goes on from its checkpoints, if what it trains is the same; without it, a
        cleared task begins at zero.
    :param price_per_hour: US dollars for an hour of one node, for the cost in the result.

    The other parameters are those of :class:`SlurmSpec` and :class:`JobOperator`. Numbers may be given as templates.
    """

    engine = ENGINE
    template_fields: Sequence[str] = (
        "cluster", "source", "dependencies", "entry_point", "output_s3_uri", "image", "arguments", "hyperparameters",
        "channels", "code_s3_uri", "environment", "metrics", "data_snapshot", "price_per_hour", *_INTEGERS,
    )  # fmt: skip
    template_fields_renderers = dict.fromkeys(
        ("cluster", "arguments", "hyperparameters", "channels", "environment", "metrics"), "json"
    )
    ui_color = "#d7e8fb"

    def __init__(
        self,
        *,
        cluster: SlurmCluster | Mapping[str, Any],
        source: str | Path,
        entry_point: str,
        output_s3_uri: str,
        dependencies: Sequence[str | Path] = (),
        instance_count: int | str = 1,
        processes_per_instance: int | str = 1,
        image: str | None = None,
        arguments: Sequence[str] = (),
        hyperparameters: Mapping[str, Any] | None = None,
        channels: Mapping[str, str] | None = None,
        code_s3_uri: str | None = None,
        data_snapshot: str | None = None,
        max_runtime_s: int | str = DEFAULT_MAX_RUNTIME_S,
        resume_on_clear: bool = False,
        price_per_hour: float | str | None = None,
        environment: Mapping[str, str] | None = None,
        metrics: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster
        self.source, self.dependencies, self.entry_point = source, dependencies, entry_point
        self.output_s3_uri, self.code_s3_uri = output_s3_uri, code_s3_uri
        self.instance_count, self.processes_per_instance = instance_count, processes_per_instance
        self.image = image
        self.arguments = arguments
        self.hyperparameters = hyperparameters
        self.channels = channels
        self.data_snapshot = data_snapshot
        self.max_runtime_s, self.resume_on_clear = max_runtime_s, resume_on_clear
        self.price_per_hour = price_per_hour
        self.environment = environment
        self.metrics = metrics
        self._check_what_is_known()

    @property
    def stops_through(self) -> tuple[str, ...]:
        """See `KeptJob`."""
        return (_cluster(self.cluster).address,)

    def specification(self, context: Context) -> SlurmSpec:
        """Return the whole specification; by now nothing is a template any more."""
        if self.data_snapshot and is_first_try(context["ti"], self.retries):
            refuse_other_data(ObjectStore(self.aws.client("s3")), self.data_snapshot)
        fields = {name: self._value(name) for name in SLURM_FIELD_CHECKS}
        folders = {"source": self._located(self.source), "dependencies": tuple(map(self._located, self.dependencies))}
        more = {**fields, **folders, "resume_on_clear": self.resume_on_clear}
        return SlurmSpec(cluster=_cluster(self.cluster), **more)

    def result(self, context: Context, outcome: JobOutcome) -> dict[str, Any]:
        """Return the TrainingResult as JSON.

        :raises JobFailed: the job completed but has left no model behind.
        :raises OutcomeUnacceptable: the data are not the chosen ones any more.
        """
        job, launcher = outcome.reference, launcher_for(ENGINE, self.aws)
        assert isinstance(launcher, Collecting)
        status = launcher.collect(job, outcome.status)
        artifact = S3Uri.parse(str(status.artifact_uri))
        if not holds_files(self.aws.client("s3"), artifact):
            raise JobFailed(
                f"Job {job.name} completed, but there is no model file in {artifact}: the script must write it to the "
                "folder named by SM_MODEL_DIR"
            )
        result = self._with_cost(
            TrainingResult(
                job_name=job.name,
                job_arn=job.arn,
                artifact_uri=str(artifact),
                output_uri=status.output_uri or "",
                metrics=status.metrics,
                billable_seconds=status.billable_seconds,
                training_seconds=status.training_seconds,
                instance_type=_cluster(self.cluster).partition or "slurm",
                instance_count=self._value("instance_count"),
                adopted=outcome.adopted,
                attempts=outcome.attempt,
                manifest_uri=str(artifact.parent / FILE_NAME),
            )
        )
        self._write_manifest(context, result, launcher.request(job) if isinstance(launcher, Traceable) else {})
        return dict(to_json(result))

    def _with_cost(self, result: TrainingResult) -> TrainingResult:
        """Add what the nodes have cost; that the price is not known fails nothing."""
        given = dollars("price_per_hour", self.price_per_hour)
        known = given is not None
        cost, basis = estimate(
            Price(
                usd_per_hour=given,
                source="price_per_hour"
                if known
                else "a cluster's nodes are on no price list; set price_per_hour to have it",
            ),
            billable_seconds=result.billable_seconds,
            instances=result.instance_count,
            instance_type=f"a node of {result.instance_type}",
        )
        return replace(result, cost_usd=cost, cost_basis=basis)

    def _write_manifest(self, context: Context, result: TrainingResult, request: Mapping[str, Any]) -> None:
        """Leave the model's lineage beside it."""
        store = ObjectStore(self.aws.client("s3"))
        snapshot, changed = data_read(store, self.data_snapshot)
        manifest = ModelManifest(
            artifact=store.stat(S3Uri.parse(result.artifact_uri)),
            image=self.image or "",
            training=to_json(result),
            data_uris=tuple((self.channels or {}).values()),
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
        if not is_template(self.cluster):
            _cluster(self.cluster)
        for name, check in SLURM_FIELD_CHECKS.items():
            if not is_template(getattr(self, name)):
                check(name, self._value(name))
        if not is_template(self.price_per_hour):
            dollars("price_per_hour", self.price_per_hour)

    def _value(self, name: str) -> Any:
        """Return a field as SlurmSpec takes it."""
        value = getattr(self, name)
        if name in _INTEGERS:
            return integer(name, value)
        if name in ("hyperparameters", "environment", "channels"):
            return {} if value is None else value
        if name in ("arguments", "metrics"):
            return value if isinstance(value, str) else tuple(value or ())
        if name == "dependencies":
            return tuple(str(folder) for folder in value)
        return str(value) if name == "source" else value

    def _located(self, folder: str | Path) -> str:
        """Return a folder of code by its whole path; a relative one lies beside the DAG file."""
        if str(folder).startswith("s3://") or Path(folder).is_absolute():
            return str(folder)
        return str(Path(self.dag.fileloc).parent / folder)


def _cluster(value: Any) -> SlurmCluster:
    """Read a cluster given as itself or by its fields."""
    if isinstance(value, SlurmCluster):
        return value
    try:
        return SlurmCluster(**value)
    except TypeError as error:
        raise SpecificationError(f"cluster={value!r}: {error}") from error
