"""The captured files of an endpoint variant in S3: which are unread, and what stands in them, each request once.

Under the state location lie

    events/ENDPOINT/VARIANT/MODEL-DIGEST/yyyy/mm/dd/hh/DIGEST   the requests counted of an hour (drift/events.py)

An object there never changes. The state names the one that counts for each hour, so writing the state commits the
counts and the ledger at once; an object that no state names is swept away when its hour closes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from airflow_dlaws.drift.capture import CaptureReader
from airflow_dlaws.drift.counts import TrafficCounts, no_traffic
from airflow_dlaws.drift.events import EventLedger
from airflow_dlaws.drift.lines import capped_lines
from airflow_dlaws.drift.profile import ReferenceProfile
from airflow_dlaws.drift.progress import CaptureFile, Progress, hour_key, hour_text, unread
from airflow_dlaws.drift.state import DriftState
from airflow_dlaws.storage import ObjectStore, S3Uri

#: Clocks of workers and endpoints agree to seconds; an hour is none of anybody's making but a wrong clock's.
_CLOCK_ERROR = timedelta(hours=1)


class CapturedTraffic:
    """What is captured of one variant.

    :param capture: the prefix under which keys start with their hour.
    :param ledgers: where the requests that were counted are written down.
    """

    def __init__(self, store: ObjectStore, capture: S3Uri, ledgers: S3Uri) -> None:
        self._store, self._capture, self._ledgers = store, capture, ledgers

    def count(
        self,
        profile: ReferenceProfile,
        state: DriftState,
        files: Iterable[CaptureFile],
        *,
        now: datetime,
        sample: float,
    ) -> tuple[TrafficCounts, dict[str, str]]:
        """Count what is new in these files; return the counts and the ledgers of the state after them, written.

        :raises ServiceRefused: a file or a ledger is gone; another sensor may have got further meanwhile.
        """
        ledger = EventLedger(lambda hour: self._load(state.ledgers, hour))
        reader = CaptureReader(
            profile=profile,
            since=state.since,
            open_from=state.open_from,
            latest=hour_text(now + _CLOCK_ERROR),
            sample=sample,
            ledger=ledger,
        )
        counts = no_traffic(profile)
        for file in files:
            pieces = self._store.pieces(S3Uri(self._capture.bucket, self._capture.key + file.key))
            counts += reader.read(capped_lines(pieces), hour_key(file.key))
        return counts, {**state.ledgers, **self._write(ledger)}

    def _load(self, ledgers: Mapping[str, str], hour: str) -> bytes:
        return self._store.read(self._ledgers / hour / ledgers[hour]) if hour in ledgers else b""

    def _write(self, ledger: EventLedger) -> dict[str, str]:
        names = {}
        for hour, ids in ledger.changed().items():
            names[hour] = hashlib.sha256(ids).hexdigest()[:16]
            self._store.write(self._ledgers / hour / names[hour], ids)
        return names

    def sweep(self, before: DriftState, after: DriftState) -> None:
        """Delete the ledgers that nobody needs any more, now that the state `after` has replaced `before`."""
        for hour, name in before.ledgers.items():
            if after.ledgers.get(hour) != name:
                self._store.delete(self._ledgers / hour / name)
        if before.open_from == after.open_from:
            return
        folder = f"{self._ledgers.key}/"
        for row in self._store.list(S3Uri(self._ledgers.bucket, folder)):
            if row.uri.key.removeprefix(folder) >= after.open_from:
                break
            self._store.delete(row.uri)


def list_unread(store: ObjectStore, capture: S3Uri, progress: Progress | None) -> list[CaptureFile]:
    """Return the captured files that are not read yet; lists open hours only."""
    listing = [
        CaptureFile(row.uri.key.removeprefix(capture.key), row.size, row.last_modified)
        for row in store.list(capture, start_after=capture.key + progress.open_from if progress else "")
    ]
    return unread(progress or Progress(), listing)
