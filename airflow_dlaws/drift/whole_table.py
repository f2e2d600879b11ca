"""Counts a table in the cells of a profile, column by column where that is cheaper; and profiles one."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_dlaws.data.coded import Coded
from airflow_dlaws.data.tables import Table
from airflow_dlaws.drift.build import build_profile, categorical_profile, numeric_profile
from airflow_dlaws.drift.columns import count_columns
from airflow_dlaws.drift.counts import FeatureCounts, TrafficCounts, no_traffic
from airflow_dlaws.drift.embedding import build_embedding
from airflow_dlaws.drift.profile import ReferenceProfile
from airflow_dlaws.errors import SpecificationError

if TYPE_CHECKING:
    from airflow_dlaws.drift.arrays import Column

#: Half of the numeric columns, and of many columns not more than this: enough to know how they go together.
_MOST_COMPONENTS = 32


def count_table(profile: ReferenceProfile, table: Table) -> TrafficCounts:
    """Count a table. A watched column that it has not counts as missing in each row; outputs are counted where given.

    :raises SpecificationError: the table has nothing that the profile watches.
    """
    outputs = {each.name for each in (*profile.outputs, *profile.embeddings)}
    outputs |= {each.source for each in profile.representation if not each.columns}
    wanted = {*(each.name for each in profile.features), *outputs}
    there = [name for name in table.names if name in wanted]
    if not there:
        raise SpecificationError(f"the data have no column of the reference: {sorted(wanted)} are not in {table.names}")
    counts, rows = no_traffic(profile), 0
    for names in _groups(profile, there) if table.by_column else [there]:
        rows = 0
        for piece in table.pieces(names):
            given = {name: column for name, column in piece.items() if name not in outputs}
            counted = count_columns(profile, given, {name: piece[name] for name in names if name in outputs})
            counts, rows = counts + counted, rows + counted.rows
    counts = dataclasses.replace(counts, rows=rows, features=_with_absent(profile, table, counts, rows))
    return counts + dataclasses.replace(no_traffic(profile), faults=dict(table.faults))


def _groups(profile: ReferenceProfile, there: Sequence[str]) -> Iterable[list[str]]:
    """Return the columns that must be read together, and each other one alone."""
    together = {name for each in profile.representation for name in (each.columns or (each.source,))}
    first = [name for name in there if name in together]
    return [*([first] if first else []), *([name] for name in there if name not in together)]


def _with_absent(
    profile: ReferenceProfile, table: Table, counts: TrafficCounts, rows: int
) -> tuple[FeatureCounts, ...]:
    absent = {each.name for each in profile.features} - set(table.names)
    return tuple(dataclasses.replace(each, missing=rows) if each.name in absent else each for each in counts.features)


def profile_table(
    table: Table,
    *,
    created: datetime,
    categorical: Collection[str] = (),
    ignored: Collection[str] = (),
    outputs: Sequence[str] = (),
    components: int | None = None,
) -> ReferenceProfile:
    """Profile a table, one column in memory after another is; all numeric columns are, for the components.

    :param categorical: columns that are categories beside those of texts.
    :param outputs: columns that the model answered and no request has, by the names of profile.py.
    :param components: principal components whose reconstruction error is watched; None takes half of the columns.
    :raises SpecificationError: a named column is not there, or nothing is left to profile.
    """
    import numpy as np

    unknown = sorted({*categorical, *ignored, *outputs} - set(table.names))
    if unknown:
        raise SpecificationError(f"the data have no columns {unknown}; they have {list(table.names)}")
    names = [name for name in table.names if name not in ignored and name not in table.vectors]
    columns = _read(table, names)
    embeddings = tuple(
        build_embedding(name, np.asarray(_joined(list(_pieces(table, name)))))
        for name in sorted(table.vectors - set(ignored))
    )
    texts = {*categorical, *table.texts}
    requests = {name: column for name, column in columns.items() if name not in outputs}
    answered = tuple(
        categorical_profile(name, columns[name]) if name in texts else numeric_profile(name, columns[name])
        for name in outputs
    )
    numeric = sum(name not in texts for name in requests)
    count = min(numeric // 2, _MOST_COMPONENTS) if components is None else components
    if requests:
        profile = build_profile(requests, created=created, categorical=texts, components=count)
    elif embeddings or answered:
        rows = embeddings[0].rows if embeddings else answered[0].rows
        profile = ReferenceProfile(created=created, rows=rows, feature_order=(), features=())
    else:
        raise SpecificationError("there is no column left to profile")
    return dataclasses.replace(profile, outputs=answered, embeddings=embeddings)


def _read(table: Table, names: Sequence[str]) -> dict[str, Any]:
    if not names:
        return {}
    if table.by_column:
        return {name: _joined(list(_pieces(table, name))) for name in names}
    pieces = list(table.pieces(names))
    return {name: _joined([piece[name] for piece in pieces]) for name in names}


def _pieces(table: Table, name: str) -> Iterable[Column]:
    for piece in table.pieces([name]):
        yield piece[name]


def _joined(pieces: Sequence[Column]) -> Any:
    import numpy as np

    if pieces and all(isinstance(piece, np.ndarray) for piece in pieces):
        return np.concatenate(list(pieces))
    if pieces and all(isinstance(piece, Coded) for piece in pieces):
        return _joined_codes([piece for piece in pieces if isinstance(piece, Coded)])
    values: list[object] = []
    for piece in pieces:
        values += piece.texts() if isinstance(piece, Coded) else list(piece)
    return values


def _joined_codes(pieces: Sequence[Coded]) -> Coded:
    """Return the codes of all pieces, whose lists of values may differ, into one list."""
    import numpy as np

    places: dict[object, int] = {}
    codes = []
    for piece in pieces:
        place = [places.setdefault(value, len(places)) for value in piece.values]
        codes.append(np.array([*place, -1])[piece.codes])  # code -1 finds the -1
    return Coded(codes=np.concatenate(codes), values=list(places))
