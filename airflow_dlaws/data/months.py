"""Which months a run trains on, and which it is judged on. Pure: what is there and what time it is come in.

A month is text, "2013-02". Objects are sorted into months by a part of their keys, as Hive names partitions:
`flights/month=2013-02/part-0.csv`. Days count too (`dt=2013-02-17`): their first seven characters are the month.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.storage import ObjectVersion, S3Uri

_MONTH = r"(\d{4}-(?:0[1-9]|1[0-2]))"


@dataclass(frozen=True, kw_only=True)
class Months:
    """The months of one run: each model is judged on the month after those it has learned from."""

    training: tuple[str, ...]
    evaluation: str


def last_month_over(at: datetime) -> str:
    """Return the last month that is over at a moment, in the moment's own time zone."""
    return months_before(f"{at:%Y-%m}", 1)[0]


def months_before(month: str, count: int) -> tuple[str, ...]:
    """Return the `count` calendar months before `month`, the oldest first."""
    year, number = map(int, month.split("-"))
    ordinals = (year * 12 + number - 1 - back for back in range(count, 0, -1))
    return tuple(f"{ordinal // 12:04}-{ordinal % 12 + 1:02}" for ordinal in ordinals)


def choose_months(present: Collection[str], *, count: int, over: str, exactly: bool) -> Months:
    """Choose the month that judges, and the `count` months before it, which train.

    :param present: months that there are data of.
    :param over: the last month that may be read: what follows was not known when the run should have run.
    :param exactly: judge on `over` itself, as the run of a data interval must; otherwise on the newest month up to it.
    :raises SpecificationError: a month is missing. A gap is never filled with older months: the model would be another.
    """
    known = sorted(month for month in present if month <= over)
    evaluation = over if exactly or not known else known[-1]
    wanted = (*months_before(evaluation, count), evaluation)
    missing = [month for month in wanted if month not in known]
    if missing:
        raise SpecificationError(
            f"there are no data of {', '.join(missing)}: this run is judged on {evaluation} and trains on the {count} "
            f"months before it; there are {_span(present)}. Clear the task when the data are there, or ask for fewer "
            "months"
        )
    return Months(training=wanted[:-1], evaluation=evaluation)


def by_month(objects: Iterable[ObjectVersion], partition: str) -> Mapping[str, tuple[ObjectVersion, ...]]:
    """Sort objects into the months that their keys name, each in key order.

    Markers (names that start with `_` or `.`, folder markers) and keys without the partition are left out.
    """
    pattern = re.compile(rf"(?:^|/){re.escape(partition)}={_MONTH}(?=[-/])")
    months: dict[str, list[ObjectVersion]] = {}
    for each in objects:
        key = S3Uri.parse(each.uri).key
        name, found = key.rpartition("/")[2], pattern.search(key)
        if found and name and not name.startswith(("_", ".")):
            months.setdefault(found[1], []).append(each)
    return {month: tuple(sorted(rows, key=lambda row: row.uri)) for month, rows in sorted(months.items())}


def _span(present: Collection[str]) -> str:
    months = sorted(present)
    return f"{len(months)} months from {months[0]} to {months[-1]}" if months else "none at all"
