"""Reading the requests and responses that SageMaker captured. Whatever stands in a file, reading it ends with counts.

One JSON object a line, https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-data-capture-endpoint.html:
`captureData.endpointInput` and `.endpointOutput` with `encoding` (CSV, JSON or BASE64), `observedContentType` and
`data`; `eventMetadata` with `eventId`, `inferenceId` and `inferenceTime`. What a body may look like stands in body.py.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from airflow_dlaws.drift.body import Fault, Row, Unreadable, read_rows, read_scores
from airflow_dlaws.drift.counts import FeatureCounts, TrafficCounts, count_values, no_traffic
from airflow_dlaws.drift.profile import PREDICTION, ReferenceProfile

#: SageMaker takes 25 MB a request (InvokeEndpoint), and base64 and the response make a line longer; more is no capture.
MAX_LINE_BYTES = 100_000_000

#: Enough that counting by columns pays, few enough that a file's rows are never all in memory.
_LINES_AT_ONCE = 100


@dataclass(frozen=True, kw_only=True)
class CaptureRecord:
    """One captured request with its response."""

    #: Each row is a list of values in request order, or a mapping by feature name. None where input is not captured.
    rows: tuple[Row, ...] | None
    #: None where output is not captured, or is no list of scores.
    scores: tuple[object, ...] | None
    time: datetime | None
    inference_id: str = ""
    faults: tuple[Fault, ...] = ()


def parse_line(line: bytes) -> CaptureRecord:
    """Read one line.

    :raises Unreadable: nothing can be had from it.
    """
    if len(line) > MAX_LINE_BYTES:
        raise Unreadable(Fault.LINE_TOO_LONG)
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Unreadable(Fault.BAD_JSON) from error
    capture = _mapping(document).get("captureData")
    if not isinstance(capture, dict):
        raise Unreadable(Fault.NOT_A_CAPTURE)
    faults: list[Fault] = []
    rows = _side(capture.get("endpointInput"), read_rows, faults)
    scores = _side(capture.get("endpointOutput"), read_scores, faults)
    metadata = _mapping(_mapping(document).get("eventMetadata"))
    time = _time(metadata.get("inferenceTime"))
    if time is None:
        faults.append(Fault.NO_TIME)
    if rows is not None and scores is not None and len(rows) != len(scores):
        faults.append(Fault.ROW_COUNT_MISMATCH)
        scores = None
    return CaptureRecord(
        rows=rows, scores=scores, time=time, inference_id=str(metadata.get("inferenceId") or ""), faults=tuple(faults)
    )


def _side(side: Any, read: Any, faults: list[Fault]) -> Any:
    if side is None:
        return None
    try:
        return tuple(read(_mapping(side)))
    except Unreadable as error:
        faults.append(error.fault)
        return None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _time(text: Any) -> datetime | None:
    try:
        time = datetime.fromisoformat(str(text))
        return time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def parse_capture(data: bytes) -> Iterator[CaptureRecord | Fault]:
    """Yield each record of a file, or what is wrong with its line. Empty lines are passed over."""
    for line in io.BytesIO(data):
        if line.strip():
            try:
                yield parse_line(line)
            except Unreadable as error:
                yield error.fault


def count_capture(profile: ReferenceProfile, data: bytes, *, since: datetime | None = None) -> TrafficCounts:
    """Count a captured file in the cells of `profile`.

    :param since: requests answered before it belong to another model; they are counted as a fault of their own kind.
    """
    counts = no_traffic(profile)
    items = parse_capture(data)
    while chunk := list(itertools.islice(items, _LINES_AT_ONCE)):
        counts += _count_lines(profile, chunk, since)
    return counts


def _count_lines(
    profile: ReferenceProfile, items: list[CaptureRecord | Fault], since: datetime | None
) -> TrafficCounts:
    faults: Counter[Fault] = Counter()
    records = []
    for item in items:
        if isinstance(item, Fault):
            faults[item] += 1
        elif since is not None and item.time is not None and item.time < since:
            faults[Fault.BEFORE_MODEL] += 1
        else:
            faults.update(item.faults)
            records.append(item)
    features, rows = _count_rows(profile, records, faults)
    times = [record.time for record in records if record.time]
    return dataclasses.replace(
        no_traffic(profile),
        requests=len(records),
        rows=rows,
        features=features,
        faults={fault.value: count for fault, count in sorted(faults.items()) if count},
        first=min(times, default=None),
        last=max(times, default=None),
    )


def _count_rows(
    profile: ReferenceProfile, records: list[CaptureRecord], faults: Counter[Fault]
) -> tuple[tuple[FeatureCounts, ...], int]:
    rows = list(_well_formed(profile, records, faults))
    scores = [score for record in records for score in record.scores or ()]
    counted = []
    for feature in profile.watched:
        values: list[object] = []
        if feature.name == PREDICTION:
            values = scores
        elif feature.name in profile.feature_order:
            values = _column(rows, feature.name, profile.feature_order.index(feature.name))
        counts, not_numbers = count_values(feature, values)
        counted.append(counts)
        faults[Fault.NOT_A_NUMBER] += not_numbers
    # Where the request is not captured, its responses are all the rows there are.
    return tuple(counted), len(rows) + sum(len(record.scores or ()) for record in records if record.rows is None)


def _well_formed(profile: ReferenceProfile, records: list[CaptureRecord], faults: Counter[Fault]) -> Iterator[Row]:
    wanted = len(profile.feature_order)
    for record in records:
        for row in record.rows or ():
            if isinstance(row, list) and len(row) != wanted:
                faults[Fault.WRONG_COLUMN_COUNT] += 1
            else:
                yield row


def _column(rows: list[Row], name: str, position: int) -> list[object]:
    return [row[position] if isinstance(row, list) else row.get(name) for row in rows]
