"""`SlurmTrainingOperator`: one training job on N nodes of a Slurm cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow_dlaws._compat import Context
from airflow_dlaws.errors import JobFailed, SpecificationError
from airflow_dlaws.hooks.launcher import launcher_for
from airflow_dlaws.jobs.limits import is_template
from airflow_dlaws.jobs.reference import TrainingResult
from airflow_dlaws.jobs.slurm_spec import SLURM_FIELD_CHECKS, SlurmCluster, SlurmSpec
from airflow_dlaws.jobs.spec import DEFAULT_MAX_RUNTIME_S
from airflow_dlaws.jobs.wire import to_json
from airflow_dlaws.launchers.artifact import holds_files
from airflow_dlaws.launchers.protocol import Collecting, Traceable
from airflow_dlaws.launchers.slurm import ENGINE
from airflow_dlaws.operators.base import run_of
from airflow_dlaws.operators.job import JobOperator, JobOutcome
from airflow_dlaws.registry.manifest import FILE_NAME, ModelManifest
from airflow_dlaws.storage import ObjectStore, S3Uri


class SlurmTrainingOperator(JobOperator):
    """Trains a model in one job of a Slurm cluster (ParallelCluster, PCS) and returns a `TrainingResult` as JSON.

    The script finds the same surroundings as in a SageMaker job (SM_* variables, torchrun over all nodes), and the task
    behaves alike: a retry adopts the job of the try before, killing the task stops the job.

    :param cluster: a :class:`SlurmCluster`, or its fields as a mapping: `{"address": "ssh://CONNECTION", "work_dir":
        "/fsx/dlaws", "partition": "gpu"}`.
    :param channels: name -> path that all nodes share, or s3://bucket/prefix.
    :param instance_count: nodes; `processes_per_instance` worker processes on each.
    :param output_s3_uri: where the task puts the model once the job has ended.

    The other parameters are those of :class:`SlurmSpec` and :class:`JobOperator`.
    """

    engine = ENGINE
    template_fields: Sequence[str] = (
        "cluster", "source", "dependencies", "entry_point", "output_s3_uri", "image", "arguments", "hyperparameters",
        "channels", "code_s3_uri", "environment", "metrics",
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
        instance_count: int = 1,
        processes_per_instance: int = 1,
        image: str | None = None,
        arguments: Sequence[str] = (),
        hyperparameters: Mapping[str, Any] | None = None,
        channels: Mapping[str, str] | None = None,
        code_s3_uri: str | None = None,
        max_runtime_s: int = DEFAULT_MAX_RUNTIME_S,
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
        self.max_runtime_s = max_runtime_s
        self.environment = environment
        self.metrics = metrics
        self._check_what_is_known()

    def specification(self, context: Context) -> SlurmSpec:
        """Return the whole specification; by now nothing is a template any more."""
        fields = {name: self._value(name) for name in SLURM_FIELD_CHECKS}
        folders = {"source": self._located(self.source), "dependencies": tuple(map(self._located, self.dependencies))}
        return SlurmSpec(cluster=_cluster(self.cluster), **{**fields, **folders})

    def result(self, context: Context, outcome: JobOutcome) -> dict[str, Any]:
        """Return the TrainingResult as JSON.

        :raises JobFailed: the job completed but has left no model behind.
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
        result = TrainingResult(
            job_name=job.name,
            job_arn=job.arn,
            artifact_uri=str(artifact),
            output_uri=status.output_uri or "",
            metrics=status.metrics,
            billable_seconds=status.billable_seconds,
            training_seconds=status.training_seconds,
            instance_type=_cluster(self.cluster).partition or "slurm",
            instance_count=self.instance_count,
            adopted=outcome.adopted,
            attempts=outcome.attempt,
            manifest_uri=str(artifact.parent / FILE_NAME),
        )
        store = ObjectStore(self.aws.client("s3"))
        manifest = ModelManifest(
            artifact=store.stat(artifact),
            image=self.image or "",
            training=to_json(result),
            data_uris=tuple((self.channels or {}).values()),
            request=launcher.request(job) if isinstance(launcher, Traceable) else {},
            billable_instance_seconds=result.billable_seconds * result.instance_count,
            airflow=run_of(context),
        )
        store.write_json(S3Uri.parse(str(result.manifest_uri)), to_json(manifest))
        return dict(to_json(result))

    def _check_what_is_known(self) -> None:
        """Check, when the DAG is parsed, every value that holds no template."""
        if not is_template(self.cluster):
            _cluster(self.cluster)
        for name, check in SLURM_FIELD_CHECKS.items():
            if not is_template(getattr(self, name)):
                check(name, self._value(name))

    def _value(self, name: str) -> Any:
        """Return a field as SlurmSpec takes it."""
        value = getattr(self, name)
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
