"""Reads the log of a SageMaker job or endpoint from CloudWatch, all hosts in one call, bit by bit."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError

from airflow_dlaws.launchers.aws_errors import error_code, service_errors
from airflow_dlaws.launchers.protocol import LogCursor, LogPage

TRAINING_LOG_GROUP = "/aws/sagemaker/TrainingJobs"
#: Followed by the endpoint's name.
ENDPOINT_LOG_GROUPS = "/aws/sagemaker/Endpoints/"
#: CloudWatch shows events of different hosts out of order by some seconds: look back that far, and skip what was seen.
OVERLAP_MS = 15_000
#: Enough hosts to find the one that failed; each is a call.
HOSTS_IN_TAIL = 8
#: One page holds 1 MB or 10,000 events; a job that prints more between two polls is read on at the next poll.
PAGES_PER_CALL = 10


def read_log(logs: Any, *, group: str, stream_prefix: str, cursor: LogCursor) -> LogPage:
    """Return the lines since `cursor`, each with its host in front.

    :param logs: boto3 CloudWatch Logs client.
    :param stream_prefix: a job's streams are named `<job>/<host>-<number>`.
    """
    since = max(0, cursor.since_ms - OVERLAP_MS)
    events = _events(logs, group, stream_prefix, since)
    fresh = [event for event in events if event["eventId"] not in set(cursor.seen)]
    newest = max((event["timestamp"] for event in events), default=cursor.since_ms)
    recent = tuple(event["eventId"] for event in events if event["timestamp"] >= newest - OVERLAP_MS)
    fresh.sort(key=lambda event: event["timestamp"])
    return LogPage(lines=tuple(_line(event) for event in fresh), cursor=LogCursor(since_ms=newest, seen=recent))


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


def _events(logs: Any, group: str, stream_prefix: str, since: int) -> list[dict[str, Any]]:
    asked = {"logGroupName": group, "logStreamNamePrefix": stream_prefix, "startTime": since}
    events: list[dict[str, Any]] = []
    with service_errors(f"read the log streams {group}:{stream_prefix}*"):
        try:
            for _ in range(PAGES_PER_CALL):
                page = logs.filter_log_events(**asked)
                # CloudWatch has filtered already; moto does not filter by prefix.
                events += [event for event in page["events"] if event["logStreamName"].startswith(stream_prefix)]
                if not page.get("nextToken"):
                    break
                asked["nextToken"] = page["nextToken"]
        except ClientError as error:
            if error_code(error) != "ResourceNotFoundException":  # until the first job prints, there is no group
                raise
    return events


def _line(event: dict[str, Any]) -> str:
    # A transform job has a second stream for each instance, `<job>/<instance>-<number>/data-log`.
    host = str(event["logStreamName"]).removesuffix("/data-log").rpartition("/")[2].rsplit("-", 1)[0]
    return f"[{host}] {str(event['message']).rstrip()}"
