"""Records of data capture are what AWS writes."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_dlaws.local.capture import Message, capture_record, object_prefix

AT = datetime(2026, 2, 14, 7, 25, 6, 999, tzinfo=UTC)
HEADERS = {"CsvContentTypes": ["text/csv"], "JsonContentTypes": ["application/json"]}


def record(*, modes: tuple[str, ...] = ("InputAndOutput",), body: bytes = b"1,2", **config: Any) -> dict[str, Any]:
    return capture_record(
        {"CaptureOptions": [{"CaptureMode": mode} for mode in modes], **config},
        request=Message(content_type="text/csv", body=body),
        answer=Message(content_type="application/json; charset=utf-8", body=b"[0.5]"),
        event_id="an-id",
        inference_id="mine",
        at=AT,
    )


def test_a_record_has_both_sides_and_says_when() -> None:
    assert record(CaptureContentTypeHeader=HEADERS) == {
        "captureData": {
            "endpointInput": {
                "observedContentType": "text/csv",
                "mode": "INPUT",
                "data": "1,2",
                "encoding": "CSV",
            },
            "endpointOutput": {
                "observedContentType": "application/json; charset=utf-8",
                "mode": "OUTPUT",
                "data": "[0.5]",
                "encoding": "JSON",
            },
        },
        "eventMetadata": {"eventId": "an-id", "inferenceTime": "2026-02-14T07:25:06Z", "inferenceId": "mine"},
        "eventVersion": "0",
    }


def test_without_listed_content_types_everything_is_base64() -> None:
    side = record()["captureData"]["endpointInput"]
    assert (side["encoding"], base64.b64decode(side["data"])) == ("BASE64", b"1,2")


def test_bytes_that_are_no_text_are_base64_whatever_is_listed() -> None:
    side = record(body=b"\xff\x00", CaptureContentTypeHeader=HEADERS)["captureData"]["endpointInput"]
    assert (side["encoding"], base64.b64decode(side["data"])) == ("BASE64", b"\xff\x00")


@pytest.mark.parametrize(
    ("modes", "sides"),
    [
        (("Input",), {"endpointInput"}),
        (("Output",), {"endpointOutput"}),
        (("Input", "Output"), {"endpointInput", "endpointOutput"}),
    ],
)
def test_capture_options_choose_the_sides(modes: tuple[str, ...], sides: set[str]) -> None:
    assert set(record(modes=modes)["captureData"]) == sides


def test_objects_lie_by_endpoint_variant_and_hour() -> None:
    assert object_prefix("flights", "AllTraffic", AT) == "flights/AllTraffic/2026/02/14/07"
