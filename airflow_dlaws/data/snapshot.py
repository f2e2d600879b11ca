"""Which bytes a run reads: noted when they are chosen, compared when the job has read them.

A training job's channels always read the newest version of an object. So the versions are noted before, and looked at
again after: what was replaced in between makes a model of nobody knows which data.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import Any

from airflow_dlaws.jobs import wire
from airflow_dlaws.storage import ObjectStore, ObjectVersion, S3Uri

#: A message names so many; the manifest has all.
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class DataSnapshot:
    """The objects that one run reads, as they were when it chose them. Stored as JSON beside the run's manifests."""

    training_months: tuple[str, ...]
    evaluation_month: str
    training: tuple[ObjectVersion, ...]
    evaluation: tuple[ObjectVersion, ...]
    #: Whether every object has a version id: only then can the same bytes be read again once they are replaced.
    versioned: bool
    taken_at: datetime

    @property
    def objects(self) -> tuple[ObjectVersion, ...]:
        """All objects of the run."""
        return (*self.training, *self.evaluation)


@dataclass(frozen=True, kw_only=True)
class ChosenData:
    """The XCom of ChooseDataOperator. `train` and `evaluate` are ManifestFiles, for channels of kind "ManifestFile"."""

    train: str
    evaluate: str
    #: The :class:`DataSnapshot`: which version each object had.
    snapshot: str
    training_months: tuple[str, ...]
    evaluation_month: str
    object_count: int
    versioned: bool


def publish(store: ObjectStore, folder: S3Uri, snapshot: DataSnapshot) -> ChosenData:
    """Write the manifests of both sets and the snapshot under `folder`."""
    train, evaluate, noted = folder / "train.manifest", folder / "evaluate.manifest", folder / "data.json"
    store.write_json(train, _manifest_file(snapshot.training))
    store.write_json(evaluate, _manifest_file(snapshot.evaluation))
    store.write_json(noted, wire.to_json(snapshot))
    return ChosenData(
        train=str(train),
        evaluate=str(evaluate),
        snapshot=str(noted),
        training_months=snapshot.training_months,
        evaluation_month=snapshot.evaluation_month,
        object_count=len(snapshot.objects),
        versioned=snapshot.versioned,
    )


def read_snapshot(store: ObjectStore, uri: str) -> DataSnapshot:
    """Return the snapshot stored at `uri`."""
    return wire.from_json(DataSnapshot, store.read_json(S3Uri.parse(uri)))


def changes(store: ObjectStore, objects: Iterable[ObjectVersion]) -> tuple[str, ...]:
    """Compare objects with what has become of them; return a sentence for each that held other bytes since, or is gone.

    The same bytes written once more are no change, where entity tag and size are the same then: with SSE-KMS, and with
    other parts of a multipart upload, the tag differs. Where the bucket keeps versions, an object that was changed and
    changed back is told too; without versions it cannot be.

    :raises ServiceRefused: the bucket may not be listed.
    """
    expected = list(objects)
    folders = {S3Uri.parse(each.uri).parent for each in expected}
    listed = (S3Uri(folder.bucket, f"{folder.key}/" if folder.key else "") for folder in folders)
    histories = {uri: versions for folder in listed for uri, versions in store.histories(folder).items()}
    found = (_change(each, histories.get(each.uri, ())) for each in expected)
    return tuple(sentence for sentence in found if sentence)


def describe_changes(sentences: tuple[str, ...]) -> str:
    """Return the changes as one text, not too long for a log line."""
    more = f"; and {len(sentences) - _SHOWN} more" if len(sentences) > _SHOWN else ""
    return "; ".join(sentences[:_SHOWN]) + more


def _change(then: ObjectVersion, history: Sequence[ObjectVersion]) -> str:
    """Say what has happened to an object since; nothing, if all versions from then to now hold the same bytes."""
    if not history:
        return f"{then.uri} is gone, it was {_bytes(then)}"
    kept = any(version.version_id == then.version_id for version in history)
    newer = list(takewhile(lambda version: version.version_id != then.version_id, history)) if kept else []
    other = [version for version in newer or history[:1] if (version.etag, version.size) != (then.etag, then.size)]
    return f"{then.uri} was {_bytes(then)} and became {_bytes(other[0])}" if other else ""


def _bytes(version: ObjectVersion) -> str:
    name = f"version {version.version_id}" if version.version_id else f"etag {version.etag}"
    return f"{name} ({version.size} bytes)"


def _manifest_file(objects: Iterable[ObjectVersion]) -> list[Any]:
    """Return the document of a SageMaker ManifestFile (S3DataSource in the API reference)."""
    uris = [S3Uri.parse(each.uri) for each in objects]
    return [{"prefix": f"s3://{uris[0].bucket}/"}, *(uri.key for uri in uris)]
