"""The Amazon provider's hook, with sessions that cost a tenth of botocore's: in the times of answers, and in clients.

A page of ListTrainingJobs holds three hundred times. botocore tries two time zones for each, which is half of what
waiting for a thousand jobs costs. SageMaker and the other services with JSON answers write seconds since 1970.

The provider makes a session for each client, and each parses botocore's file of all endpoints: an eighth of a second.
"""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from typing import Any


def parsed_time(value: Any) -> Any:
    """Return a time of an AWS answer, in UTC; whatever is no plain number is left to botocore."""
    if type(value) in (int, float):
        try:
            return datetime.fromtimestamp(value, UTC)
        except (OverflowError, OSError, ValueError):
            pass  # botocore knows years that the platform does not
    from botocore.utils import parse_timestamp

    return parse_timestamp(value)


@functools.cache
def _loader(data_path: str | None) -> Any:
    """Return what reads botocore's files, each once in a process."""
    from botocore.loaders import create_loader

    return create_loader(data_path)


@functools.cache
def hook_class() -> Any:
    """Return `AwsBaseHook` with such sessions. A function: the provider must not be imported when a DAG is parsed."""
    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

    class QuickTimesHook(AwsBaseHook):
        """Makes boto3 sessions whose clients parse times by `parsed_time`, and which share botocore's files."""

        def get_session(self, *arguments: Any, **options: Any) -> Any:
            """Return the session."""
            session = super().get_session(*arguments, **options)
            core = session._session
            core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=parsed_time)
            core.register_component("data_loader", _loader(core.get_config_variable("data_path")))
            return session

    return QuickTimesHook
