"""Logs: streams are found by the prefix of their names, as at AWS."""

from __future__ import annotations

import time
from typing import Any

import pytest
from botocore.exceptions import ClientError
from serving import Serving, unique


@pytest.fixture
def logs(serving: Serving) -> Any:
    return serving.aws.client("logs")


@pytest.fixture
def group(logs: Any) -> str:
    """Three streams of two jobs, each with a line that is its name."""
    name = unique("/jobs")
    logs.create_log_group(logGroupName=name)
    for stream in ("one/algo-1", "one/algo-2", "one-more/algo-1"):
        logs.create_log_stream(logGroupName=name, logStreamName=stream)
        event = {"timestamp": round(time.time() * 1000), "message": stream}
        logs.put_log_events(logGroupName=name, logStreamName=stream, logEvents=[event])
    return name


def lines(logs: Any, group: str, **asked: Any) -> list[str]:
    return sorted(event["message"] for event in logs.filter_log_events(logGroupName=group, **asked)["events"])


def test_a_prefix_finds_the_streams_whose_names_begin_with_it(logs: Any, group: str) -> None:
    assert lines(logs, group) == ["one-more/algo-1", "one/algo-1", "one/algo-2"]
    assert lines(logs, group, logStreamNamePrefix="one/") == ["one/algo-1", "one/algo-2"]
    assert lines(logs, group, logStreamNames=["one/algo-2"]) == ["one/algo-2"]
    assert lines(logs, group, logStreamNamePrefix="two/") == []


def test_pages_go_on_behind_the_last_line(logs: Any, group: str) -> None:
    pages = logs.get_paginator("filter_log_events").paginate(
        logGroupName=group, logStreamNamePrefix="one/", PaginationConfig={"PageSize": 1}
    )
    assert sorted(event["message"] for page in pages for event in page["events"]) == ["one/algo-1", "one/algo-2"]


def test_names_and_a_prefix_together_are_refused(logs: Any, group: str) -> None:
    with pytest.raises(ClientError, match="InvalidParameterException"):
        lines(logs, group, logStreamNamePrefix="one/", logStreamNames=["one/algo-1"])


def test_a_group_that_is_not_there_is_refused(logs: Any) -> None:
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        lines(logs, "/nowhere", logStreamNamePrefix="one/")
