"""Where a model comes from: data, code, parameters, job, checks, and the Airflow run. Kept beside the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_dlaws.data.snapshot import DataSnapshot
from airflow_dlaws.jobs import wire
from airflow_dlaws.storage import ObjectStore, ObjectVersion, S3Uri

FILE_NAME = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class AirflowRun:
    """The task that wrote the manifest. Moments are ISO 8601; a run of an asset or a person has no interval."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    #: "scheduled", "manual", "asset_triggered" or "backfill".
    run_type: str = ""
    logical_date: str | None = None
    data_interval_start: str | None = None
    data_interval_end: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelManifest:
    """The lineage of one model artifact: written by its training task, completed by its registration, if there is one.

    What the training task knows stays as it is: `data`, `data_changes` and `request`.
    """

    artifact: ObjectVersion
    image: str
    #: Of the serving container.
    environment: Mapping[str, str] = field(default_factory=dict)
    #: None for a model that was not registered.
    model_package_group: str | None = None
    #: The objects that the run chose, and their versions then; None where the training task was given no snapshot.
    data: DataSnapshot | None = None
    #: What had become of them when the job had ended. Anything here fails the training task.
    data_changes: tuple[str, ...] = ()
    #: What the training job was made from (code, parameters, channels, machines), as its service tells it.
    request: Mapping[str, Any] = field(default_factory=dict)
    #: Seconds billed, times machines: of training, and of the evaluation once the model is registered.
    billable_instance_seconds: int = 0
    #: Estimate of what training has cost, in US dollars, and the arithmetic; None where no price is known.
    cost_usd: float | None = None
    cost_basis: str = ""
    #: The XComs of training, validation and evaluation, as those tasks gave them.
    training: Mapping[str, Any] = field(default_factory=dict)
    validation: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    #: Where the training data are: objects, prefixes or a manifest.
    data_uris: tuple[str, ...] = ()
    #: What the DAG adds: code digest, parameters, ticket.
    lineage: Mapping[str, Any] = field(default_factory=dict)
    airflow: AirflowRun
    #: Version of this document's shape.
    manifest_version: int = 1


@dataclass(frozen=True, kw_only=True)
class PublishedFiles:
    """The small files that lie beside a registered model; None where the training job wrote none."""

    manifest_uri: str
    drift_reference_uri: str | None = None
    #: The drift reference as SageMaker Model Monitor reads it.
    monitor_statistics_uri: str | None = None
    monitor_constraints_uri: str | None = None
    model_card_uri: str | None = None


#: What a training job leaves in its output archive for those who serve and watch the model.
DRIFT_REFERENCE = "drift_reference.json"
MONITOR_STATISTICS, MONITOR_CONSTRAINTS = "model_monitor/statistics.json", "model_monitor/constraints.json"
MODEL_CARD = "model_card.json"


def read_manifest(store: ObjectStore, uri: S3Uri) -> ModelManifest:
    """Return the manifest stored at `uri`."""
    return wire.from_json(ModelManifest, store.read_json(uri))


def publish(
    store: ObjectStore, folder: S3Uri, members: Mapping[str, bytes], manifest: Mapping[str, Any]
) -> PublishedFiles:
    """Write the manifest and the named documents under `folder`; writing twice changes nothing."""
    store.write_json(folder / FILE_NAME, manifest)
    for name, body in members.items():
        store.write(folder / name, body, content_type="application/json")

    def uri(name: str) -> str | None:
        return str(folder / name) if name in members else None

    return PublishedFiles(
        manifest_uri=str(folder / FILE_NAME),
        drift_reference_uri=uri(DRIFT_REFERENCE),
        monitor_statistics_uri=uri(MONITOR_STATISTICS),
        monitor_constraints_uri=uri(MONITOR_CONSTRAINTS),
        model_card_uri=uri(MODEL_CARD),
    )
