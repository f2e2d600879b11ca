"""The wire protocol "RPC v2 CBOR", from the server's side.

Source: https://smithy.io/2.0/additional-specs/protocols/smithy-rpc-v2.html. botocore's encoder and decoder are used.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from botocore import parsers, serialize
from botocore.model import OperationModel
from werkzeug.wrappers import Response

from airflow_dlaws.local.errors import ServiceError

_HEADERS = {"smithy-protocol": "rpc-v2-cbor"}
_CBOR = "application/cbor"


def read(body: bytes) -> Any:
    """Return the document of a request.

    :raises ServiceError: SerializationException where it is none.
    """
    if not body:
        return {}
    parser = parsers.BaseCBORParser()
    try:
        return parser.parse_data_item(io.BufferedReader(io.BytesIO(body)))
    except parsers.ResponseParserError as error:
        raise ServiceError("SerializationException", f"the request is no CBOR document: {error}") from error


def answer(operation: OperationModel, document: Mapping[str, Any]) -> Response:
    """Write an answer, by the operation's output shape."""
    data = bytearray()
    serialize.CBORSerializer()._serialize_data_item(data, dict(document), operation.output_shape)
    return Response(bytes(data), content_type=_CBOR, headers=_HEADERS)


def error(error: ServiceError) -> Response:
    """Write an error: a map of texts."""
    fields = {"__type": error.code, "message": error.message}
    data = bytearray([0xA0 | len(fields)])
    for key, value in fields.items():
        data += _text(key) + _text(value)
    return Response(bytes(data), status=error.status, content_type=_CBOR, headers=_HEADERS)


def _text(value: str) -> bytes:
    data = value.encode()
    return bytes([0x7A]) + len(data).to_bytes(4, "big") + data
