"""Data capture: requests and answers of an endpoint, as JSON lines in S3, in AWS's layout.

    s3://DESTINATION/endpoint/variant/yyyy/mm/dd/hh/NAME.jsonl       (UTC; NAME means nothing)

Source: developer guide, "Capture data from real-time endpoint". AWS delivers within minutes, this every few seconds.
"""

from __future__ import annotations

import base64
import json
import random
import threading
import traceback
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from airflow_dlaws.local.context import LocalContext, RequestContext

#: Time between two deliveries (service seconds, scaled), and the shortest real one.
DELIVER_SECONDS = 10.0
SHORTEST_DELIVERY = 0.5
#: A buffer of this many bytes is delivered without waiting.
LARGEST_BUFFER = 4 * 1024 * 1024

_INPUT_MODES = frozenset({"Input", "InputAndOutput"})
_OUTPUT_MODES = frozenset({"Output", "InputAndOutput"})


@dataclass(frozen=True, kw_only=True)
class Message:
    """A request's or an answer's body with the content type that was sent along."""

    content_type: str
    body: bytes


def capture_record(
    config: Mapping[str, Any],
    *,
    request: Message,
    answer: Message,
    event_id: str,
    inference_id: str | None,
    at: datetime,
) -> dict[str, Any]:
    """Build the record of one invocation; `config` is the DataCaptureConfig, `at` is in UTC."""
    modes = {option["CaptureMode"] for option in config["CaptureOptions"]}
    data: dict[str, Any] = {}
    if modes & _INPUT_MODES:
        data["endpointInput"] = _side(config, "INPUT", request)
    if modes & _OUTPUT_MODES:
        data["endpointOutput"] = _side(config, "OUTPUT", answer)
    metadata = {"eventId": event_id, "inferenceTime": at.strftime("%Y-%m-%dT%H:%M:%SZ")}
    if inference_id is not None:
        metadata["inferenceId"] = inference_id
    return {"captureData": data, "eventMetadata": metadata, "eventVersion": "0"}


def object_prefix(endpoint: str, variant: str, at: datetime) -> str:
    """The part of the key below the destination: endpoint/variant/yyyy/mm/dd/hh."""
    return f"{endpoint}/{variant}/{at:%Y/%m/%d/%H}"


def _side(config: Mapping[str, Any], mode: str, message: Message) -> dict[str, str]:
    data, encoding = _encoded(config.get("CaptureContentTypeHeader") or {}, message)
    return {"observedContentType": message.content_type, "mode": mode, "data": data, "encoding": encoding}


def _encoded(headers: Mapping[str, Any], message: Message) -> tuple[str, str]:
    """Base64, unless the content type is listed and the bytes are text."""
    media_type = _media_type(message.content_type)
    for member, encoding in (("CsvContentTypes", "CSV"), ("JsonContentTypes", "JSON")):
        if media_type in map(_media_type, headers.get(member, ())):
            try:
                return message.body.decode("utf-8"), encoding
            except UnicodeDecodeError:
                break
    return base64.b64encode(message.body).decode(), "BASE64"


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


@dataclass
class _Buffer:
    lines: list[str] = field(default_factory=list)
    size: int = 0


class CaptureWriter:
    """Samples the invocations of one endpoint and delivers their records."""

    def __init__(
        self, context: LocalContext, request: RequestContext, endpoint: str, config: Mapping[str, Any]
    ) -> None:
        self._context, self._endpoint, self._config = context, endpoint, config
        self._s3 = context.client("s3", request.region)
        self._random = random.Random()
        self._lock = threading.Lock()
        self._buffers: dict[str, _Buffer] = {}
        self._wake = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._deliver_until_closed, daemon=True)
        self._thread.start()

    def offer(self, variant: str, *, request: Message, answer: Message, inference_id: str | None, at: datetime) -> None:
        """Capture an invocation, if it is sampled."""
        if not self._config.get("EnableCapture", True):
            return
        if self._random.random() * 100 >= self._config["InitialSamplingPercentage"]:
            return
        event_id = str(uuid.uuid4())
        record = capture_record(
            self._config, request=request, answer=answer, event_id=event_id, inference_id=inference_id, at=at
        )
        self._add(object_prefix(self._endpoint, variant, at), json.dumps(record))

    def summary(self) -> dict[str, Any]:
        """The DataCaptureConfig of DescribeEndpoint."""
        enabled = bool(self._config.get("EnableCapture", True))
        return {
            "EnableCapture": enabled,
            "CaptureStatus": "Started" if enabled else "Stopped",
            "CurrentSamplingPercentage": self._config["InitialSamplingPercentage"],
            "DestinationS3Uri": self._config["DestinationS3Uri"],
            "KmsKeyId": self._config.get("KmsKeyId"),
        }

    def close(self) -> None:
        """Deliver everything and stop."""
        self._closed = True
        self._wake.set()
        self._thread.join()

    def _add(self, prefix: str, line: str) -> None:
        with self._lock:
            buffer = self._buffers.setdefault(prefix, _Buffer())
            buffer.lines.append(line)
            buffer.size += len(line)
            if buffer.size > LARGEST_BUFFER:
                self._wake.set()
        if self._closed:  # a request that was under way when the writer closed
            self._deliver()

    def _deliver_until_closed(self) -> None:
        while not self._closed and not self._context.closing.is_set():
            self._wake.wait(max(SHORTEST_DELIVERY, self._context.scaled(DELIVER_SECONDS)))
            self._wake.clear()
            delay = self._context.faults.take("capture_delay", self._endpoint)
            if delay and not self._closed:
                self._wake.wait(self._context.scaled(delay.seconds))
            self._deliver()
        self._deliver()

    def _deliver(self) -> None:
        with self._lock:
            buffers, self._buffers = self._buffers, {}
        bucket, _, root = self._config["DestinationS3Uri"].removeprefix("s3://").partition("/")
        for prefix, buffer in buffers.items():
            name = f"{self._context.now():%M-%S-%f}-{uuid.uuid4()}.jsonl"
            key = "/".join(part for part in (root.strip("/"), prefix, name) if part)
            self._put(bucket, key, buffer.lines)

    def _put(self, bucket: str, key: str, lines: Iterable[str]) -> None:
        if self._context.closing.is_set():
            return
        try:
            self._s3.put_object(Bucket=bucket, Key=key, Body="".join(f"{line}\n" for line in lines).encode())
        except (BotoCoreError, ClientError):
            # AWS drops what it cannot deliver, and serves on; here the server's log says so.
            traceback.print_exc()
