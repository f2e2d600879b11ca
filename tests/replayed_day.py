"""A day of captured traffic with the mishaps of real deliveries, and what counting and judging it at once gives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from captured_traffic import captured, healthy_rows, lines, reference

from airflow_dlaws.drift.columns import count_columns
from airflow_dlaws.drift.counts import TrafficCounts
from airflow_dlaws.drift.progress import hour_text
from airflow_dlaws.drift.report import DriftReport
from airflow_dlaws.drift.sequence import Evidence, advance
from airflow_dlaws.drift.settings import DriftSettings
from airflow_dlaws.drift.state import DriftState
from airflow_dlaws.jobs.wire import from_json

HOURS, EMPTY, DRIFTED = 24, 7, 23
#: A file of the hour LATE is delivered with those of two hours later.
LATE, LATE_WITH = 4, 6
FILES, REQUESTS, ROWS = 4, 10, 10
LATE_REQUESTS = 3
PROFILE = reference()
SETTINGS = DriftSettings(min_rows=FILES * REQUESTS * ROWS)

Request = dict[str, Any]


class Day:
    """The requests of 24 hours, the last of them the present one, and what of them is delivered when."""

    def __init__(self, s3: Any, bucket: str) -> None:
        self._s3, self._bucket = s3, bucket
        self._start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=HOURS - 1)
        count = FILES * REQUESTS
        self.requests = {hour: self._requests(hour, count) for hour in range(HOURS) if hour != EMPTY}
        self.late = self._requests(LATE, LATE_REQUESTS, seed=100)

    def _requests(self, hour: int, count: int, seed: int = 0) -> list[Request]:
        rows, scores = healthy_rows(count * ROWS, seed=seed + hour + 2, delay=8 if hour == DRIFTED else 0)
        time = (self._start + timedelta(hours=hour, minutes=30)).isoformat()
        places = range(0, count * ROWS, ROWS)
        bodies = ["\n".join(",".join(map(str, row)) for row in rows[place : place + ROWS]) for place in places]
        answers = ["\n".join(f"{score:.6f}" for score in scores[place : place + ROWS]) for place in places]
        return [captured(body, answer, time=time) for body, answer in zip(bodies, answers, strict=True)]

    def deliver(self, hour: int, name: str, body: bytes) -> None:
        """Put a file under its hour."""
        text = hour_text(self._start + timedelta(hours=hour))
        self._s3.put_object(Bucket=self._bucket, Key=f"capture/replayed/AllTraffic/{text}/{name}.jsonl", Body=body)

    def deliver_hour(self, hour: int) -> None:
        """Put what SageMaker delivers in an hour, mishaps included."""
        requests = self.requests.get(hour, [])
        if hour == LATE_WITH:
            self.deliver(LATE, "late", lines(*self.late))
        for number in range(FILES if requests else 0):
            self.deliver(hour, f"{number}", lines(*requests[number * REQUESTS : (number + 1) * REQUESTS]))
        if hour == 9:
            whole = lines(requests[0])
            self.deliver(hour, "corrupt", b"\x00\xff{broken\n" + whole[: len(whole) // 2])
        if hour == 11:  # files of this hour and of the one before once more, events of the first twice in it
            self.deliver(hour, "again", lines(*self.requests[10][:REQUESTS], *requests[:REQUESTS], *requests[:3]))
        if hour == 15:  # and of an hour that is closed by now
            self.deliver(hour, "much-too-late", lines(*self.requests[2][:REQUESTS]))

    def windows(self, late_with: int = LATE_WITH) -> Iterator[list[Request]]:
        """Yield the requests of each look: those of an hour, and with them what came late."""
        for hour, requests in self.requests.items():
            yield [*self.late, *requests] if hour == late_with else requests


def counted(requests: list[Request]) -> TrafficCounts:
    """Count requests at once, as a table."""
    bodies = [request["captureData"] for request in requests]
    rows = [line.split(",") for body in bodies for line in body["endpointInput"]["data"].splitlines()]
    scores = [line for body in bodies for line in body["endpointOutput"]["data"].splitlines()]
    columns = dict(zip(PROFILE.feature_order, map(list, zip(*rows, strict=True)), strict=True))
    return count_columns(PROFILE, columns, {"prediction": scores})


def state_of(s3: Any, bucket: str) -> DriftState | None:
    """Return the sensor's state, or None before there is one."""
    rows = s3.list_objects_v2(Bucket=bucket, Prefix="drift/state/replayed/").get("Contents", [])
    if not rows:
        return None
    return from_json(DriftState, json.loads(s3.get_object(Bucket=bucket, Key=rows[0]["Key"])["Body"].read()))


def assert_counted_once(day: Day, state: DriftState) -> None:
    """Every request that was delivered in time, and each once."""
    everything = counted([request for window in day.windows() for request in window])
    assert (state.total.features, state.total.rows) == (everything.features, everything.rows)
    assert state.total.rows == ((HOURS - 1) * FILES * REQUESTS + LATE_REQUESTS) * ROWS
    assert state.total.requests == state.total.rows // ROWS
    assert state.total.faults == {"bad_json": 2, "duplicate": 2 * REQUESTS + 3, "too_late": REQUESTS}


def assert_judged_as_a_batch(
    day: Day, state: DriftState, summary: dict[str, Any], s3: Any, late_with: int = LATE_WITH
) -> None:
    """The same looks, taken at once from the requests, end with the same verdict and the same evidence."""
    evidence, verdicts = Evidence(), []
    for window in day.windows(late_with):
        evidence, verdict = advance(PROFILE, evidence, counted(window), SETTINGS)
        verdicts.append(verdict)
    assert [verdict.is_drift for verdict in verdicts] == [False] * (len(verdicts) - 1) + [True]
    bucket, _, key = summary["report_uri"].removeprefix("s3://").partition("/")
    report = from_json(DriftReport, json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read()))
    assert report.verdict == verdicts[-1]
    # A look of the sensor also says what could not be used.
    assert all(look.reason.startswith(each.reason) for look, each in zip(state.history, verdicts, strict=True))
    kept = [block.features for block in state.evidence.blocks]
    assert kept == [block.features for block in evidence.blocks]
    assert (state.evidence.looks, state.evidence.spent) == (evidence.looks, pytest.approx(evidence.spent))
