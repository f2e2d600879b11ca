"""A small table with a model's answers, healthy or shifted, in every format that a check reads; and its reference."""

from __future__ import annotations

import csv
import gzip
import io
import json
from datetime import UTC, datetime
from typing import Any

import numpy as np

from airflow_dlaws.drift.build import build_profile
from airflow_dlaws.drift.profile import ReferenceProfile

CLASSES = ("on time", "late")
FEATURES = ("delay", "temp", "carrier")


def rows(count: int, seed: int, *, shift: float = 0.0) -> dict[str, list[Any]]:
    """Return columns: an id, the features, the probability of being late, and whether it came true."""
    generator = np.random.default_rng(seed)
    delay = generator.normal(10 + shift, 5, count)
    late = 1 / (1 + np.exp(-(delay - 12) / 2))
    return {
        "id": [f"row-{seed}-{number}" for number in range(count)],
        "delay": delay.round(3).tolist(),
        "temp": generator.normal(60, 10, count).round(2).tolist(),
        "carrier": generator.choice(list("AAABBC"), count).tolist(),
        "prediction": late.round(6).tolist(),
        "label": np.where(generator.random(count) < late, "late", "on time").tolist(),
    }


def reference(count: int = 4000) -> ReferenceProfile:
    """Return the profile of healthy rows, calibrated, with two principal components."""
    table = rows(count, seed=1)
    return build_profile(
        {name: table[name] for name in FEATURES},
        categorical={"carrier"},
        created=datetime(2013, 4, 1, tzinfo=UTC),
        answers=np.array(table["prediction"]),
        classes=CLASSES,
        labels=table["label"],
        components=1,
    )


def as_csv(table: dict[str, list[Any]], *, header: bool = True) -> bytes:
    """Return the table as CSV."""
    text = io.StringIO()
    writer = csv.writer(text)
    if header:
        writer.writerow(table)
    writer.writerows(zip(*table.values(), strict=True))
    return text.getvalue().encode()


def as_gzip(table: dict[str, list[Any]]) -> bytes:
    """Return the table as CSV, packed."""
    return gzip.compress(as_csv(table))


def as_json_lines(table: dict[str, list[Any]]) -> bytes:
    """Return the table as JSON lines."""
    return b"".join(
        json.dumps(dict(zip(table, row, strict=True))).encode() + b"\n" for row in zip(*table.values(), strict=True)
    )


def as_parquet(table: dict[str, list[Any]]) -> bytes:
    """Return the table as Parquet, in several row groups."""
    import pyarrow
    import pyarrow.parquet

    body = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(table), body, row_group_size=500)
    return body.getvalue()
