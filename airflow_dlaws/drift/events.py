"""Which captured requests were counted already: eight bytes for each, by the hour in which it was answered.

SageMaker may deliver a request more than once: a file again under another key, or an event twice in a file. A request
is known by the hash of its `eventId`; a line without one by its content and its place in its file. The ids of an hour
are kept as long as files with that hour may still come, and one hour's are looked up at a time: memory grows with the
requests of an hour, never with the size of a file. That two of a million requests of an hour share a hash, and one is
taken for the other, has a chance of 3 in 100 million.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Mapping

#: Ids kept in a set until they are worth sorting into the others.
_PENDING = 50_000

_SPACE = 2**64


def event_number(event_id: str) -> int:
    """Return the 64-bit number by which a request is known."""
    # An id may hold a lone surrogate, which JSON can write and UTF-8 cannot.
    return _number(event_id.encode("utf-8", "surrogatepass"))


def line_number_in_file(line: bytes, place: int) -> int:
    """Return the number of a line that has no event id: the same file delivered again has the same lines in it."""
    return _number(b"%d " % place + line)


def _number(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def sampled(number: int, share: float) -> bool:
    """Tell whether the request of this number belongs to a sample of `share`; always the same requests do."""
    return number < share * _SPACE


class EventLedger:
    """The requests that were counted.

    :param load: returns the ids of an hour ("yyyy/mm/dd/hh") as :meth:`changed` gave them, or nothing where none were
        kept. Asked once for each hour that comes up.
    """

    def __init__(self, load: Callable[[str], bytes] = lambda hour: b"") -> None:
        self._load = load
        self._hours: dict[str, _Ids] = {}

    def claim(self, hour: str, number: int) -> bool:
        """Take a request as counted; return whether it was not counted before."""
        if hour not in self._hours:
            self._hours[hour] = _Ids(self._load(hour))
        return self._hours[hour].add(number)

    def changed(self) -> Mapping[str, bytes]:
        """Return the ids of each hour that has got new ones: sorted little-endian 64-bit integers."""
        return {hour: ids.document() for hour, ids in sorted(self._hours.items()) if ids.changed}


class _Ids:
    """A growing set of 64-bit numbers: a sorted array, and a small set of the newest."""

    def __init__(self, document: bytes) -> None:
        self._sorted = array("Q", document)
        self._pending: set[int] = set()
        self.changed = False

    def add(self, number: int) -> bool:
        if number in self._pending:
            return False
        place = bisect_left(self._sorted, number)
        if place < len(self._sorted) and self._sorted[place] == number:
            return False
        self._pending.add(number)
        self.changed = True
        if len(self._pending) > _PENDING:
            self._merge()
        return True

    def document(self) -> bytes:
        self._merge()
        return self._sorted.tobytes()

    def _merge(self) -> None:
        # Without numpy, which who only rolls out need not have: runs of the old numbers are copied whole.
        merged, done = array("Q"), 0
        for number in sorted(self._pending):
            place = bisect_left(self._sorted, number, done)
            merged += self._sorted[done:place]
            merged.append(number)
            done = place
        self._sorted, self._pending = merged + self._sorted[done:], set()
