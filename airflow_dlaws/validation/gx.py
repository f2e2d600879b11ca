"""The only door to Great Expectations. Imported inside a running task, never while a DAG is parsed.

Uses an ephemeral context and `Batch.validate`: `ValidationDefinition.run` stores its result as JSON and raises on numpy
booleans (Great Expectations 1.24.1 with quantile expectations), and the result of the whole suite is lost.
"""

from __future__ import annotations

import difflib
import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.validation.report import Finding
from airflow_dlaws.validation.suite import Expectation

if TYPE_CHECKING:
    import pandas as pd

#: Ties a result to its expectation: Great Expectations returns results in an order of its own.
_INDEX = "dlaws_index"
#: Enough to see a pattern in a report, little enough for a log line.
_SAMPLE = 20
_RESULT_FORMAT = {"result_format": "SUMMARY", "partial_unexpected_count": _SAMPLE}


class ExpectationChecker:
    """A suite that Great Expectations has accepted, ready to be run on a table."""

    def __init__(self, suite: Sequence[Expectation]) -> None:
        """Build every expectation.

        :raises SpecificationError: one does not exist, or does not take its arguments, or the library is missing.
        """
        _quieten()
        try:
            import great_expectations
        except ImportError as error:
            raise SpecificationError(
                f"validation needs Great Expectations on the worker ({error}): pip install 'airflow-dlaws[validation]'"
            ) from error
        # This module sets a level of its own while it is imported.
        logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.NOTSET)
        self._gx = great_expectations
        self.version = str(great_expectations.__version__)
        self.suite = tuple(suite)
        self._built = [_build(index, each) for index, each in enumerate(self.suite)]

    def check(self, frame: pd.DataFrame) -> tuple[Finding, ...]:
        """Run the suite on a table; return one finding an expectation, in the suite's order."""
        from great_expectations.data_context.types.base import ProgressBarsConfig

        context = self._gx.get_context(mode="ephemeral")
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        asset = context.data_sources.add_pandas("pandas").add_dataframe_asset("data")
        definition = asset.add_batch_definition_whole_dataframe("all")
        suite = self._gx.ExpectationSuite(name="suite", expectations=self._built)
        batch = definition.get_batch(batch_parameters={"dataframe": frame})
        answer = batch.validate(suite, result_format=_RESULT_FORMAT)
        by_index = {each.expectation_config.meta[_INDEX]: each for each in answer.results}
        return tuple(_finding(each, by_index[index]) for index, each in enumerate(self.suite))


def _quieten() -> None:
    """Switch off what Great Expectations would print (214 lines at INFO, the level Airflow sets) and send home."""
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    os.environ["GX_ANALYTICS_ENABLED"] = "False"


def _build(index: int, expectation: Expectation) -> Any:
    from great_expectations.exceptions import ExpectationNotFoundError
    from great_expectations.expectations.registry import (
        get_expectation_impl,
        list_registered_expectation_implementations,
    )

    try:
        implementation = get_expectation_impl(expectation.type)
    except ExpectationNotFoundError as error:
        near = difflib.get_close_matches(expectation.type, list_registered_expectation_implementations())
        hint = f"did you mean {near}?" if near else "see https://greatexpectations.io/expectations"
        raise SpecificationError(
            f"expectation {index + 1}: Great Expectations has no {expectation.type!r}; {hint}"
        ) from error
    try:
        return implementation(**expectation.kwargs, severity=str(expectation.severity), meta={_INDEX: index})
    except (TypeError, ValueError) as error:
        raise SpecificationError(
            f"expectation {index + 1}: {expectation.type} does not take {dict(expectation.kwargs)!r}: "
            f"{_complaints(error)}"
        ) from error


def _complaints(error: Exception) -> str:
    """Return a pydantic error in one line: "mostl: extra fields not permitted"."""
    details = getattr(error, "errors", None)
    if not callable(details):
        return str(error)
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in details())


def _finding(expectation: Expectation, answer: Any) -> Finding:
    result = _plain(dict(answer.result or {}))
    sample = result.get("partial_unexpected_list") or []
    return Finding(
        expectation=expectation,
        met=bool(answer.success),
        error=_exception(answer.exception_info),
        observed=result.get("observed_value"),
        rows=result.get("element_count"),
        unexpected=result.get("unexpected_count"),
        unexpected_percent=result.get("unexpected_percent"),
        unexpected_sample=tuple(sample[:_SAMPLE]),
    )


def _exception(info: Any) -> str:
    """Return the message of what was raised: the information stands alone, or once for each metric."""
    if not isinstance(info, Mapping):
        return ""
    entries = [info] if "raised_exception" in info else [each for each in info.values() if isinstance(each, Mapping)]
    messages = [str(each.get("exception_message")) for each in entries if each.get("raised_exception")]
    return "; ".join(dict.fromkeys(messages)).removeprefix("Error: ")


def _plain(value: Any) -> Any:
    """Return numpy, pandas and datetime values as JSON has them; what is not a number is null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
