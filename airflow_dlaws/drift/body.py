"""The bodies of captured requests and responses: CSV, JSON and JSON lines, plain or base64, into rows and scores."""

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
    """What could not be read, or not be used, in captured traffic."""

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
    ROW_COUNT_MISMATCH = "row_count_mismatch"
    NOT_A_NUMBER = "not_a_number"
    NO_TIME = "no_time"
    #: Well-formed, and answered before the live model was in service.
    BEFORE_MODEL = "before_model"


#: Faults that cost a request or a row; the others lose one value, or nothing.
LOSING_ROWS = frozenset(set(Fault) - {Fault.NOT_A_NUMBER, Fault.NO_TIME, Fault.BEFORE_MODEL, Fault.ROW_COUNT_MISMATCH})

#: Names under which serving programs wrap the rows of a JSON request, and the scores of a response.
_ROW_KEYS = ("instances", "inputs", "rows", "data")
_SCORE_KEYS = ("predictions", "scores", "outputs", "probabilities")
_ROW_VALUE_KEYS = ("features", "values")
_SCORE_VALUE_KEYS = ("score", "probability", "prediction")


class Unreadable(Exception):
    """A line or body that gives nothing; `fault` says why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.value)
        self.fault = fault


def read_rows(side: Mapping[str, Any]) -> list[Row]:
    """Return the rows of `endpointInput`.

    :raises Unreadable: the body is none of the known kinds.
    """
    kind, text = _text_of(side)
    if kind == "csv":
        return [list(row) for row in _csv(text)]
    return [_json_row(item) for document in _documents(kind, text) for item in _items(document, _ROW_KEYS, nested=True)]


def read_scores(side: Mapping[str, Any]) -> list[object]:
    """Return the scores of `endpointOutput`, one a row: the last column where there are several.

    :raises Unreadable: the body is none of the known kinds.
    """
    kind, text = _text_of(side)
    if kind == "csv":
        return [row[-1] for row in _csv(text)]
    return [
        _json_score(item) for document in _documents(kind, text) for item in _items(document, _SCORE_KEYS, nested=False)
    ]


def _text_of(side: Mapping[str, Any]) -> tuple[str, str]:
    """Return the kind of body ("csv", "json", "jsonlines") and its text."""
    encoding, data = str(side.get("encoding", "")).upper(), side.get("data")
    content_type = str(side.get("observedContentType", "")).partition(";")[0].strip().lower()
    if not isinstance(data, str):
        raise Unreadable(Fault.NOT_A_CAPTURE)
    if encoding == "BASE64":
        return _kind(content_type), _decoded(data)
    if encoding == "CSV":
        return "csv", data
    if encoding == "JSON":
        return ("jsonlines" if "lines" in content_type else "json"), data
    raise Unreadable(Fault.UNKNOWN_ENCODING)


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


def _csv(text: str) -> list[list[str]]:
    try:
        # Blank lines are no rows; that a request may end in several is common.
        return [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    except csv.Error as error:
        raise Unreadable(Fault.BAD_CSV) from error


def _documents(kind: str, text: str) -> Iterator[Any]:
    parts = [line for line in text.splitlines() if line.strip()] if kind == "jsonlines" else [text]
    for part in parts:
        try:
            yield json.loads(part)
        except (ValueError, RecursionError) as error:
            raise Unreadable(Fault.BAD_JSON_BODY) from error


def _items(document: Any, keys: tuple[str, ...], *, nested: bool) -> list[Any]:
    """Return the items of a JSON body: of the list it is or wraps, or the body itself.

    :param nested: an item is a list of its own, so a list without lists or objects in it is one item.
    """
    if isinstance(document, dict):
        wrapped = next((document[key] for key in keys if isinstance(document.get(key), list)), None)
        document = document if wrapped is None else wrapped
    if not isinstance(document, list):
        return [document]
    if nested and document and not any(isinstance(item, (list, dict)) for item in document):
        return [document]
    return document


def _json_row(item: Any) -> Row:
    if isinstance(item, dict):
        item = next((item[key] for key in _ROW_VALUE_KEYS if isinstance(item.get(key), (list, dict))), item)
    if isinstance(item, (list, dict)):
        return item
    raise Unreadable(Fault.UNKNOWN_JSON_LAYOUT)


def _json_score(item: Any) -> object:
    if isinstance(item, dict):
        item = next((item[key] for key in _SCORE_VALUE_KEYS if key in item), item)
    if isinstance(item, list) and item:
        item = item[-1]
    if isinstance(item, (dict, list)):
        raise Unreadable(Fault.UNKNOWN_JSON_LAYOUT)
    return item
