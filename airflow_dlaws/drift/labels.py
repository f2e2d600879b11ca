"""True labels that came later, joined with the model's answers by the id of a row: how many answers were right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import IO

from airflow_dlaws.data.coded import values_of
from airflow_dlaws.data.tables import TableFormat, read_table
from airflow_dlaws.drift.values import category_of
from airflow_dlaws.errors import OutcomeUnacceptable


@dataclass(frozen=True, kw_only=True)
class LabelPlan:
    """Where in its table the true label stands.

    :param id_column, label_column: of the labels' table.
    :param row_id_column: of the current data. Captured requests are known by their inference id; the rows of a request
        with several by "<inference id>/<number from 0>".
    """

    format: str = TableFormat.CSV
    id_column: str = "id"
    label_column: str = "label"
    row_id_column: str = "id"


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """How the answers compare with their labels."""

    #: Answers whose label is known by now, and how many of them were right.
    rows: int = 0
    right: int = 0
    #: Answers without a label yet, and labels that belong to no answer.
    without_label: int = 0
    without_answer: int = 0


class Labels:
    """The labels by id. Kept in memory: about 150 bytes each.

    :raises OutcomeUnacceptable: a file lacks a column, or cannot be read.
    """

    def __init__(self, plan: LabelPlan, files: Iterable[tuple[str, IO[bytes]]]) -> None:
        self._by_id: dict[str, str] = {}
        self._used = self._right = self._without = 0
        for where, file in files:
            for chunk in read_table(file, where, plan.format).pieces((plan.id_column, plan.label_column)):
                lacking = sorted({plan.id_column, plan.label_column} - set(chunk))
                if lacking:
                    raise OutcomeUnacceptable(f"{where} has no column {lacking}: labels need an id and a label")
                self._take(values_of(chunk[plan.id_column]), values_of(chunk[plan.label_column]))

    def _take(self, ids: Sequence[object], labels: Sequence[object]) -> None:
        for row_id, label in zip(map(category_of, ids), map(category_of, labels), strict=True):
            if row_id is not None and label is not None:  # a label that is empty has not come yet
                self._by_id[row_id] = label

    def compare(self, ids: Sequence[object], answers: Sequence[object]) -> None:
        """Compare answers (predicted labels) with their labels; each label is used once."""
        for row_id, answer in zip(map(category_of, ids), map(category_of, answers), strict=True):
            label = self._by_id.pop(row_id, None) if row_id is not None and answer is not None else None
            if label is None:
                self._without += 1
            else:
                self._used += 1
                self._right += label == answer

    @property
    def result(self) -> Labelled:
        """What has come of it so far."""
        return Labelled(
            rows=self._used, right=self._right, without_label=self._without, without_answer=len(self._by_id)
        )
