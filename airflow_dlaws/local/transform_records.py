"""From an input object to the bodies of requests: split, batched, and no larger than asked."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from airflow_dlaws.local.data_processing import RowFault
from airflow_dlaws.local.transform_request import TransformPlan

_MEGABYTE = 1024 * 1024


@dataclass(frozen=True)
class Batch:
    """The records of one request, without line ends; the whole object where it is not split."""

    records: tuple[bytes, ...]

    def body(self, plan: TransformPlan) -> bytes:
        """Return the body of the request."""
        if plan.processing:
            return plan.processing.before(self.records)
        if not plan.split_lines or plan.single_record:
            return self.records[0]
        return b"".join(record + b"\n" for record in self.records)

    def stored(self, plan: TransformPlan, answer: bytes) -> bytes:
        """Return what of the answer goes into the output object."""
        if plan.processing:
            return plan.processing.after(self.records, answer)
        # "To add a newline character at the end of every transformed record"; that none is added twice is assumed.
        return answer + b"\n" if plan.assemble_lines and not answer.endswith(b"\n") else answer


def batches(path: Path, plan: TransformPlan) -> Iterator[Batch]:
    """Yield the requests that one object makes.

    :raises RowFault: a record is larger than a request may be.
    """
    limit = plan.payload_mb * _MEGABYTE
    with _opened(path, plan) as file:
        if not plan.split_lines:
            yield Batch((_fitting(file.read(limit + 1), limit),))
            return
        gathered: list[bytes] = []
        size = 0
        for line in file:
            record = _fitting(line.removesuffix(b"\n"), limit)
            if gathered and (plan.single_record or size + len(record) + 1 > limit):
                yield Batch(tuple(gathered))
                gathered, size = [], 0
            gathered.append(record)
            size += len(record) + 1
        if gathered:
            yield Batch(tuple(gathered))


def _opened(path: Path, plan: TransformPlan) -> IO[bytes]:
    return gzip.open(path) if plan.gzip else path.open("rb")  # type: ignore[return-value]


def _fitting(record: bytes, limit: int) -> bytes:
    if len(record) > limit:
        raise RowFault("Too much data for max payload size")
    return record
