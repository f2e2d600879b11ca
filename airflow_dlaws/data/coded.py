"""A column of categories as codes into a short list of values: how Parquet and Arrow keep texts, and the fast way to
count them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Coded:
    """Row i holds `values[codes[i]]`, or nothing where the code is negative."""

    codes: NDArray[np.signedinteger]
    values: Sequence[object]

    def __len__(self) -> int:
        return len(self.codes)

    def texts(self) -> list[object]:
        """Return the value of each row; None where there is none."""
        return [None if code < 0 else self.values[code] for code in self.codes.tolist()]


def values_of(column: NDArray[Any] | Sequence[object] | Coded) -> Sequence[Any]:
    """Return something that can be gone through value by value."""
    return column.texts() if isinstance(column, Coded) else column  # type: ignore[return-value]
