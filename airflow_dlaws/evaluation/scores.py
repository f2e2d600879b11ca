"""The rows an evaluation job scored: label, challenger's probability and, where there is one, the champion's.

The file is `scores.csv` in the job's output.tar.gz, with the header `row,label,challenger[,champion]`. Both models
stand in the same line, so they have scored the same rows by construction.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass

from airflow_dlaws.errors import JobFailed

FILE_NAME = "scores.csv"
_HEADER = ["row", "label", "challenger"]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Labels (0 or 1) and the probability of label 1 that each model gave, in one order."""

    labels: tuple[int, ...]
    challenger: tuple[float, ...]
    champion: tuple[float, ...] | None = None

    @property
    def rows(self) -> int:
        """How many rows were scored."""
        return len(self.labels)

    @property
    def positives(self) -> int:
        """How many rows have label 1."""
        return sum(self.labels)


def parse_scores(text: str) -> Scores:
    """Read `scores.csv`.

    :raises JobFailed: the header or a line is not as agreed, a row comes twice, or there are no rows.
    """
    reader = csv.DictReader(io.StringIO(text), strict=True)
    header = list(reader.fieldnames or [])
    if header not in (_HEADER, [*_HEADER, "champion"]):
        raise JobFailed(f"{FILE_NAME} has the header {header}: it must be {_HEADER}, then 'champion' if there is one")
    models = header[2:]
    labels: list[int] = []
    columns: dict[str, list[float]] = {model: [] for model in models}
    seen: set[str] = set()
    for number, line in enumerate(reader, start=2):
        labels.append(_label(line, number))
        if line["row"] in seen:
            raise JobFailed(f"{FILE_NAME} line {number}: row {line['row']!r} is scored twice")
        seen.add(line["row"])
        for model in models:
            columns[model].append(_probability(line, model, number))
    if not labels:
        raise JobFailed(f"{FILE_NAME} has a header and no rows: the evaluation channel held no data")
    champion = tuple(columns["champion"]) if "champion" in columns else None
    return Scores(labels=tuple(labels), challenger=tuple(columns["challenger"]), champion=champion)


def _label(line: Mapping[str, str | None], number: int) -> int:
    text = line["label"]
    if text not in ("0", "1"):
        raise JobFailed(f"{FILE_NAME} line {number}: label {text!r} is neither 0 nor 1")
    return int(text)


def _probability(line: Mapping[str, str | None], model: str, number: int) -> float:
    text = line[model]
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= 1.0:
        raise JobFailed(f"{FILE_NAME} line {number}: {model} gave {text!r}, which is no probability from 0 to 1")
    return value
