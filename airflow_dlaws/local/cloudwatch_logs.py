"""CloudWatch Logs as moto has it, but FilterLogEvents finds the streams of a prefix, as AWS's does.

moto answers with the events of all streams of the group, and with the names of all that it has searched. AWS has left
the list of searched streams empty since May 2020.
Source: https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_FilterLogEvents.html
"""

from __future__ import annotations

import json

import moto.logs.urls
from moto.logs.exceptions import InvalidParameterException
from moto.logs.responses import LogsResponse


class LocalLogs(LogsResponse):
    """moto's operations, with a search by prefix."""

    def filter_log_events(self) -> str:
        """Answer FilterLogEvents.

        :raises InvalidParameterException: streams are asked for by name and by prefix.
        """
        prefix, names = self._get_param("logStreamNamePrefix"), self._get_param("logStreamNames", [])
        if prefix and names:
            raise InvalidParameterException("LogStreamNames and LogStreamNamePrefix cannot be used together.")
        group = self.logs_backend.groups.get(self._get_param("logGroupName"))
        if prefix and group:
            names = [name for name in group.streams if name.startswith(prefix)]
            if not names:  # moto takes no names for all names
                return json.dumps({"events": [], "searchedLogStreams": []})
        events, token, _ = self.logs_backend.filter_log_events(
            self._get_param("logGroupName"),
            names,
            self._get_param("startTime"),
            self._get_param("endTime"),
            self._get_param("limit"),
            self._get_param("nextToken"),
            self._get_param("filterPattern"),
            self._get_param("interleaved", False),
        )
        return json.dumps({"events": events, "nextToken": token, "searchedLogStreams": []})


def install() -> None:
    """Let moto answer CloudWatch Logs by this module. A seam: moto reads the table when it makes the application."""
    moto.logs.urls.url_paths = {"{0}/$": LocalLogs.dispatch}
