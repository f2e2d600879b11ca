"""The List operations have one way to filter, sort and page; it stands here once."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from airflow_dlaws.local.errors import validation_error

#: What AWS answers where MaxResults is not given.
DEFAULT_PAGE = 10

Summary = Mapping[str, Any]

_FILTERS: dict[str, Callable[[Summary, str, Any], bool]] = {
    "NameContains": lambda summary, name, wanted: str(wanted).lower() in str(summary[name]).lower(),
    "CreationTimeAfter": lambda summary, name, wanted: _time(summary, "CreationTime") > wanted,
    "CreationTimeBefore": lambda summary, name, wanted: _time(summary, "CreationTime") < wanted,
    "LastModifiedTimeAfter": lambda summary, name, wanted: _time(summary, "LastModifiedTime") > wanted,
    "LastModifiedTimeBefore": lambda summary, name, wanted: _time(summary, "LastModifiedTime") < wanted,
}


def page(
    summaries: Iterable[Summary],
    parameters: Mapping[str, Any],
    *,
    into: str,
    name: str,
    exact: Mapping[str, str] | None = None,
    newest_first: bool = True,
) -> dict[str, Any]:
    """Answer a List request with one page of summaries under the key `into`.

    :param name: the member of a summary that NameContains and SortBy=Name look at.
    :param exact: request members that must equal a member of the summary, as {"StatusEquals": "EndpointStatus"}.
    :param newest_first: the order where the request names none; for SageMaker's own default differs by operation.
    :raises ServiceError: the NextToken is not one of ours.
    """
    found = [summary for summary in summaries if _wanted(summary, parameters, name, exact or {})]
    found.sort(key=lambda summary: _sort_key(summary, parameters.get("SortBy", "CreationTime"), name))
    if parameters.get("SortOrder", "Descending" if newest_first else "Ascending") == "Descending":
        found.reverse()
    start = _offset(parameters.get("NextToken"))
    end = start + parameters.get("MaxResults", DEFAULT_PAGE)
    more = {"NextToken": base64.b64encode(f"offset:{end}".encode()).decode()} if end < len(found) else {}
    return {into: found[start:end], **more}


def _wanted(summary: Summary, parameters: Mapping[str, Any], name: str, exact: Mapping[str, str]) -> bool:
    return all(
        keep(summary, name, parameters[member]) for member, keep in _FILTERS.items() if member in parameters
    ) and all(summary.get(own) == parameters[asked] for asked, own in exact.items() if asked in parameters)


def _sort_key(summary: Summary, sort_by: str, name: str) -> Any:
    if sort_by == "Name":
        return summary[name]
    if sort_by == "Status":
        return next(value for member, value in summary.items() if member.endswith("Status"))
    if sort_by == "FinalObjectiveMetricValue":
        return summary["FinalHyperParameterTuningJobObjectiveMetric"]["Value"]
    return _time(summary, sort_by)


def _time(summary: Summary, member: str) -> datetime:
    value: datetime = summary[member]
    return value


def _offset(token: str | None) -> int:
    if not token:
        return 0
    try:
        return int(base64.b64decode(token).decode().removeprefix("offset:"))
    except (binascii.Error, UnicodeDecodeError, ValueError) as error:
        raise validation_error("Invalid NextToken.") from error
