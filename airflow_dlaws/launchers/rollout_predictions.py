"""Reads what both fleets answer out of their captured requests: each file once, a bounded number at a look.

Captured records do not say which model answered. Fleets are told apart by where they capture: every configuration that
a rollout makes has a DestinationS3Uri of its own (`launchers.endpoint.capture_uri`).
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from airflow_dlaws.drift.answers import outcome_of
from airflow_dlaws.drift.body import Unreadable
from airflow_dlaws.drift.capture import parse_envelope, read_bodies
from airflow_dlaws.drift.events import event_number
from airflow_dlaws.drift.lines import capped_lines
from airflow_dlaws.rollout.predictions import Outcome, PredictionReference, PredictionTally, counted, reference_of
from airflow_dlaws.storage import ObjectStore, S3Uri, StoredObject

#: Blue's answers are looked for so far back, and so many are enough to cut cells by.
_HOURS_BACK = 6
_ENOUGH_ANSWERS = 2000
#: Files of one fleet that are read at one look; what is left waits for the next.
_FILES_AT_A_LOOK = 50
#: A file may come so long after its hour.
_LATE = timedelta(hours=1)
_HOUR = "%Y/%m/%d/%H"
_FLEETS = ("green", "blue")


@dataclass(frozen=True, kw_only=True)
class CaptureProgress:
    """What was read so far. `seen` holds the keys of files, below their fleet's place, that were counted."""

    tally: PredictionTally = field(default_factory=PredictionTally)
    seen: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class CapturedPredictions:
    """The captured answers of one endpoint's variant."""

    def __init__(self, store: ObjectStore, *, endpoint_name: str, variant_name: str) -> None:
        self._store, self._below = store, f"{endpoint_name}/{variant_name}/"

    def reference(self, blue_capture: str, now: float) -> PredictionReference | None:
        """Cut cells by what blue answered last; None where it answered too little that can be read."""
        outcomes: list[Outcome] = []
        for back in range(_HOURS_BACK):
            hour = (datetime.fromtimestamp(now, UTC) - timedelta(hours=back)).strftime(_HOUR)
            for row in sorted(self._files(blue_capture, hour, hour), key=lambda row: row.last_modified, reverse=True):
                wanted = _ENOUGH_ANSWERS - len(outcomes)
                outcomes += [outcome for _, outcome in itertools.islice(self._answers(row.uri), wanted)]
                if len(outcomes) >= _ENOUGH_ANSWERS:
                    return reference_of(outcomes)
        return reference_of(outcomes)

    def read(
        self,
        progress: CaptureProgress,
        reference: PredictionReference,
        places: Mapping[str, str],
        *,
        since: float,
        until: float,
    ) -> CaptureProgress:
        """Count the files that are new.

        :param places: "green" and "blue": the DestinationS3Uri of each.
        :param since: answers given before are not counted; epoch seconds, like `until`, which is now.
        """
        answers: dict[int, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        now = datetime.fromtimestamp(until, UTC)
        first = datetime.fromtimestamp(since, UTC).strftime(_HOUR)
        opened = max(first, (now - _LATE).strftime(_HOUR))
        seen = {}
        for side, fleet in enumerate(_FLEETS):
            known = set(progress.seen.get(fleet, ()))
            rows = [
                row for row in self._files(places[fleet], opened, now.strftime(_HOUR)) if self._key(row) not in known
            ]
            for row in rows[:_FILES_AT_A_LOOK]:
                for at, outcome in self._answers(row.uri):
                    if at >= since:
                        answers[int(at) // 60 * 60][side].append(reference.cell(outcome))
                known.add(self._key(row))
            # Files of closed hours are not listed any more.
            seen[fleet] = tuple(sorted(key for key in known if key >= opened))
        return CaptureProgress(tally=counted(progress.tally, len(reference.counts), answers), seen=seen)

    def _key(self, row: StoredObject) -> str:
        return row.uri.key.rpartition(self._below)[2]

    def _files(self, place: str, first: str, last: str) -> Iterator[StoredObject]:
        """Yield the files of the hours from `first` to `last`, in the order of their keys."""
        root = S3Uri.parse(place)
        prefix = S3Uri(root.bucket, f"{root.key.strip('/')}/{self._below}".lstrip("/"))
        for row in self._store.list(prefix, start_after=prefix.key + first):
            if row.uri.key[len(prefix.key) :][: len(last)] > last:
                return
            yield row

    def _answers(self, uri: S3Uri) -> Iterator[tuple[float, Outcome]]:
        """Yield when each request was answered, and one answer of it; None where it cannot be read."""
        for line in capped_lines(self._store.pieces(uri)):
            if line is None:
                continue
            try:
                envelope = parse_envelope(line)
            except Unreadable:
                continue
            if envelope.time is None or envelope.capture.get("endpointOutput") is None:
                continue
            found = read_bodies(envelope).answers
            # Rows of one request are alike: one of them counts, the same one for both fleets' kind of request.
            chosen = found[event_number(envelope.event_id) % len(found)] if found else None
            yield envelope.time.timestamp(), outcome_of(chosen)
