"""The bodies of captured requests: CSV, JSON and JSON lines, plain or base64, into rows. Responses: answers.py."""

from __future__ import annotations

import base64
import binascii
import csv
import enum
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

#: Values in request order, or by feature name.
Row = list[object] | dict[str, object]


class Fault(enum.StrEnum):
    """What could not be read, or was not used, in captured traffic."""

    LINE_TOO_LONG = "line_too_long"
    BAD_JSON = "bad_json"
    NOT_A_CAPTURE = "not_a_capture"
    BAD_BASE64 = "bad_base64"
    BAD_TEXT = "bad_text"
    BAD_CSV = "bad_csv"
    BAD_JSON_BODY = "bad_json_body"
    UNKNOWN_ENCODING = "unknown_encoding"
    UNKNOWN_CONTENT_TYPE = "unknown_content_type"
    UNKNOWN_JSON_LAYOUT = "unknown_json_layout"
    WRONG_COLUMN_COUNT = "wrong_column_count"
    #: A row by names, none of which the reference has.
    NO_KNOWN_COLUMN = "no_known_column"
    #: A row by names, some of which the reference has not; the others are used.
    UNKNOWN_COLUMN = "unknown_column"
    #: The first row of a request is the names of the columns.
    HEADER_ROW = "header_row"
    ROW_COUNT_MISMATCH = "row_count_mismatch"
    NOT_A_NUMBER = "not_a_number"
    #: A list or an object where a number or a text is due.
    NESTED_VALUE = "nested_value"
    NO_TIME = "no_time"
    NO_EVENT_ID = "no_event_id"
    #: Well-formed, and answered before the live model was in service.
    BEFORE_MODEL = "before_model"
    #: Answered in an hour that is closed: whether it was counted cannot be told any more.
    TOO_LATE = "too_late"
    #: Delivered once more, and counted the first time.
    DUPLICATE = "duplicate"
    #: Left out because a sample was asked for.
    SAMPLED_OUT = "sampled_out"


#: Faults that cost a request or a row; the others lose one value, or nothing that ought to be counted.
LOSING_ROWS = frozenset(
    {
        Fault.LINE_TOO_LONG, Fault.BAD_JSON, Fault.NOT_A_CAPTURE, Fault.BAD_BASE64, Fault.BAD_TEXT, Fault.BAD_CSV,
        Fault.BAD_JSON_BODY, Fault.UNKNOWN_ENCODING, Fault.UNKNOWN_CONTENT_TYPE, Fault.UNKNOWN_JSON_LAYOUT,
        Fault.WRONG_COLUMN_COUNT, Fault.NO_KNOWN_COLUMN, Fault.TOO_LATE,
    }
)  # fmt: skip

#: Names under which serving programs wrap the rows of a JSON request.
_ROW_KEYS = ("instances", "inputs", "rows", "data")
_ROW_VALUE_KEYS = ("features", "values")


class Unreadable(Exception):
    """A line or body that gives nothing; `fault` says why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.value)
        self.fault = fault


def read_rows(side: Mapping[str, Any]) -> list[Row]:
    """Return the rows of `endpointInput`.

    :raises Unreadable: the body is none of the known kinds.
    """
    kind, text = text_of(side)
    if kind == "csv":
        return [list(row) for row in csv_rows(text)]
    return [_json_row(item) for document in documents(kind, text) for item in _items(document)]


def text_of(side: Mapping[str, Any]) -> tuple[str, str]:
    """Return the kind of a body ("csv", "json", "jsonlines") and its text.

    :raises Unreadable: it is of no known kind, or no text.
    """
    encoding, data = str(side.get("encoding", "")).upper(), side.get("data")
    content_type = str(side.get("observedContentType", "")).partition(";")[0].strip().lower()
    if not isinstance(data, str):
        raise Unreadable(Fault.NOT_A_CAPTURE)
    if encoding == "BASE64":
        return _kind(content_type), _decoded(data)
    if encoding == "CSV":
        return "csv", writable(data)
    if encoding == "JSON":
        return ("jsonlines" if "lines" in content_type else "json"), writable(data)
    raise Unreadable(Fault.UNKNOWN_ENCODING)


def writable(text: str) -> str:
    """Return the text without lone surrogates: JSON can write one, UTF-8 cannot, and a report must be written."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _writable(value: Any) -> Any:
    """Return a JSON value without lone surrogates."""
    if isinstance(value, str):
        return writable(value)
    if isinstance(value, list):
        return [_writable(item) for item in value]
    if isinstance(value, dict):
        return {writable(name): _writable(item) for name, item in value.items()}
    return value


def _kind(content_type: str) -> str:
    if content_type in {"text/csv", "application/csv"}:
        return "csv"
    if content_type in {"application/jsonlines", "application/x-ndjson", "application/json-lines"}:
        return "jsonlines"
    if content_type == "application/json" or content_type.endswith("+json"):
        return "json"
    raise Unreadable(Fault.UNKNOWN_CONTENT_TYPE)


def _decoded(data: str) -> str:
    try:
        return base64.b64decode(data, validate=True).decode()
    except UnicodeDecodeError as error:
        raise Unreadable(Fault.BAD_TEXT) from error
    except (binascii.Error, ValueError) as error:
        raise Unreadable(Fault.BAD_BASE64) from error


def csv_rows(text: str) -> list[list[str]]:
    """Return the rows of a CSV body without its blank lines: that a request ends in several is common.

    :raises Unreadable: it is no CSV.
    """
    try:
        return [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    except csv.Error as error:
        raise Unreadable(Fault.BAD_CSV) from error


def documents(kind: str, text: str) -> Iterator[Any]:
    """Yield the documents of a JSON body, or of each line of JSON lines.

    :raises Unreadable: one is no JSON.
    """
    # Not splitlines(): JSON's texts may hold what ends lines in Unicode alone.
    parts = [line for line in text.split("\n") if line.strip()] if kind == "jsonlines" else [text]
    for part in parts:
        try:
            document = json.loads(part)
            yield _writable(document) if "\\ud" in part.lower() else document
        except (ValueError, RecursionError) as error:
            raise Unreadable(Fault.BAD_JSON_BODY) from error


def _items(document: Any) -> list[Any]:
    """Return the rows of a JSON body: of the list it is or wraps, or the body itself."""
    if isinstance(document, dict):
        wrapped = next((document[key] for key in _ROW_KEYS if isinstance(document.get(key), list)), None)
        document = document if wrapped is None else wrapped
    if not isinstance(document, list):
        return [document]
    # A list without lists or objects in it is one row.
    return document if not document or any(isinstance(item, (list, dict)) for item in document) else [document]


def _json_row(item: Any) -> Row:
    if isinstance(item, dict):
        item = next((item[key] for key in _ROW_VALUE_KEYS if isinstance(item.get(key), (list, dict))), item)
    if isinstance(item, (list, dict)):
        return item
    raise Unreadable(Fault.UNKNOWN_JSON_LAYOUT)
