"""Reads what both fleets answer out of their captured requests: each file once, a bounded number at a look.

SageMaker may deliver a request more than once, also in another file: it is counted once, by the ledger of
`drift.events`, whose pages are minutes here. Settled minutes get no more answers: their pages are thrown away.

Captured records do not say which model answered. Fleets are told apart by where they capture: every configuration that
a rollout makes has a DestinationS3Uri of its own (`launchers.endpoint.capture_uri`).
"""

from __future__ import annotations

import base64
import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from airflow_dlaws.drift.answers import outcome_of
from airflow_dlaws.drift.body import Unreadable
from airflow_dlaws.drift.capture import parse_envelope, read_bodies
from airflow_dlaws.drift.events import EventLedger, event_number, line_number_in_file
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
    #: By fleet and minute ("green 1700000040"): the requests that were counted, as `EventLedger` keeps them, in base64.
    counted: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Captured:
    """One request: when it was answered (epoch seconds), the number by which it is known, one of its answers."""

    at: float
    number: int
    outcome: Outcome


class CapturedPredictions:
    """The captured answers of one endpoint's variant."""

    def __init__(self, store: ObjectStore, *, endpoint_name: str, variant_name: str) -> None:
        self._store, self._below = store, f"{endpoint_name}/{variant_name}/"

    def reference(self, blue_capture: str, now: float) -> PredictionReference | None:
        """Cut cells by what blue answered last; None where it answered too little that can be read."""
        outcomes: dict[int, Outcome] = {}
        for back in range(_HOURS_BACK):
            hour = (datetime.fromtimestamp(now, UTC) - timedelta(hours=back)).strftime(_HOUR)
            for row in sorted(self._files(blue_capture, hour, hour), key=lambda row: row.last_modified, reverse=True):
                wanted = _ENOUGH_ANSWERS - len(outcomes)
                new = (each for each in self._answers(row.uri) if each.number not in outcomes)
                outcomes |= {each.number: each.outcome for each in itertools.islice(new, wanted)}
                if len(outcomes) >= _ENOUGH_ANSWERS:
                    return reference_of([*outcomes.values()])
        return reference_of([*outcomes.values()])

    def read(
        self,
        progress: CaptureProgress,
        reference: PredictionReference,
        places: Mapping[str, str],
        *,
        since: float,
        until: float,
    ) -> CaptureProgress:
        """Count the files that are new, each request once.

        :param places: "green" and "blue": the DestinationS3Uri of each.
        :param since: answers given before are not counted; epoch seconds, like `until`, which is now.
        """
        answers: dict[int, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        now = datetime.fromtimestamp(until, UTC)
        first = datetime.fromtimestamp(since, UTC).strftime(_HOUR)
        opened = max(first, (now - _LATE).strftime(_HOUR))
        settled = progress.tally.settled_until
        ledger = EventLedger(lambda page: base64.b64decode(progress.counted.get(page, "")))
        seen = {}
        for side, fleet in enumerate(_FLEETS):
            known = set(progress.seen.get(fleet, ()))
            rows = [
                row for row in self._files(places[fleet], opened, now.strftime(_HOUR)) if self._key(row) not in known
            ]
            for row in rows[:_FILES_AT_A_LOOK]:
                for each in self._answers(row.uri):
                    minute = int(each.at) // 60 * 60
                    if each.at >= since and minute >= settled and ledger.claim(_page(fleet, minute), each.number):
                        answers[minute][side].append(reference.cell(each.outcome))
                known.add(self._key(row))
            # Files of closed hours are not listed any more.
            seen[fleet] = tuple(sorted(key for key in known if key >= opened))
        pages = {**progress.counted, **{page: base64.b64encode(ids).decode() for page, ids in ledger.changed().items()}}
        return CaptureProgress(
            tally=counted(progress.tally, len(reference.counts), answers),
            seen=seen,
            counted={page: ids for page, ids in pages.items() if _minute_of(page) >= settled},
        )

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

    def _answers(self, uri: S3Uri) -> Iterator[_Captured]:
        """Yield the requests that were answered; an answer that cannot be read is None."""
        for place, line in enumerate(capped_lines(self._store.pieces(uri))):
            if line is None:
                continue
            try:
                envelope = parse_envelope(line)
            except Unreadable:
                continue
            if envelope.time is None or envelope.capture.get("endpointOutput") is None:
                continue
            found = read_bodies(envelope).answers
            number = event_number(envelope.event_id) if envelope.event_id else line_number_in_file(line, place)
            # Rows of one request are alike: one of them counts, the same one for both fleets' kind of request.
            chosen = found[number % len(found)] if found else None
            yield _Captured(envelope.time.timestamp(), number, outcome_of(chosen))


def _page(fleet: str, minute: int) -> str:
    return f"{fleet} {minute}"


def _minute_of(page: str) -> int:
    return int(page.rpartition(" ")[2])
