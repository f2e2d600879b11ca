"""Reads the logs of SageMaker jobs and endpoints from CloudWatch, all hosts in one call, bit by bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from botocore.exceptions import ClientError

from airflow_dlaws.launchers.aws_errors import error_code, service_errors
from airflow_dlaws.launchers.protocol import LogCursor, LogPage, LogTask, SharedLogPage

TRAINING_LOG_GROUP = "/aws/sagemaker/TrainingJobs"
#: Followed by the endpoint's name.
ENDPOINT_LOG_GROUPS = "/aws/sagemaker/Endpoints/"
#: CloudWatch shows events of different hosts out of order by some seconds: look back that far, and skip what was seen.
OVERLAP_MS = 15_000
#: Where a job is quiet, and its log is read with others', its lines are taken to show within this time; CloudWatch
#: needs seconds. So the others' older lines need not be read again and again.
LATEST_MS = 300_000
#: Enough hosts to find the one that failed; each is a call.
HOSTS_IN_TAIL = 8
#: FilterLogEvents takes at most so many streams.
STREAMS_PER_CALL = 100
#: One page holds 1 MB or 10,000 events; a job that prints more between two polls is read on at the next poll.
PAGES_PER_CALL = 10


def read_log(logs: Any, *, group: str, stream_prefix: str, cursor: LogCursor) -> LogPage:
    """Return the lines since `cursor`, each with its host in front.

    :param logs: boto3 CloudWatch Logs client.
    :param stream_prefix: a job's streams are named `<job>/<host>-<number>`.
    """
    asked = {"logStreamNamePrefix": stream_prefix, "startTime": _start_ms(cursor)}
    events, complete, _ = _events(logs, group, asked)
    # CloudWatch has filtered already; moto alone, in which users may test their DAGs, does not filter by prefix.
    return _page([event for event in events if event["logStreamName"].startswith(stream_prefix)], cursor, complete)


def read_logs(logs: Any, *, group: str, tasks: Sequence[LogTask], now_ms: int) -> SharedLogPage:
    """Return the lines of several jobs since their cursors, read together.

    :param tasks: with at most STREAMS_PER_CALL streams in all.
    """
    owners = {stream: task.name for task in tasks for stream in task.streams}
    since = min(_start_ms(task.cursor, task.streams) for task in tasks)
    events, complete, calls = _events(logs, group, {"logStreamNames": list(owners), "startTime": since})
    read_to = now_ms if complete or not events else int(events[-1]["timestamp"])
    found: dict[str, list[dict[str, Any]]] = {task.name: [] for task in tasks}
    for event in events:
        found[owners[event["logStreamName"]]].append(event)
    quiet_until = read_to - LATEST_MS
    pages = {
        task.name: _page(found[task.name], task.cursor, complete, streams=task.streams, quiet_until=quiet_until)
        for task in tasks
    }
    return SharedLogPage(pages=pages, calls=calls)


def recent_streams(logs: Any, *, group: str, token: str | None = None) -> tuple[tuple[str, ...], str | None]:
    """Return the names of the streams written to last, 50 at most, and the token of the next page."""
    asked: dict[str, Any] = {"orderBy": "LastEventTime", "descending": True}
    if token:
        asked["nextToken"] = token
    with service_errors(f"list the log streams of {group}"):
        try:
            answer = logs.describe_log_streams(logGroupName=group, **asked)
        except ClientError as error:
            if error_code(error) != "ResourceNotFoundException":
                raise
            return (), None
    return tuple(str(stream["logStreamName"]) for stream in answer["logStreams"]), answer.get("nextToken")


def read_tail(logs: Any, *, group: str, stream_prefix: str = "", count: int, since_ms: int = 0) -> tuple[str, ...]:
    """Return the last `count` lines of some hosts, in order of time, without reading what came before.

    :param stream_prefix: which hosts; without it, those that printed last.
    :param since_ms: leave out hosts whose log began before.
    """
    order = (
        {"logStreamNamePrefix": stream_prefix} if stream_prefix else {"orderBy": "LastEventTime", "descending": True}
    )
    events: list[dict[str, Any]] = []
    with service_errors(f"read the log streams {group}:{stream_prefix}*"):
        try:
            streams = logs.describe_log_streams(logGroupName=group, **order)["logStreams"]
            recent = [stream["logStreamName"] for stream in streams if stream.get("creationTime", 0) >= since_ms]
            for name in recent[:HOSTS_IN_TAIL]:
                page = logs.get_log_events(logGroupName=group, logStreamName=name, limit=count, startFromHead=False)
                events += [{**event, "logStreamName": name} for event in page["events"]]
        except ClientError as error:
            if error_code(error) != "ResourceNotFoundException":
                raise
    events.sort(key=lambda event: event["timestamp"])
    return tuple(_line(event) for event in events[-count:])


def _first_ms(since_ms: int) -> int:
    return max(0, since_ms - OVERLAP_MS)


def _start_ms(cursor: LogCursor, streams: tuple[str, ...] = ()) -> int:
    """Return where to begin to read these streams; none means all."""
    known = not cursor.streams or (streams and set(streams) <= set(cursor.streams))
    return _first_ms(cursor.since_ms if known else min(cursor.since_ms, cursor.others_since_ms))


def _page(
    events: list[dict[str, Any]],
    cursor: LogCursor,
    complete: bool,
    *,
    streams: tuple[str, ...] = (),
    quiet_until: int = 0,
) -> LogPage:
    """Return the lines of one job among its events, and the cursor behind them.

    :param events: all of the job since the cursor, and perhaps some from before.
    :param streams: which streams were read; none means all.
    :param quiet_until: a time before which no further event will come to light; the cursor is moved up to it.
    """
    fresh = [event for event in events if _is_fresh(event, cursor)]
    newest = max((event["timestamp"] for event in events), default=cursor.since_ms)
    since = max(newest, cursor.since_ms, quiet_until)
    reached = LogCursor(since_ms=since, seen=_last(events, since))
    if streams:
        others = (cursor.others_since_ms, cursor.others_seen) if cursor.streams else (cursor.since_ms, cursor.seen)
        reached = dataclasses.replace(reached, streams=streams, others_since_ms=others[0], others_seen=others[1])
    elif cursor.streams and not complete:  # on the way from where the others were left
        reached = LogCursor(
            since_ms=since,
            seen=tuple(dict.fromkeys((*cursor.seen, *reached.seen))),
            streams=cursor.streams,
            others_since_ms=newest,
            others_seen=_last(events, newest),
        )
    fresh.sort(key=lambda event: event["timestamp"])
    return LogPage(
        lines=tuple(_line(event) for event in fresh),
        cursor=reached,
        streams=tuple(sorted({str(event["logStreamName"]) for event in events})),
        complete=complete,
    )


def _last(events: list[dict[str, Any]], since_ms: int) -> tuple[str, ...]:
    """Return the events that a read from `since_ms` would show again."""
    return tuple(event["eventId"] for event in events if event["timestamp"] >= _first_ms(since_ms))


def _is_fresh(event: Mapping[str, Any], cursor: LogCursor) -> bool:
    """Tell whether an event was not read before."""
    if not cursor.streams or event["logStreamName"] in cursor.streams:
        since, seen = cursor.since_ms, cursor.seen
    else:
        since, seen = cursor.others_since_ms, cursor.others_seen
    return bool(event["timestamp"] >= _first_ms(since) and event["eventId"] not in seen)


def _events(logs: Any, group: str, asked: Mapping[str, Any]) -> tuple[list[dict[str, Any]], bool, int]:
    """Return the events, whether these were all, and the calls made."""
    request = {"logGroupName": group, **asked}
    events: list[dict[str, Any]] = []
    calls = 0
    with service_errors(f"read the log streams {group}:{asked.get('logStreamNamePrefix', '')}*"):
        try:
            while calls < PAGES_PER_CALL:
                calls += 1
                page = logs.filter_log_events(**request)
                events += page["events"]
                if not page.get("nextToken"):
                    return events, True, calls
                request["nextToken"] = page["nextToken"]
        except ClientError as error:
            if error_code(error) != "ResourceNotFoundException":  # until the first job prints, there is no group
                raise
            return events, True, calls
    return events, False, calls


def _line(event: dict[str, Any]) -> str:
    # A transform job has a second stream for each instance, `<job>/<instance>-<number>/data-log`.
    host = str(event["logStreamName"]).removesuffix("/data-log").rpartition("/")[2].rsplit("-", 1)[0]
    return f"[{host}] {str(event['message']).rstrip()}"
