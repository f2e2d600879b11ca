"""A day of capture replayed in a real Airflow: each record counts once, and the verdict, a batch's, starts a DAG."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from captured_traffic import captured, healthy_rows, lines, reference

from airflow_dlaws.drift.capture import hour_text
from airflow_dlaws.drift.columns import count_columns
from airflow_dlaws.drift.counts import TrafficCounts
from airflow_dlaws.drift.report import DriftReport
from airflow_dlaws.drift.sequence import Evidence, advance
from airflow_dlaws.drift.settings import DriftSettings
from airflow_dlaws.drift.state import DriftState
from airflow_dlaws.jobs.wire import from_json
from airflow_dlaws.local.airflow_api import wait_until
from airflow_dlaws.local.airflow_stack import LocalAirflow
from airflow_dlaws.local.process import LocalAws

pytestmark = [pytest.mark.airflow, pytest.mark.slow]
BUCKET = "airflow-tests"
HOURS, EMPTY, LATE, DRIFTED = 24, 7, 3, 23
FILES, REQUESTS, ROWS = 4, 10, 10
LATE_REQUESTS = 3
PROFILE = reference()
SETTINGS = DriftSettings(min_rows=FILES * REQUESTS * ROWS)

Request = dict[str, Any]


class Day:
    """The requests of 24 hours, the last of them the present one, and what of them is delivered when."""

    def __init__(self, s3: Any) -> None:
        self._s3 = s3
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
        self._s3.put_object(Bucket=BUCKET, Key=f"capture/replayed/AllTraffic/{text}/{name}.jsonl", Body=body)

    def deliver_hour(self, hour: int) -> None:
        """Put what SageMaker delivers in an hour, mishaps included."""
        requests = self.requests.get(hour, [])
        for number in range(FILES if requests else 0):
            self.deliver(hour, f"{number}", lines(*requests[number * REQUESTS : (number + 1) * REQUESTS]))
        if hour == LATE + 2:
            self.deliver(LATE, "late", lines(*self.late))
        if hour == 9:
            whole = lines(requests[0])
            self.deliver(hour, "corrupt", b"\x00\xff{broken\n" + whole[: len(whole) // 2])
        if hour == 11:  # files of this hour and of the one before once more, events of the first twice in it
            self.deliver(hour, "again", lines(*self.requests[10][:REQUESTS], *requests[:REQUESTS], *requests[:3]))
        if hour == 15:  # and of an hour that is closed by now
            self.deliver(hour, "much-too-late", lines(*self.requests[2][:REQUESTS]))

    def windows(self) -> Iterator[list[Request]]:
        """Yield the requests of each look: those of an hour, and with them what came late."""
        for hour, requests in self.requests.items():
            yield [*self.late, *requests] if hour == LATE + 2 else requests


def counted(requests: list[Request]) -> TrafficCounts:
    """Count requests at once, as a table."""
    bodies = [request["captureData"] for request in requests]
    rows = [line.split(",") for body in bodies for line in body["endpointInput"]["data"].splitlines()]
    scores = [line for body in bodies for line in body["endpointOutput"]["data"].splitlines()]
    columns = dict(zip(PROFILE.feature_order, map(list, zip(*rows, strict=True)), strict=True))
    return count_columns(PROFILE, columns, {"prediction": scores})


def state_of(s3: Any) -> DriftState | None:
    """Return the sensor's state, or None before there is one."""
    rows = s3.list_objects_v2(Bucket=BUCKET, Prefix="drift/state/replayed/").get("Contents", [])
    if not rows:
        return None
    return from_json(DriftState, json.loads(s3.get_object(Bucket=BUCKET, Key=rows[0]["Key"])["Body"].read()))


def test_a_replayed_day_is_counted_once_and_its_drift_starts_a_dag(airflow: LocalAirflow, local_aws: LocalAws) -> None:
    s3 = local_aws.client("s3")
    s3.put_object(Bucket=BUCKET, Key="drift/reference.json", Body=json.dumps(PROFILE.document()).encode())
    airflow.api.wait_for_dags({"watch_replayed", "act_on_drift"}, limit_s=60)
    for dag_id in ("watch_replayed", "act_on_drift"):
        airflow.api.unpause(dag_id)
    wait_until(
        lambda: "Contents" in s3.list_objects_v2(Bucket=BUCKET, Prefix="drift/watchers/"),
        limit_s=60,
        what="the asset watcher looks",
    )
    run_id, day = airflow.api.trigger("watch_replayed"), Day(s3)
    for start in range(0, HOURS, 6):
        if start == 12:
            airflow.kill_component("triggerer")
        for hour in range(start, start + 6):
            day.deliver_hour(hour)
        if start == 12:
            airflow.start_component("triggerer")
        looks = sum(hour < start + 6 for hour in day.requests)
        wait_until(
            lambda looks=looks: getattr(state_of(s3), "looks", 0) == looks,  # type: ignore[misc]
            limit_s=90,
            what=f"{looks} looks were taken",
            every_s=0.2,
        )
    assert airflow.api.wait_for_run("watch_replayed", run_id, limit_s=60) == "success"
    state = state_of(s3)
    assert state is not None
    assert_counted_once(day, state)
    assert_judged_as_a_batch(day, state, airflow.api.xcom("watch_replayed", run_id, "watch"), s3)
    assert_started(airflow, state)


def assert_counted_once(day: Day, state: DriftState) -> None:
    """Every request that was delivered in time, and each once."""
    everything = counted([request for window in day.windows() for request in window])
    assert (state.total.features, state.total.rows) == (everything.features, everything.rows)
    assert state.total.rows == ((HOURS - 1) * FILES * REQUESTS + LATE_REQUESTS) * ROWS
    assert state.total.requests == state.total.rows // ROWS
    assert state.total.faults == {"bad_json": 2, "duplicate": 2 * REQUESTS + 3, "too_late": REQUESTS}


def assert_judged_as_a_batch(day: Day, state: DriftState, summary: dict[str, Any], s3: Any) -> None:
    """The same looks, taken at once from the requests, end with the same verdict and the same evidence."""
    evidence, verdicts = Evidence(), []
    for window in day.windows():
        evidence, verdict = advance(PROFILE, evidence, counted(window), SETTINGS)
        verdicts.append(verdict)
    assert [verdict.is_drift for verdict in verdicts] == [False] * (len(verdicts) - 1) + [True]
    key = summary["report_uri"].removeprefix(f"s3://{BUCKET}/")
    report = from_json(DriftReport, json.loads(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()))
    assert report.verdict == verdicts[-1]
    assert [look.reason for look in state.history] == [verdict.reason for verdict in verdicts]
    kept = [block.features for block in state.evidence.blocks]
    assert kept == [block.features for block in evidence.blocks]
    assert (state.evidence.looks, state.evidence.spent) == (evidence.looks, pytest.approx(evidence.spent))


def assert_started(airflow: LocalAirflow, state: DriftState) -> None:
    """The watcher has started its DAG within seconds of the verdict, with what the verdict says."""
    wait_until(lambda: bool(airflow.api.runs("act_on_drift")), limit_s=30, what="the DAG is started")
    (run,) = airflow.api.runs("act_on_drift")
    assert airflow.api.wait_for_run("act_on_drift", run["dag_run_id"], limit_s=60) == "success"
    (payload,) = airflow.api.xcom("act_on_drift", run["dag_run_id"], "act")
    assert state.alarm is not None
    assert payload["report_uri"] == state.alarm.summary["report_uri"]
    assert "delay" in payload["features"]
    assert datetime.fromisoformat(run["run_after"]) - state.alarm.at < timedelta(seconds=15)
