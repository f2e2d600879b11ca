"""Requests that were captured twice, with production's answer and with its shadow's, read from S3 as they come in.

SageMaker writes both variants' requests under keys of their own. That a copy bears its request's `eventId` is not
documented, so a pair is found by the event id, or by the inference id that the caller gave, or, where there is neither,
by the request itself: a deterministic model answers equal requests alike, so it does not matter which of them meet.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from airflow_dlaws.drift.body import Unreadable
from airflow_dlaws.drift.capture import Envelope, parse_envelope, read_bodies
from airflow_dlaws.drift.lines import capped_lines
from airflow_dlaws.rollout.agreement import AnswerPair
from airflow_dlaws.storage import ObjectStore, S3Uri

#: Enough for any verdict; what comes after is not read.
MOST_PAIRS = 50_000
#: An answer that cannot be read is compared as the text it is, up to so many characters.
_MOST_TEXT = 1000


@dataclass(eq=False)
class _Captured:
    event: str
    answers: tuple[object, ...]
    is_paired: bool = False


class PairReader:
    """The pairs of one shadow. Remembers which files it has read and which requests still wait for their other half.

    :param folder: where SageMaker captures this endpoint's requests, the endpoint's name included.
    :param since: requests answered before (epoch seconds) are left out: the shadow was not there yet.
    """

    def __init__(self, store: ObjectStore, folder: S3Uri, *, production: str, shadow: str, since: float) -> None:
        self._store, self._folder = store, folder
        self._sides = (production, shadow)
        self._since = datetime.fromtimestamp(int(since), UTC)
        self._read: set[str] = set()
        self._waiting: tuple[dict[str, deque[_Captured]], dict[str, deque[_Captured]]] = ({}, {})
        self._found = 0

    def new_pairs(self) -> Iterator[AnswerPair]:
        """Yield the pairs that became complete since the last call."""
        for side, variant in enumerate(self._sides):
            prefix = self._folder / variant / ""
            start = f"{prefix.key}{self._since:%Y/%m/%d/%H}"
            for row in self._store.list(prefix, start_after=start):
                if self._found >= MOST_PAIRS or row.uri.key in self._read:
                    continue
                self._read.add(row.uri.key)
                for line in capped_lines(self._store.pieces(row.uri)):
                    if line is not None:
                        yield from self._pair(side, line)

    def _pair(self, side: int, line: bytes) -> Iterator[AnswerPair]:
        try:
            envelope = parse_envelope(line)
        except Unreadable:
            return
        if envelope.time is None or envelope.time < self._since:
            return
        captured = _Captured(envelope.inference_id or envelope.event_id, _answers(envelope))
        names = _names(envelope)
        other = next((found for name in names if (found := self._take(1 - side, name))), None)
        if other is None:
            for name in names:
                self._waiting[side].setdefault(name, deque()).append(captured)
            return
        other.is_paired = True
        self._found += 1
        production, shadow = (captured, other) if side == 0 else (other, captured)
        yield AnswerPair(event=production.event, production=production.answers, shadow=shadow.answers)

    def _take(self, side: int, name: str) -> _Captured | None:
        """Return the first request of that name that waits; what was paired by another name is dropped."""
        queue = self._waiting[side].get(name)
        while queue:
            found = queue.popleft()
            if not found.is_paired:
                return found
        self._waiting[side].pop(name, None)
        return None


def _names(envelope: Envelope) -> tuple[str, ...]:
    """Return the names by which a request's other half may be known, the surest first."""
    by_event = (f"event {envelope.event_id}",) if envelope.event_id else ()
    if envelope.inference_id:
        return (*by_event, f"inference {envelope.inference_id}")
    data = _side(envelope.capture, "endpointInput").get("data")
    digest = hashlib.blake2b(str(data).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return (*by_event, f"request {digest}")


def _answers(envelope: Envelope) -> tuple[object, ...]:
    answers = read_bodies(envelope).answers
    if answers is not None:
        return answers
    return (str(_side(envelope.capture, "endpointOutput").get("data"))[:_MOST_TEXT],)


def _side(capture: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    side = capture.get(name)
    return side if isinstance(side, dict) else {}
