"""What a single value of a feature means: a number, a category, or missing. Both sides of a comparison read it so."""

from __future__ import annotations

import math

#: Spellings of "no value" that pandas, numpy, R and SQL write into CSV; compared in lower case.
MISSING_WORDS = frozenset({"", "nan", "na", "n/a", "null", "none", "inf", "-inf", "+inf", "infinity", "-infinity"})


def number_of(value: object) -> float | None:
    """Return the finite number that `value` (a number or its text) stands for, or None where it is missing.

    NaN and the infinities are missing: no model can use them as numbers.

    :raises ValueError: it is neither a number nor missing.
    """
    if value is None:
        return None
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, (int, float)):
        return _finite(value)
    text = str(value).strip()
    if text.lower() in MISSING_WORDS:
        return None
    if "_" in text:  # float() takes Python's digit separators, which no data format has
        raise ValueError(f"{text!r} is not a number")
    return _finite(float(text))


def category_of(value: object) -> str | None:
    """Return the category that `value` names, as text without surrounding blanks, or None where it is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():  # JSON and pandas make 5.0 of a category 5
        value = int(value)
    text = str(value).strip()
    return None if text.lower() in MISSING_WORDS else text


def _finite(number: float) -> float | None:
    try:
        as_float = float(number)
    except OverflowError:  # an integer beyond the range of a double
        return None
    return as_float if math.isfinite(as_float) else None
