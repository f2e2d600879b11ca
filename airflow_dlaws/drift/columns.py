"""Counts whole columns in the cells of the reference profile, with numpy: what counts.py does value by value.

The same values give the same counts, however they are cut into pieces: `count_columns` of two pieces add up to that of
both together. Memory beyond the columns given is one sorted copy of one column, and a few thousand rows of the table
that principal components or an embedding need.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_dlaws.drift.arrays import distinct, read_numbers, vectors
from airflow_dlaws.drift.body import Fault
from airflow_dlaws.drift.build import reconstruction_error
from airflow_dlaws.drift.cells import CategoricalProfile, FeatureProfile, NumericProfile
from airflow_dlaws.drift.counts import (
    EmbeddingCounts,
    FeatureCounts,
    TrafficCounts,
    count_categories,
    count_values,
    rounded_range,
)
from airflow_dlaws.drift.embedding import count_images
from airflow_dlaws.drift.profile import ReferenceProfile
from airflow_dlaws.drift.representation import COLUMNS, EmbeddingProfile, PcaProfile
from airflow_dlaws.errors import SpecificationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from airflow_dlaws.drift.arrays import Column

#: Rows that are standardised and projected at once: a few megabytes for a hundred columns.
_ROWS_AT_ONCE = 4096


def count_columns(
    profile: ReferenceProfile, columns: Mapping[str, Column], outputs: Mapping[str, Any] | None = None
) -> TrafficCounts:
    """Count the columns of n rows in the cells of `profile`.

    :param columns: request columns by name, n values each. What the profile does not watch is passed over, and of what
        is not given nothing is counted: a table may be counted column by column, and the counts added up.
    :param outputs: what the model answered, by the names of profile.py: n values each, or n x d for a vector output.
    :raises SpecificationError: the columns differ in length.
    """
    given = {**columns, **(outputs or {})}
    rows = _rows(given)
    counted = [_count(each, given.get(each.name)) for each in (*profile.features, *profile.outputs)]
    counted += [_count_representation(each, columns, outputs or {}) for each in profile.representation]
    unreadable = sum(not_numbers for _, not_numbers in counted)
    return TrafficCounts(
        rows=rows,
        features=tuple(counts for counts, _ in counted),
        embeddings=tuple(_count_embedding(each, (outputs or {}).get(each.name)) for each in profile.embeddings),
        faults={Fault.NOT_A_NUMBER.value: unreadable} if unreadable else {},
    )


def _rows(columns: Mapping[str, Column]) -> int:
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise SpecificationError(f"columns need the same number of rows; they have {lengths}")
    return next(iter(lengths.values()), 0)


def _count(profile: FeatureProfile, column: Column | None) -> tuple[FeatureCounts, int]:
    if column is None:
        return count_values(profile, ())
    if isinstance(profile, CategoricalProfile):
        return count_categories(profile, distinct(column)), 0
    numbers, not_numbers = read_numbers(column)
    return count_numbers(profile, numbers), not_numbers


def count_numbers(profile: NumericProfile, numbers: NDArray[Any]) -> FeatureCounts:
    """Count numbers of any numeric type; NaN and the infinities are missing.

    Sorting and looking up the few edges among the many values is several times faster than looking up each value.
    """
    import numpy as np

    ordered = np.sort(numbers)  # NaN comes last
    low, high = rounded_range(profile.low, profile.high)
    # float64, so that a float32 value is compared with the edge itself and not with the edge's float32 neighbour.
    bounds = np.array([-np.inf, low, *profile.edges, np.inf], dtype=np.float64)
    upto = ordered.searchsorted(bounds, side="left")
    first, past = ordered.searchsorted(np.array([-np.inf, high]), side="right").tolist()
    end = int(upto[-1])
    start = max(first, min(end, int(upto[1])))
    stop = max(start, min(end, past))
    return FeatureCounts(
        name=profile.name,
        cells=tuple(np.diff(upto[1:].clip(start, stop)).tolist()),
        missing=len(ordered) - end + first,
        below=start - first,
        above=end - stop,
    )


def _count_representation(
    profile: PcaProfile, columns: Mapping[str, Column], outputs: Mapping[str, Any]
) -> tuple[FeatureCounts, int]:
    """Count the reconstruction errors; values that are no numbers are already counted with their columns."""
    import numpy as np

    if profile.source == COLUMNS:
        if not set(profile.columns) <= set(columns):
            return count_values(profile.error, ())
        table: Any = [read_numbers(columns[name])[0] for name in profile.columns]
    elif profile.source in outputs:
        table = vectors(outputs[profile.source], len(profile.mean)).T
    else:
        return count_values(profile.error, ())
    axes, errors = profile.components.array(), []
    for start in range(0, len(table[0]), _ROWS_AT_ONCE):
        piece = np.column_stack([column[start : start + _ROWS_AT_ONCE] for column in table]).astype(np.float64)
        piece[~np.isfinite(piece)] = np.nan
        errors.append(reconstruction_error(piece, profile.mean, profile.scale, axes))
    return count_numbers(profile.error, np.concatenate([*errors, np.empty(0)])), 0


def _count_embedding(profile: EmbeddingProfile, output: Any) -> EmbeddingCounts:
    if output is None:
        return EmbeddingCounts(name=profile.name, sums=(0,) * (2 * profile.pairs))
    return count_images(profile, vectors(output, profile.dimension))
