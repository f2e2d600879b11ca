"""Counting the files of a check: tables, and captured requests of an interval. One file at a time, a chunk at once."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import IO, Any

from airflow_dlaws.data.coded import values_of
from airflow_dlaws.data.tables import read_table
from airflow_dlaws.drift.answers import output_columns
from airflow_dlaws.drift.body import Unreadable
from airflow_dlaws.drift.capture import CaptureReader, CaptureRecord, count_records
from airflow_dlaws.drift.columns import count_columns
from airflow_dlaws.drift.counts import TrafficCounts, no_traffic
from airflow_dlaws.drift.labels import Labels
from airflow_dlaws.drift.lines import capped_lines
from airflow_dlaws.drift.outputs import answer_columns
from airflow_dlaws.drift.profile import CONFIDENCE, PREDICTED_LABEL, PREDICTION, ReferenceProfile, probability_name
from airflow_dlaws.errors import OutcomeUnacceptable, SpecificationError

#: Files of data capture, in place of a table.
CAPTURE = "capture"

_PIECE = 1024 * 1024
_HOUR = re.compile(r"(?:^|/)(\d{4}/\d{2}/\d{2}/\d{2})/[^/]*$")

Chunk = Mapping[str, Any]

#: A file's name and the open file.
File = tuple[str, IO[bytes]]


class TableFiles:
    """Counts tables, and remembers which columns they lack.

    :param written: the files' format: "csv", "jsonlines" or "parquet".
    :param names: the columns of CSV without a header line.
    :param columns: {the reference's name: the data's}, where the two differ.
    :param row_ids: the column that labels are joined by.
    """

    def __init__(
        self,
        profile: ReferenceProfile,
        labels: Labels | None,
        written: str,
        *,
        names: Sequence[str] | None,
        columns: Mapping[str, str],
        row_ids: str | None,
    ) -> None:
        self._profile, self._labels, self._row_ids = profile, labels, row_ids
        self._written, self._names = written, names
        outputs = [PREDICTION, *(probability_name(each) for each in profile.classes or ()), PREDICTED_LABEL, CONFIDENCE]
        outputs += [each.name for each in profile.outputs if each.name not in outputs]
        known = {*profile.feature_order, *outputs, *(each.name for each in profile.embeddings)}
        if unknown := sorted(set(columns) - known):
            raise SpecificationError(f"columns: the reference knows no {unknown}; it has {sorted(known)}")
        self._features = {name: columns.get(name, name) for name in profile.feature_order}
        self._outputs = {name: columns.get(name, name) for name in outputs}
        self._embeddings = {each.name: columns.get(each.name, each.name) for each in profile.embeddings}
        self._lacking: dict[str, str] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """What is odd about the columns."""
        return tuple(
            f"Column {name!r} is not in {where}: its values count as missing there."
            for name, where in sorted(self._lacking.items())
        )

    def count(self, where: str, file: IO[bytes]) -> TrafficCounts:
        """Count one file.

        :raises OutcomeUnacceptable: it cannot be read at all, or has nothing of the reference.
        """
        wanted = [*self._features.values(), *self._outputs.values(), *self._embeddings.values()]
        wanted += [self._row_ids] if self._row_ids and self._labels else []
        counts = no_traffic(self._profile)
        table = read_table(file, where, self._written, names=self._names)
        for chunk in table.pieces(list(dict.fromkeys(wanted))):
            self._check_columns(where, chunk)
            counts += self._count_chunk(where, chunk)
        return counts + dataclasses.replace(no_traffic(self._profile), faults=dict(table.faults))

    def _check_columns(self, where: str, chunk: Chunk) -> None:
        if not any(column in chunk for column in (*self._features.values(), *self._outputs.values())):
            raise OutcomeUnacceptable(
                f"{where} has none of the reference's columns {list(self._features.values())[:20]}: is it the right "
                "data, does its first line name the columns (header=), do they have other names (columns=)?"
            )
        for column in self._features.values():
            if column not in chunk:
                self._lacking.setdefault(column, where)

    def _count_chunk(self, where: str, chunk: Chunk) -> TrafficCounts:
        rows = max(len(values) for values in chunk.values())
        features = {name: chunk.get(column, [None] * rows) for name, column in self._features.items()}
        outputs = {name: chunk[column] for name, column in self._outputs.items() if column in chunk}
        outputs = {**self._derived(outputs), **outputs}
        outputs |= {name: chunk[column] for name, column in self._embeddings.items() if column in chunk}
        if self._labels:
            self._compare(self._labels, where, chunk, outputs)
        return count_columns(self._profile, features, outputs)

    def _derived(self, outputs: Chunk) -> Chunk:
        """Return label and confidence, which follow from probabilities where the data have only those."""
        classes = self._profile.classes
        if classes is None:
            return {}
        names = [probability_name(each) for each in classes]
        if all(name in outputs for name in names):
            answers = _numbers([outputs[name] for name in names])
        elif PREDICTION in outputs and len(classes) == 2:
            answers = _numbers([outputs[PREDICTION]])
        else:
            return {}
        return answer_columns(answers, classes)

    def _compare(self, labels: Labels, where: str, chunk: Chunk, outputs: Chunk) -> None:
        if not self._row_ids or self._row_ids not in chunk or PREDICTED_LABEL not in outputs:
            raise OutcomeUnacceptable(
                f"{where} has no column {self._row_ids!r}, or nothing that says what the model answered "
                f"({PREDICTED_LABEL}, {PREDICTION}, or probabilities): labels cannot be compared. Leave labels= "
                "out, or name the columns (columns=, row_id_column)"
            )
        labels.compare(values_of(chunk[self._row_ids]), values_of(outputs[PREDICTED_LABEL]))


class CapturedFiles:
    """Counts the captured requests that were answered in an interval, each once."""

    def __init__(
        self, profile: ReferenceProfile, labels: Labels | None, *, start: datetime | None, end: datetime | None
    ) -> None:
        self._profile, self._labels, self._start, self._end = profile, labels, start, end
        self._reader = CaptureReader(profile=profile)
        self.notes: tuple[str, ...] = ()

    def count(self, where: str, file: IO[bytes]) -> TrafficCounts:
        """Count one file."""
        found = _HOUR.search(where)
        counts = no_traffic(self._profile)
        lines = capped_lines(iter(lambda: file.read(_PIECE), b""))
        for records, faults in self._reader.batches(lines, found.group(1) if found else ""):
            meant = [record for record in records if self._is_meant(record)]
            counts += count_records(self._profile, meant, faults)
            if self._labels:
                self._compare(self._labels, meant)
        return counts

    def _is_meant(self, record: CaptureRecord) -> bool:
        """Tell whether a request belongs to the interval; one without a time is taken at its file's word."""
        if record.time is None:
            return True
        return (self._start is None or self._start <= record.time) and (self._end is None or record.time < self._end)

    def _compare(self, labels: Labels, records: Sequence[CaptureRecord]) -> None:
        for record in records:
            try:
                answers = output_columns(self._profile, record.answers or ()).get(PREDICTED_LABEL, [])
            except Unreadable:  # counted as a fault already
                continue
            labels.compare(list(_row_ids(record.inference_id, len(answers))), answers)


def _row_ids(inference_id: str, rows: int) -> Iterator[str]:
    yield from [inference_id] if rows == 1 else (f"{inference_id}/{row}" for row in range(rows))


def _numbers(columns: Sequence[Sequence[object]]) -> object:
    """Return columns as an array of rows; what is no number is NaN."""
    import numpy as np

    from airflow_dlaws.drift.values import number_of

    def number(value: object) -> float:
        try:
            found = number_of(value)
        except ValueError:
            return float("nan")
        return float("nan") if found is None else found

    table = [
        column
        if isinstance(column, np.ndarray) and column.dtype.kind in "fiu"
        else np.array([*map(number, values_of(column))])
        for column in columns
    ]
    return np.column_stack(table)
