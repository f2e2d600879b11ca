"""Requests that were captured twice, with production's answer and with its shadow's, read from S3 as they come in.

SageMaker writes both variants' requests under keys of their own. That a copy bears its request's `eventId` is not
documented, so a pair is found by the event id, or by the inference id that the caller gave, or, where there is neither,
by the request itself: a deterministic model answers equal requests alike, so it does not matter which of them meet.

Of requests that are equal, the first pair counts: the others get the same answers again, and prove nothing more.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from airflow_dlaws.drift.body import Unreadable
from airflow_dlaws.drift.capture import Envelope, parse_envelope, read_bodies
from airflow_dlaws.drift.lines import capped_lines
from airflow_dlaws.rollout.agreement import AnswerPair
from airflow_dlaws.rollout.plan import MOST_SHADOW_PAIRS
from airflow_dlaws.storage import ObjectStore, S3Uri, StoredObject

#: Requests of each side that may wait for their other half: where few are copied, most of production's have none. So
#: many are minutes of a busy endpoint, by which one variant's files may come later than the other's, in 100 MB.
MOST_WAITING = 50_000
#: Characters that all the answers of these may have: a single one may have millions.
_MOST_WAITING_TEXT = 20_000_000
#: An answer that cannot be read is compared as the text it is, up to so many characters.
_MOST_TEXT = 1000


@dataclass(eq=False)
class _Captured:
    event: str
    #: Of the request.
    digest: bytes
    answers: tuple[object, ...]
    names: tuple[str, ...]
    #: Of the answers as they were captured, in characters.
    size: int


class _Waiting:
    """One side's requests that wait for their other half, under each of their names; the oldest are forgotten."""

    def __init__(self, most: int) -> None:
        self._most, self._size = most, 0
        self._all: OrderedDict[_Captured, None] = OrderedDict()
        self._named: dict[str, list[_Captured]] = {}

    def add(self, captured: _Captured) -> None:
        self._all[captured] = None
        self._size += captured.size
        for name in captured.names:
            self._named.setdefault(name, []).append(captured)
        while len(self._all) > self._most or self._size > _MOST_WAITING_TEXT:
            self._remove(next(iter(self._all)))

    def take(self, names: tuple[str, ...]) -> _Captured | None:
        """Return the one that has waited longest under the first of these names that there is."""
        found = next((self._named[name][0] for name in names if name in self._named), None)
        if found is not None:
            self._remove(found)
        return found

    def _remove(self, captured: _Captured) -> None:
        del self._all[captured]
        self._size -= captured.size
        for name in captured.names:
            alike = self._named[name]
            alike.remove(captured)
            if not alike:
                del self._named[name]


class PairReader:
    """The pairs of one shadow. Remembers which files it has read and which requests still wait for their other half.

    :param folder: where SageMaker captures this endpoint's requests, the endpoint's name included.
    :param since: requests answered before (epoch seconds) are left out: the shadow was not there yet.
    :param most_waiting: requests of each side that are kept while their other half is not there.
    """

    def __init__(
        self,
        store: ObjectStore,
        folder: S3Uri,
        *,
        production: str,
        shadow: str,
        since: float,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self._store, self._folder = store, folder
        self._sides = (production, shadow)
        self._since = datetime.fromtimestamp(int(since), UTC)
        self._read: set[str] = set()
        #: Lines that were read of files that could not be read to their end.
        self._begun: dict[str, int] = {}
        self._waiting = (_Waiting(most_waiting), _Waiting(most_waiting))
        self._paired: set[bytes] = set()
        #: Pairs that were left out, because an equal request had been paired before.
        self.repeated = 0

    def new_pairs(self) -> Iterator[AnswerPair]:
        """Yield the pairs that became complete since the last call.

        :raises ServiceRefused: the files may not be read. What was not read is read by the next call.
        """
        for _, side, row in self._files():
            if len(self._paired) >= MOST_SHADOW_PAIRS:
                return
            if row.uri.key in self._read:
                continue
            for number, line in enumerate(capped_lines(self._store.pieces(row.uri)), 1):
                if number > self._begun.get(row.uri.key, 0):
                    self._begun[row.uri.key] = number
                    if line is not None:
                        yield from self._pair(side, line)
            self._begun.pop(row.uri.key, None)
            self._read.add(row.uri.key)

    def _files(self) -> Iterator[tuple[str, int, StoredObject]]:
        """Yield both sides' files by their time, which their keys go on with, so that few requests wait for long."""

        def of(side: int) -> Iterator[tuple[str, int, StoredObject]]:
            prefix = self._folder / self._sides[side] / ""
            start = f"{prefix.key}{self._since:%Y/%m/%d/%H}"
            for row in self._store.list(prefix, start_after=start):
                yield row.uri.key.removeprefix(prefix.key), side, row

        return heapq.merge(of(0), of(1), key=lambda file: file[:2])

    def _pair(self, side: int, line: bytes) -> Iterator[AnswerPair]:
        try:
            envelope = parse_envelope(line)
        except Unreadable:
            return
        if envelope.time is None or envelope.time < self._since:
            return
        event, digest = envelope.inference_id or envelope.event_id, _digest(envelope)
        names = _names(envelope, digest)
        captured = _Captured(event, digest, _answers(envelope), names, size=len(_output(envelope)))
        other = self._waiting[1 - side].take(names)
        if other is None:
            self._waiting[side].add(captured)
            return
        if digest in self._paired:
            self.repeated += 1
            return
        self._paired.add(digest)
        production, shadow = (captured, other) if side == 0 else (other, captured)
        yield AnswerPair(event=production.event, production=production.answers, shadow=shadow.answers)


def _digest(envelope: Envelope) -> bytes:
    data = _side(envelope.capture, "endpointInput").get("data")
    return hashlib.blake2b(str(data).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _names(envelope: Envelope, digest: bytes) -> tuple[str, ...]:
    """Return the names by which a request's other half may be known, the surest first."""
    by_event = (f"event {envelope.event_id}",) if envelope.event_id else ()
    # AWS does not ask for inference ids that are used once: a caller may give all of a user's requests the same.
    by_id = f"inference {envelope.inference_id} {digest.hex()}"
    return (*by_event, by_id if envelope.inference_id else f"request {digest.hex()}")


def _answers(envelope: Envelope) -> tuple[object, ...]:
    answers = read_bodies(envelope).answers
    if answers is not None:
        return answers
    return (_output(envelope)[:_MOST_TEXT],)


def _output(envelope: Envelope) -> str:
    return str(_side(envelope.capture, "endpointOutput").get("data"))


def _side(capture: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    side = capture.get(name)
    return side if isinstance(side, dict) else {}
