"""Where a model comes from: data, code, parameters, job, checks, and the Airflow run. Kept beside the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_dlaws.storage import ObjectStore, ObjectVersion, S3Uri

FILE_NAME = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class AirflowRun:
    """The task that registered the model."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    #: ISO 8601; None for a run without one (started by an asset event or by hand).
    logical_date: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelManifest:
    """The lineage of one model artifact."""

    artifact: ObjectVersion
    image: str
    environment: Mapping[str, str] = field(default_factory=dict)
    model_package_group: str
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
    model_card_uri: str | None = None


#: What a training job leaves in its output archive for those who serve and watch the model.
DRIFT_REFERENCE = "drift_reference.json"
MODEL_CARD = "model_card.json"


def publish(
    store: ObjectStore, folder: S3Uri, members: Mapping[str, bytes], manifest: Mapping[str, Any]
) -> PublishedFiles:
    """Write the manifest, the drift reference and the model card under `folder`; writing twice changes nothing."""
    store.write_json(folder / FILE_NAME, manifest)
    for name, body in members.items():
        store.write(folder / name, body, content_type="application/json")

    def uri(name: str) -> str | None:
        return str(folder / name) if name in members else None

    return PublishedFiles(
        manifest_uri=str(folder / FILE_NAME), drift_reference_uri=uri(DRIFT_REFERENCE), model_card_uri=uri(MODEL_CARD)
    )
