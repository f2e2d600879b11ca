"""`DistributedTrainingOperator`: one training job on N instances with G processes each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow_dlaws._compat import Context
from airflow_dlaws.data.snapshot import changes, describe_changes, read_snapshot
from airflow_dlaws.errors import JobFailed, OutcomeUnacceptable, SpecificationError
from airflow_dlaws.hooks.launcher import launcher_for
from airflow_dlaws.jobs.limits import is_template
from airflow_dlaws.jobs.queue import BatchQueue
from airflow_dlaws.jobs.reference import JobReference, TrainingResult
from airflow_dlaws.jobs.spec import DEFAULT_MAX_RUNTIME_S, FIELD_CHECKS, Channel, TrainingSpec, check_spot
from airflow_dlaws.jobs.wire import to_json
from airflow_dlaws.launchers.artifact import holds_files
from airflow_dlaws.launchers.batch import ENGINE as BATCH
from airflow_dlaws.launchers.protocol import Traceable
from airflow_dlaws.launchers.sagemaker import ENGINE as SAGEMAKER
from airflow_dlaws.operators.base import run_of
from airflow_dlaws.operators.job import JobOperator, JobOutcome
from airflow_dlaws.registry.manifest import FILE_NAME, ModelManifest
from airflow_dlaws.storage import ObjectStore, S3Uri

_INTEGERS = ("instance_count", "processes_per_instance", "volume_size_gb", "max_runtime_s", "max_wait_s")
#: Fields whose values belong together; they are judged at parse time only if all of them are known by then.
_SPOT_FIELDS = ("spot", "max_runtime_s", "max_wait_s", "checkpoint_s3_uri")


class DistributedTrainingOperator(JobOperator):
    """Trains a model in one SageMaker training job and returns a `TrainingResult` as JSON.

    A retry adopts the job of the try before; a cleared task starts a new one. The script runs under torchrun with
    `instance_count` x `processes_per_instance` processes, or under plain Python where that is one. It finds its data
    under SM_CHANNEL_<NAME>, and writes the model to SM_MODEL_DIR and other results to SM_OUTPUT_DATA_DIR. Beside the
    model this task leaves manifest.json, a :class:`~airflow_dlaws.registry.manifest.ModelManifest`.

    :param image: URI of a container image with Python and what the script imports.
    :param source: folder with the code, relative to the DAG file or absolute, or an s3://bucket/prefix.
    :param entry_point: script in that folder; gets the hyperparameters as `--name value`, then `arguments`.
    :param channels: name -> s3://bucket/prefix, or a Channel, or the fields of one as a mapping.
    :param output_s3_uri: where the job's artifacts go, each under the job's name.
    :param data_snapshot: where the versions of the data are noted: the `snapshot` of ChooseDataOperator. The task fails
        if an object holds other bytes before the job starts, or when it has ended. The model's manifest names them all.
    :param role_arn: the role the job runs as.
    :param metrics: names from the script's metric lines that the service should track.
    :param spot: use spare capacity; needs `checkpoint_s3_uri` and `max_wait_s`.
    :param job_queue: wait for machines in this AWS Batch queue (docs/batch.md): its name or ARN, or a BatchQueue, or
        the fields of one as a mapping.
    :param code_s3_uri: where code is published under its digest; `<output_s3_uri>/code` if left out.

    The other parameters are those of :class:`TrainingSpec` and :class:`JobOperator`. Numbers may be given as templates.
    """

    template_fields: Sequence[str] = (
        "image",
        "source",
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
        "environment",
        "metrics",
        "tags",
        "subnets",
        "security_group_ids",
        "kms_key_id",
        "job_queue",
        *_INTEGERS,
    )
    template_fields_renderers = {
        "job_queue": "json",
        "arguments": "json",
        "hyperparameters": "json",
        "channels": "json",
        "environment": "json",
        "metrics": "json",
        "tags": "json",
    }
    ui_color = "#d7e8fb"

    def __init__(
        self,
        *,
        image: str,
        source: str | Path,
        entry_point: str,
        output_s3_uri: str,
        role_arn: str,
        instance_type: str,
        instance_count: int | str = 1,
        processes_per_instance: int | str = 1,
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
        code_s3_uri: str | None = None,
        tags: Mapping[str, str] | None = None,
        subnets: Sequence[str] = (),
        security_group_ids: Sequence[str] = (),
        kms_key_id: str | None = None,
        job_queue: str | BatchQueue | Mapping[str, Any] | None = None,
        deferrable: bool = True,
        poll_interval: float = 30,
        timeout: timedelta | None = None,
        stop_on_kill: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            deferrable=deferrable, poll_interval=poll_interval, timeout=timeout, stop_on_kill=stop_on_kill, **kwargs
        )
        self.image = image
        self.source = source
        self.entry_point = entry_point
        self.output_s3_uri = output_s3_uri
        self.role_arn = role_arn
        self.instance_type = instance_type
        self.instance_count = instance_count
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
        self.checkpoint_s3_uri = checkpoint_s3_uri
        self.code_s3_uri = code_s3_uri
        self.tags = tags
        self.subnets, self.security_group_ids = subnets, security_group_ids
        self.kms_key_id = kms_key_id
        self.job_queue = job_queue
        self.engine = BATCH if job_queue else SAGEMAKER
        self._check_what_is_known()

    def specification(self, context: Context) -> TrainingSpec:
        """Return the whole specification; by now nothing is a template any more."""
        if self.data_snapshot and self._is_first_try(context["ti"]):
            self._refuse_other_data(self.data_snapshot)
        return TrainingSpec(
            **{name: self._value(name) for name in FIELD_CHECKS if name != "source"},
            source=self._source(),
            channels=_channels(self.channels),
            spot=self.spot,
            tags=self.tags or {},
            subnets=tuple(self.subnets),
            security_group_ids=tuple(self.security_group_ids),
            kms_key_id=self.kms_key_id,
            job_queue=batch_queue(self.job_queue),
        )

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
            instance_count=int(self.instance_count),
            instance_type=self.instance_type,
            adopted=outcome.adopted,
            attempts=outcome.attempt,
            manifest_uri=str(S3Uri.parse(artifact).parent / FILE_NAME),
        )
        self._write_manifest(context, reference, result)
        self.log.info("Job %s completed: %s", reference.name, to_json(result))
        return dict(to_json(result))

    def _write_manifest(self, context: Context, job: JobReference, result: TrainingResult) -> None:
        """Leave the model's lineage beside it; `job` has trained it.

        :raises OutcomeUnacceptable: the data are not the chosen ones any more; the manifest is there all the same.
        """
        store = ObjectStore(self.aws.client("s3"))
        snapshot = read_snapshot(store, self.data_snapshot) if self.data_snapshot else None
        changed = changes(store, snapshot.objects) if snapshot else ()
        launcher = launcher_for(job.engine, self.aws)
        manifest = ModelManifest(
            artifact=store.stat(S3Uri.parse(result.artifact_uri)),
            image=self.image,
            training=to_json(result),
            data_uris=tuple(channel.uri for channel in _channels(self.channels)),
            data=snapshot,
            data_changes=changed,
            request=launcher.request(job) if isinstance(launcher, Traceable) else {},
            billable_instance_seconds=result.billable_seconds * result.instance_count,
            airflow=run_of(context),
        )
        store.write_json(S3Uri.parse(str(result.manifest_uri)), to_json(manifest))
        if changed:
            raise OutcomeUnacceptable(
                f"the data changed between their choice and the end of job {result.job_name}, which may have read "
                f"either: {describe_changes(changed)}. Clear the run from the task that chooses the data: the model at "
                f"{result.artifact_uri} is of unknown data, and its manifest says so"
            )

    def _refuse_other_data(self, data_snapshot: str) -> None:
        """Refuse to pay for a job on other data than the chosen ones."""
        store = ObjectStore(self.aws.client("s3"))
        if changed := changes(store, read_snapshot(store, data_snapshot).objects):
            raise OutcomeUnacceptable(
                f"the data have changed since they were chosen, and no job is started: {describe_changes(changed)}. "
                "Clear the run from the task that chooses the data"
            )

    def _is_first_try(self, ti: Any) -> bool:
        """Tell whether this is the first try since the last clear; a later one may find the job of the first."""
        return int(ti.try_number + (self.retries or 0)) <= (ti.max_tries or 0) + 1

    def _check_what_is_known(self) -> None:
        """Check, when the DAG is parsed, every value that holds no template."""
        for name, check in FIELD_CHECKS.items():
            if not is_template(getattr(self, name)):
                check(name, self._value(name))
        if not any(is_template(getattr(self, name)) for name in _SPOT_FIELDS):
            check_spot(**{name: self._value(name) for name in _SPOT_FIELDS})
        if not is_template(self.job_queue):
            batch_queue(self.job_queue)
        if isinstance(self.channels, Mapping):
            _channels({name: channel for name, channel in self.channels.items() if not is_template(channel)})
        elif not is_template(self.channels):
            _channels(self.channels)

    def _value(self, name: str) -> Any:
        """Return a field as TrainingSpec takes it."""
        value = getattr(self, name)
        if name in _INTEGERS:
            return integer(name, value)
        if name in ("hyperparameters", "environment"):
            return {} if value is None else value
        if name in ("arguments", "metrics"):
            return value if isinstance(value, str) else tuple(value or ())
        return str(value) if name == "source" else value

    def _source(self) -> str:
        source = str(self.source)
        if source.startswith("s3://") or Path(source).is_absolute():
            return source
        return str(Path(self.dag.fileloc).parent / source)


def integer(name: str, value: Any) -> int | None:
    """Read a number that may have come from a template as text."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, str) and value.strip().isdigit():
        return int(value)
    raise SpecificationError(f"{name}={value!r} must be an integer")


def _channels(channels: Mapping[str, Any] | None) -> tuple[Channel, ...]:
    if not isinstance(channels or {}, Mapping):
        raise SpecificationError(f"channels={channels!r} must map names to s3://bucket/prefix")
    return tuple(channel(name, value) for name, value in (channels or {}).items())


def batch_queue(value: Any) -> BatchQueue | None:
    """Read a queue given by its name, as a BatchQueue, or as the fields of one; None where there is none."""
    if not value or isinstance(value, BatchQueue):
        return value or None
    if isinstance(value, Mapping):
        try:
            return BatchQueue(**value)
        except TypeError as error:
            raise SpecificationError(f"job_queue={dict(value)!r}: {error}") from error
    return BatchQueue(name=value)


def channel(name: str, value: Any) -> Channel:
    """Read a channel given as a location, as a Channel, or as the fields of one."""
    if isinstance(value, Channel):
        return value
    if isinstance(value, Mapping):
        try:
            return Channel(name=name, **value)
        except TypeError as error:
            raise SpecificationError(f"channel {name!r}={dict(value)!r}: {error}") from error
    return Channel(name=name, uri=value)
