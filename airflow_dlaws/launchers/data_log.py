"""The data log of a transform job: which objects failed, and what the model's container said about them.

    2023-03-29T13:16:50.587:[sagemaker logs]: MaxConcurrentTransforms=1, MaxPayloadInMB=6, BatchStrategy=MULTI_RECORD
    2023-03-29T13:16:50.813:[sagemaker logs]: bucket/in/part-3.csv: ClientError: 400
    2023-03-29T13:16:50.813:[sagemaker logs]: bucket/in/part-3.csv: Message:
    2023-03-29T13:16:50.813:[sagemaker logs]: bucket/in/part-3.csv: row 12: dep_delay is 'abc', which is no number

The form is known from logs that users have published (aws/amazon-sagemaker-examples issue 3948 among others).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from airflow_dlaws.jobs.rows import Requests
from airflow_dlaws.launchers.aws_errors import error_code, service_errors
from airflow_dlaws.storage import S3Uri

#: SageMaker's default for MaxPayloadInMB.
_DEFAULT_MB = 6
_MEGABYTE = 1024 * 1024
#: A traceback says enough in its last lines.
_WORDS = 400

_LINE = re.compile(r"^\S+:\[sagemaker logs\]: (?P<text>.*)$", re.DOTALL)
_HEADER = re.compile(r"MaxPayloadInMB=(?P<payload>\d+), BatchStrategy=(?P<strategy>\w+)")
_OBJECT = re.compile(r"^(?P<bucket>[a-z0-9][a-z0-9.-]+)/(?P<key>.+?): ?(?P<text>.*)$", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class DataLog:
    """What the data logs of a job say."""

    requests: Requests
    #: What was said about each object that failed.
    words: Mapping[S3Uri, str] = field(default_factory=dict)


def read_data_log(logs: Any, group: str, job: str) -> DataLog:
    """Read the data logs of all instances of a job; one that has none has said nothing.

    :param logs: boto3 CloudWatch Logs client.
    """
    lines: list[str] = []
    with service_errors(f"read the data log of {job}"):
        try:
            streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{job}/")["logStreams"]
            for name in (stream["logStreamName"] for stream in streams):
                if name.endswith("/data-log"):
                    page = logs.get_log_events(logGroupName=group, logStreamName=name, startFromHead=True)
                    lines += [event["message"] for event in page["events"]]
        except ClientError as error:
            if error_code(error) != "ResourceNotFoundException":
                raise
    return parse(lines)


def parse(lines: Iterable[str]) -> DataLog:
    """Read the lines of data logs."""
    requests, words = Requests(payload_bytes=_DEFAULT_MB * _MEGABYTE), dict[S3Uri, list[str]]()
    for text in (found["text"] for found in map(_LINE.match, lines) if found):
        if header := _HEADER.search(text):
            payload = int(header["payload"]) * _MEGABYTE
            requests = Requests(payload_bytes=payload, single_record=header["strategy"] == "SINGLE_RECORD")
        elif named := _OBJECT.match(text):
            words.setdefault(S3Uri(named["bucket"], named["key"]), []).append(named["text"].strip())
    return DataLog(requests=requests, words={uri: _sentence(said) for uri, said in words.items()})


def _sentence(said: list[str]) -> str:
    """Return the container's own words where there are any, else the service's."""
    own = said[said.index("Message:") + 1 :] if "Message:" in said else []
    return " ".join(filter(None, own or said))[-_WORDS:]
