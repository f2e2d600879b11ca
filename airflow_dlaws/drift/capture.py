"""Reading the requests and responses that SageMaker captured. Whatever stands in a file, reading it ends with counts.

One JSON object a line, https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-data-capture-endpoint.html:
`captureData.endpointInput` and `.endpointOutput` with `encoding` (CSV, JSON or BASE64), `observedContentType` and
`data`; `eventMetadata` with `eventId`, `inferenceId` and `inferenceTime`. What a request may look like stands in
body.py, what a response in answers.py, how a request is counted once in events.py.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from airflow_dlaws.drift.answers import Answer, output_columns, read_answers
from airflow_dlaws.drift.body import Fault, Row, Unreadable, read_rows, writable
from airflow_dlaws.drift.columns import count_columns
from airflow_dlaws.drift.counts import TrafficCounts, no_traffic
from airflow_dlaws.drift.events import EventLedger, event_number, line_number_in_file, sampled
from airflow_dlaws.drift.lines import capped_lines
from airflow_dlaws.drift.profile import ReferenceProfile
from airflow_dlaws.drift.progress import LAST_HOUR, hour_text

#: Enough that counting by columns pays, few enough that a file's rows are never all in memory.
_LINES_AT_ONCE = 1000
_BYTES_AT_ONCE = 8 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class CaptureRecord:
    """One captured request with its response."""

    #: Each row is a list of values in request order, or a mapping by feature name. None where input is not captured.
    rows: tuple[Row, ...] | None
    #: One a row. None where output is not captured, or cannot be read.
    answers: tuple[Answer, ...] | None
    time: datetime | None
    event_id: str = ""
    inference_id: str = ""
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """A captured line whose bodies are not read yet."""

    capture: Mapping[str, Any]
    time: datetime | None
    event_id: str
    inference_id: str


def parse_envelope(line: bytes) -> Envelope:
    """Read what stands around the bodies.

    :raises Unreadable: the line is no captured request.
    """
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Unreadable(Fault.BAD_JSON) from error
    capture = _mapping(document).get("captureData")
    if not isinstance(capture, dict):
        raise Unreadable(Fault.NOT_A_CAPTURE)
    metadata = _mapping(document.get("eventMetadata"))
    return Envelope(
        capture=capture,
        time=_time(metadata.get("inferenceTime")),
        event_id=_identifier(metadata.get("eventId")),
        inference_id=writable(_identifier(metadata.get("inferenceId"))),
    )


def read_bodies(envelope: Envelope, columns: tuple[str, ...] = ()) -> CaptureRecord:
    """Read request and response.

    :param columns: the names of the columns in request order; a first row of just these names is passed over.
    """
    faults: list[Fault] = []
    rows = _side(envelope.capture.get("endpointInput"), read_rows, faults)
    if rows and columns and rows[0] == list(columns):
        faults.append(Fault.HEADER_ROW)
        rows = rows[1:]
    wanted = None if rows is None else len(rows)
    answers = _side(envelope.capture.get("endpointOutput"), lambda side: read_answers(side, wanted), faults)
    if envelope.time is None:
        faults.append(Fault.NO_TIME)
    if not envelope.event_id:
        faults.append(Fault.NO_EVENT_ID)
    if rows is not None and answers is not None and len(rows) != len(answers):
        faults.append(Fault.ROW_COUNT_MISMATCH)
        answers = None
    return CaptureRecord(
        rows=None if rows is None else tuple(rows),
        answers=None if answers is None else tuple(answers),
        time=envelope.time,
        event_id=envelope.event_id,
        inference_id=envelope.inference_id,
        faults=tuple(faults),
    )


def _side(side: Any, read: Any, faults: list[Fault]) -> list[Any] | None:
    if side is None:
        return None
    try:
        return list(read(_mapping(side)))
    except Unreadable as error:
        if error.fault not in faults:  # both sides of one request in the same way are one request lost
            faults.append(error.fault)
        return None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _identifier(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _time(text: Any) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None


@dataclass(frozen=True, kw_only=True)
class CaptureReader:
    """Counts captured lines in the cells of a profile, each request once."""

    profile: ReferenceProfile
    #: Requests answered before it belong to another model; they are counted as a fault of their own kind.
    since: datetime | None = None
    #: "yyyy/mm/dd/hh": requests answered before are too late, for the ledger may have forgotten them.
    open_from: str = ""
    #: "yyyy/mm/dd/hh": the last hour that a clock which is right can say.
    latest: str = LAST_HOUR
    #: The share of the requests to count; which ones depends on their event ids alone.
    sample: float = 1.0
    #: What was counted before; what is counted now is added to it.
    ledger: EventLedger = field(default_factory=EventLedger)

    def read(self, lines: Iterable[bytes | None], hour: str = "") -> TrafficCounts:
        """Count the lines of one file; None stands for a line that was too long to be read (lines.py).

        :param hour: of the file's key. A request that says no time, or one after `latest`, is taken to be of it.
        """
        counts = no_traffic(self.profile)
        for records, faults in self.batches(lines, hour):
            counts += count_records(self.profile, records, faults)
        return counts

    def batches(
        self, lines: Iterable[bytes | None], hour: str = ""
    ) -> Iterator[tuple[list[CaptureRecord], Counter[Fault]]]:
        """Yield what is to be counted of one file, some records at a time, with what was passed over between them."""
        for chunk in _chunks(lines):
            faults: Counter[Fault] = Counter()
            taken = (self._taken(place, line, hour, faults) for place, line in chunk)
            yield [read_bodies(envelope, self.profile.feature_order) for envelope in taken if envelope], faults

    def _taken(self, place: int, line: bytes | None, hour: str, faults: Counter[Fault]) -> Envelope | None:
        """Return what is to be counted of a line; of a line that is not, count why."""
        if line is None:
            faults[Fault.LINE_TOO_LONG] += 1
            return None
        try:
            envelope = parse_envelope(line)
        except Unreadable as error:
            number = line_number_in_file(line, place)
            faults[self._passed_over(hour, number) or error.fault] += 1
            return None
        if fault := self._not_counted(envelope, place, line, hour):
            faults[fault] += 1
            return None
        return envelope

    def _not_counted(self, envelope: Envelope, place: int, line: bytes, hour: str) -> Fault | None:
        time = envelope.time
        if self.since and time and time < self.since:
            return Fault.BEFORE_MODEL
        answered = hour_text(time) if time else hour
        if hour and answered > self.latest:
            answered = hour
        if answered < self.open_from:
            return Fault.TOO_LATE
        number = event_number(envelope.event_id) if envelope.event_id else line_number_in_file(line, place)
        return self._passed_over(answered, number)

    def _passed_over(self, hour: str, number: int) -> Fault | None:
        if not sampled(number, self.sample):
            return Fault.SAMPLED_OUT
        return None if self.ledger.claim(hour, number) else Fault.DUPLICATE


def _chunks(lines: Iterable[bytes | None]) -> Iterator[list[tuple[int, bytes | None]]]:
    """Yield the lines that are not blank, with their places in the file, some at a time."""
    chunk: list[tuple[int, bytes | None]] = []
    size = 0
    for place, line in enumerate(lines):
        if line is not None and not line.strip():
            continue
        chunk.append((place, line))
        size += len(line or b"")
        if len(chunk) >= _LINES_AT_ONCE or size >= _BYTES_AT_ONCE:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def read_capture(
    profile: ReferenceProfile,
    pieces: Iterable[bytes],
    *,
    hour: str = "",
    since: datetime | None = None,
    open_from: str = "",
    latest: str = LAST_HOUR,
    sample: float = 1.0,
    ledger: EventLedger | None = None,
) -> TrafficCounts:
    """Count a captured file that comes in pieces of any size; see :class:`CaptureReader` for the parameters."""
    reader = CaptureReader(
        profile=profile,
        since=since,
        open_from=open_from,
        latest=latest,
        sample=sample,
        ledger=ledger or EventLedger(),
    )
    return reader.read(capped_lines(pieces), hour)


def count_capture(profile: ReferenceProfile, data: bytes, *, since: datetime | None = None) -> TrafficCounts:
    """Count a captured file that is in memory."""
    return read_capture(profile, [data], since=since)


def count_records(
    profile: ReferenceProfile, records: list[CaptureRecord], faults: Counter[Fault] | None = None
) -> TrafficCounts:
    """Count what was read.

    :param faults: what was passed over before.
    """
    found = Counter(faults or {})
    for record in records:
        found.update(record.faults)
    rows = list(_well_formed(profile, records, found))
    outputs, alone = _outputs(profile, records, found)
    columns = {name: _column(rows, name, place, found) for place, name in enumerate(profile.feature_order)}
    # Apart, as a response that cannot be read leaves its rows without answers.
    counts = count_columns(profile, columns) + count_columns(profile, {}, outputs)
    times = [record.time for record in records if record.time]
    for kind, count in counts.faults.items():
        found[Fault(kind)] += count
    return dataclasses.replace(
        counts,
        requests=len(records),
        # Where the request is not captured, its responses are all the rows there are.
        rows=len(rows) + alone,
        faults={fault.value: count for fault, count in sorted(found.items()) if count},
        first=min(times, default=None),
        last=max(times, default=None),
    )


def _well_formed(profile: ReferenceProfile, records: list[CaptureRecord], faults: Counter[Fault]) -> Iterator[Row]:
    names = frozenset(profile.feature_order)
    for record in records:
        for row in record.rows or ():
            if isinstance(row, list):
                fault = None if len(row) == len(names) else Fault.WRONG_COLUMN_COUNT
            else:
                fault = None if row.keys() <= names and row else Fault.UNKNOWN_COLUMN
                fault = fault if row.keys() & names else Fault.NO_KNOWN_COLUMN
            if fault:
                faults[fault] += 1
            if fault in {None, Fault.UNKNOWN_COLUMN}:
                yield row


def _outputs(
    profile: ReferenceProfile, records: list[CaptureRecord], faults: Counter[Fault]
) -> tuple[dict[str, list[object]], int]:
    """Return the columns of the outputs, and how many of their rows have no request."""
    columns: dict[str, list[object]] = output_columns(profile, [])
    alone = 0
    for record in records:
        try:
            for name, values in output_columns(profile, record.answers or ()).items():
                columns[name] += values
        except Unreadable as error:
            faults[error.fault] += 1
        else:
            alone += len(record.answers or ()) if record.rows is None else 0
    return columns, alone


def _column(rows: list[Row], name: str, place: int, faults: Counter[Fault]) -> list[object]:
    values = [row[place] if isinstance(row, list) else row.get(name) for row in rows]
    for index, value in enumerate(values):
        if isinstance(value, (list, dict)):
            faults[Fault.NESTED_VALUE] += 1
            values[index] = None
    return values
