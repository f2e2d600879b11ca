"""Which captured requests of production and of its shadow belong together."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from serving import Serving

from airflow_dlaws.launchers.rollout_pairs import PairReader
from airflow_dlaws.storage import ObjectStore, S3Uri

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


def line(
    request: str, answer: str, *, event: str = "", inference: str = "", at: datetime = NOON, kind: str = "CSV"
) -> str:
    """One captured request; without an event id of its own it gets a new one, as SageMaker gives each."""
    ids = {"eventId": event or str(uuid.uuid4()), **({"inferenceId": inference} if inference else {})}
    data = {
        "endpointInput": {"observedContentType": "text/csv", "mode": "INPUT", "data": request, "encoding": "CSV"},
        "endpointOutput": {"observedContentType": "text/csv", "mode": "OUTPUT", "data": answer, "encoding": kind},
    }
    metadata = {**ids, "inferenceTime": at.strftime("%Y-%m-%dT%H:%M:%SZ")}
    return json.dumps({"captureData": data, "eventMetadata": metadata, "eventVersion": "0"})


class Capture:
    """Captured files of one endpoint, and the reader of its pairs."""

    def __init__(self, serving: Serving) -> None:
        self._s3, self._bucket, self._name = serving.s3, serving.bucket, f"e-{uuid.uuid4().hex[:8]}"
        self.reader = PairReader(
            ObjectStore(serving.s3),
            S3Uri(self._bucket, f"captured/{self._name}"),
            production="AllTraffic",
            shadow="shadow",
            since=NOON.timestamp(),
            most_waiting=3,
        )

    def deliver(self, variant: str, *lines: str, hour: datetime = NOON) -> None:
        key = f"captured/{self._name}/{variant}/{hour:%Y/%m/%d/%H/%M-%S}-{uuid.uuid4()}.jsonl"
        self._s3.put_object(Bucket=self._bucket, Key=key, Body="\n".join(lines).encode())

    def pairs(self) -> list[tuple[Any, ...]]:
        found = self.reader.new_pairs()
        return sorted((pair.event, *pair.production, *pair.shadow) for pair in found)


@pytest.fixture
def capture(serving: Serving) -> Capture:
    return Capture(serving)


def test_halves_meet_by_inference_id_by_event_id_and_by_their_request(capture: Capture) -> None:
    capture.deliver(
        "AllTraffic", line("1", "a", inference="x"), line("3", "b", inference="y"), line("2", "c", event="e")
    )
    capture.deliver("shadow", line("3", "B", inference="y"), line("1", "A", inference="x"), line("9", "C", event="e"))
    assert capture.pairs() == [("e", "c", "C"), ("x", "a", "A"), ("y", "b", "B")]
    capture.deliver("AllTraffic", line("7", "d", event="p"))
    capture.deliver("shadow", line("7", "D"), line("8", "alone"))
    assert capture.pairs() == [("p", "d", "D")]


def test_of_equal_requests_the_first_pair_counts_and_the_others_are_told(capture: Capture) -> None:
    capture.deliver("AllTraffic", *[line("1", "a", event=f"p{n}") for n in range(2)], line("2", "b", event="q"))
    capture.deliver("shadow", *[line("1", "c") for _ in range(2)], line("2", "b"))
    assert capture.pairs() == [("p0", "a", "c"), ("q", "b", "b")]
    assert capture.reader.repeated == 1


def test_requests_under_one_inference_id_are_told_apart(capture: Capture) -> None:
    capture.deliver("AllTraffic", line("1", "a", inference="user"), line("2", "b", inference="user"))
    capture.deliver("shadow", line("2", "b", inference="user"))
    assert capture.pairs() == [("user", "b", "b")]


def test_requests_that_were_not_copied_are_forgotten_and_pairs_are_found_all_the_same(capture: Capture) -> None:
    for minute in range(5):
        at = NOON + timedelta(minutes=minute)
        alone = [line(f"{minute}{n}", "a", at=at, event=f"alone {minute}{n}") for n in range(2)]
        capture.deliver("AllTraffic", *alone, line(f"{minute}", "a", at=at, event=f"p{minute}"), hour=at)
        capture.deliver("shadow", line(f"{minute}", "b", at=at), hour=at)
    assert capture.pairs() == [(f"p{minute}", "a", "b") for minute in range(5)]
    capture.deliver("shadow", line("00", "a"), hour=NOON + timedelta(minutes=6))
    assert capture.pairs() == []


def test_a_file_that_could_not_be_read_is_read_at_the_next_look(capture: Capture, serving: Serving) -> None:
    capture.deliver("AllTraffic", line("1", "a", event="p"))
    capture.deliver("shadow", line("1", "b"))

    def lose(**_: Any) -> None:
        raise EndpointConnectionError(endpoint_url="https://s3")

    serving.s3.meta.events.register("before-call.s3.GetObject", lose)
    try:
        with pytest.raises(EndpointConnectionError):
            capture.pairs()
    finally:
        serving.s3.meta.events.unregister("before-call.s3.GetObject", lose)
    assert capture.pairs() == [("p", "a", "b")]


def test_a_half_that_comes_late_completes_its_pair_and_no_pair_comes_twice(capture: Capture) -> None:
    capture.deliver("AllTraffic", line("1", "a", event="p"))
    assert capture.pairs() == []
    later = NOON + timedelta(hours=1)
    capture.deliver("shadow", line("1", "b", at=later), hour=later)
    assert capture.pairs() == [("p", "a", "b")]
    assert capture.pairs() == []


def test_what_was_answered_before_the_shadow_came_and_what_is_no_capture_is_passed_over(capture: Capture) -> None:
    before = NOON - timedelta(minutes=5)
    capture.deliver("AllTraffic", line("1", "a", at=before), "no json", '{"captureData": 1}', line("2", "b", event="p"))
    capture.deliver("shadow", line("1", "b", at=before), line("2", "b"), "")
    assert capture.pairs() == [("p", "b", "b")]


def test_an_answer_that_cannot_be_read_is_compared_as_it_is(capture: Capture) -> None:
    capture.deliver("AllTraffic", line("1", "a", event="p"))
    capture.deliver("shadow", line("1", "{broken", kind="JSON"))
    assert capture.pairs() == [("p", "a", "{broken")]
