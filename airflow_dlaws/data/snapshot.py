"""Which bytes a run reads: noted when they are chosen, compared when the job has read them.

A training job's channels always read the newest version of an object. So the versions are noted before, and looked at
again after: what was replaced in between makes a model of nobody knows which data.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

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


def changes(store: ObjectStore, objects: Iterable[ObjectVersion]) -> tuple[str, ...]:
    """Compare objects with what is there now; return a sentence for each that holds other bytes, or is gone.

    The same bytes written once more are no change: entity tag and size are the same then.

    :raises ServiceRefused: the bucket may not be listed.
    """
    expected = list(objects)
    folders = {S3Uri.parse(each.uri).parent for each in expected}
    listed = (S3Uri(folder.bucket, f"{folder.key}/" if folder.key else "") for folder in folders)
    now = {version.uri: version for folder in listed for version in store.versions(folder)}
    found = (_change(each, now.get(each.uri)) for each in expected)
    return tuple(sentence for sentence in found if sentence)


def describe_changes(sentences: tuple[str, ...]) -> str:
    """Return the changes as one text, not too long for a log line."""
    more = f"; and {len(sentences) - _SHOWN} more" if len(sentences) > _SHOWN else ""
    return "; ".join(sentences[:_SHOWN]) + more


def _change(then: ObjectVersion, now: ObjectVersion | None) -> str:
    if now is None:
        return f"{then.uri} is gone, it was {_bytes(then)}"
    if (then.etag, then.size) == (now.etag, now.size):
        return ""
    return f"{then.uri} was {_bytes(then)} and is {_bytes(now)} now"


def _bytes(version: ObjectVersion) -> str:
    name = f"version {version.version_id}" if version.version_id else f"etag {version.etag}"
    return f"{name} ({version.size} bytes)"
