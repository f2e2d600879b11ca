"""Verdicts of drift in S3, one small document each, and who has heard of them: what asset watchers live on.

Under the state location lie

    verdicts/ENDPOINT/VARIANT/TIME-DIGEST.json   what the asset event carries; written once, never changed
    watchers/READER.json                         which of them a watcher has told

A sensor publishes after the state that names its alarm is committed, and again when it finds that it had no time to. A
check publishes when its report is written.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.identity import digest_of
from airflow_dlaws.jobs.wire import from_json, to_json
from airflow_dlaws.storage import ObjectStore, S3Uri

POSITION_FORMAT = "dlaws-drift-watcher/1"

#: A verdict older than this starts nothing any more, should a watcher have been away for so long.
RETENTION = timedelta(days=7)


@dataclass(frozen=True, kw_only=True)
class Position:
    """What one watcher has told."""

    format: str = POSITION_FORMAT
    #: When it first looked: older verdicts are none of its business.
    since: datetime
    #: The names of the verdicts it has told, as far back as it looks.
    told: tuple[str, ...] = ()


def verdict_folder(root: S3Uri, endpoint_name: str, variant_name: str) -> S3Uri:
    """Return where the verdicts on a variant lie."""
    return root / "verdicts" / endpoint_name / variant_name


def publish(store: ObjectStore, folder: S3Uri, at: datetime, document: Mapping[str, Any]) -> None:
    """Write a verdict, unless it is there already.

    :param at: when it was found, in UTC; the names of verdicts sort by it.
    """
    uri = folder / f"{_stamp(at)}-{digest_of(to_json(document))[:12]}.json"
    if not store.exists(uri):
        store.create(uri, json.dumps(to_json(document)).encode())


def first_found(store: ObjectStore, folder: S3Uri, now: datetime) -> datetime:
    """Return when a check first found drift, `now` or before: its retries publish under one name, so once.

    :param folder: of this check alone, and of its retries.
    """
    uri = folder / "found.json"
    if store.create(uri, json.dumps({"at": to_json(now)}).encode()):
        return now
    return datetime.fromisoformat(store.read_json(uri)["at"])


def _stamp(at: datetime) -> str:
    return f"{at:%Y%m%dT%H%M%S.%f}Z"


class VerdictInbox:
    """The verdicts that one watcher has not told yet. Not safe for two threads at once.

    :param reader: whose position this is; watchers that share it share the verdicts out among them.
    """

    def __init__(self, store: ObjectStore, root: S3Uri, folder: S3Uri, *, reader: str) -> None:
        self._store, self._folder = store, folder
        self._uri = root / "watchers" / f"{reader}.json"
        self._position: Position | None = None

    def untold(self, now: datetime) -> list[tuple[str, dict[str, Any]]]:
        """Return the names and documents of verdicts that were not told, oldest first. The first call is the start."""
        position = self._position = self._position or self._load(now)
        earliest = f"{self._folder.key}/{_stamp(max(position.since, now - RETENTION))}"
        rows = self._store.list(S3Uri(self._folder.bucket, f"{self._folder.key}/"), start_after=earliest)
        names = [row.uri.key.rpartition("/")[2] for row in rows]
        if not set(names) <= set(position.told):
            # Another triggerer may have taken this watcher over while this one hung, and have told them.
            position = self._position = self._load(now)
        fresh = [name for name in names if name not in position.told]
        return [(name, dict(self._store.read_json(self._folder / name))) for name in fresh]

    def mark_told(self, names: list[str], now: datetime) -> None:
        """Remember that these verdicts were told."""
        position = self._load(now)
        oldest = _stamp(now - RETENTION)
        told = tuple(sorted(name for name in {*position.told, *names} if name >= oldest))
        self._position = dataclasses.replace(position, told=told)
        self._store.write_json(self._uri, to_json(self._position))

    def _load(self, now: datetime) -> Position:
        start = Position(since=now)
        if self._store.create(self._uri, json.dumps(to_json(start)).encode()):
            return start
        document = self._store.read_json(self._uri)
        found = document.get("format") if isinstance(document, dict) else None
        if found != POSITION_FORMAT:
            raise SpecificationError(f"{self._uri} is of format {found!r}, not {POSITION_FORMAT!r}: move it away")
        return from_json(Position, document)
