"""DataProcessing of transform jobs on CSV: which columns go to the model, and which of input and answer come out.

InputFilter and OutputFilter are JSONPath; the operators on a CSV row, which AWS takes for a JSON array, are
`$`, `$[2]`, `$[-1]`, `$[0,5:]`, `$[1:-1]`. Source: batch-transform-data-processing in the developer guide.
Not here: JSON and JSON lines.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_PART = re.compile(r"(-?\d+)|(-?\d+)?:(-?\d+)?")


class RowFault(Exception):
    """A row cannot be processed as asked; the text is AWS's where it is known."""


@dataclass(frozen=True)
class Selection:
    """Columns of a row, by index or by slice."""

    parts: tuple[int | slice, ...]

    @classmethod
    def parse(cls, path: str) -> Selection:
        """Read a JSONPath.

        :raises ValueError: it is none of those that select from an array.
        """
        if path in {"", "$"}:
            return cls((slice(None),))
        if not (path.startswith("$[") and path.endswith("]")):
            raise ValueError(f"{path!r} selects nothing from a CSV row: use $, $[0], $[-1], $[1:] or $[0,5:]")
        return cls(tuple(_part(text.strip(), path) for text in path[2:-1].split(",")))

    def of(self, row: Sequence[str]) -> list[str]:
        """Return the selected values, in the order of the selection.

        :raises RowFault: an index is outside the row.
        """
        chosen: list[str] = []
        for part in self.parts:
            if isinstance(part, slice):
                chosen += row[part]
            elif not -len(row) <= part < len(row):
                raise RowFault(f"Index {part} is out of bounds for a row of {len(row)} values")
            else:
                chosen.append(row[part])
        return chosen


def _part(text: str, path: str) -> int | slice:
    found = _PART.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} in {path!r} is neither an index nor a slice")
    index, start, end = found.groups()
    if index is not None:
        return int(index)
    return slice(int(start) if start else None, int(end) if end else None)


@dataclass(frozen=True, kw_only=True)
class DataProcessing:
    """What is done to the records before and after the model."""

    input_filter: Selection
    output_filter: Selection
    join: bool

    @classmethod
    def read(cls, request: Mapping[str, Any]) -> DataProcessing | None:
        """Read a CreateTransformJob request; None where it asks for nothing.

        :raises ValueError: a filter that does not select from CSV.
        """
        asked = request.get("DataProcessing", {})
        processing = cls(
            input_filter=Selection.parse(asked.get("InputFilter", "$")),
            output_filter=Selection.parse(asked.get("OutputFilter", "$")),
            join=asked.get("JoinSource", "None") == "Input",
        )
        everything = Selection.parse("$")
        return processing if processing != cls(input_filter=everything, output_filter=everything, join=False) else None

    def before(self, records: Sequence[bytes]) -> bytes:
        """Return the body of a request for these records."""
        return _write(self.input_filter.of(row) for row in map(_parse, records))

    def after(self, records: Sequence[bytes], answer: bytes) -> bytes:
        """Return what is stored of the model's answer to these records.

        :raises RowFault: the answer does not have one line for each record.
        """
        rows = [_parse(line) for line in answer.splitlines()]
        if self.join:
            if len(rows) != len(records):
                raise RowFault("Fail to join data: mismatched line count between the input and the output")
            rows = [_parse(record) + row for record, row in zip(records, rows, strict=True)]
        return _write(map(self.output_filter.of, rows))


def _parse(line: bytes) -> list[str]:
    try:
        return next(csv.reader([line.decode()], strict=True), [])
    except (csv.Error, UnicodeDecodeError) as error:
        raise RowFault(f"Failed to parse line: {line[:200].decode(errors='replace')!r} as CSV: {error}") from error


def _write(rows: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
