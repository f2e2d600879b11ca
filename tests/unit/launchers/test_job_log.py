"""The job's log is read bit by bit: every line once, all hosts, late events too."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_dlaws.launchers.job_log import TRAINING_LOG_GROUP, _line, read_log, read_tail
from airflow_dlaws.launchers.protocol import LogCursor, LogPage

NOW_MS = 1_795_000_000_000


class JobLog:
    """The log of one job in moto, and a reader with a cursor."""

    def __init__(self, logs: Any, job: str) -> None:
        self.logs, self.job, self.cursor = logs, job, LogCursor()

    def write(self, host: str, at_s: float, message: str) -> None:
        stream = {"logGroupName": TRAINING_LOG_GROUP, "logStreamName": f"{self.job}/{host}-1795000000"}
        names = [row["logGroupName"] for row in self.logs.describe_log_groups()["logGroups"]]
        if TRAINING_LOG_GROUP not in names:
            self.logs.create_log_group(logGroupName=TRAINING_LOG_GROUP)
        present = self.logs.describe_log_streams(
            logGroupName=TRAINING_LOG_GROUP, logStreamNamePrefix=stream["logStreamName"]
        )
        if not present["logStreams"]:
            self.logs.create_log_stream(**stream)
        self.logs.put_log_events(**stream, logEvents=[{"timestamp": NOW_MS + int(at_s * 1000), "message": message}])

    def read(self) -> tuple[str, ...]:
        page: LogPage = read_log(self.logs, group=TRAINING_LOG_GROUP, stream_prefix=f"{self.job}/", cursor=self.cursor)
        self.cursor = page.cursor
        return page.lines


@pytest.fixture
def log(aws: Any, request: pytest.FixtureRequest) -> JobLog:
    """The log of a job named after the test."""
    return JobLog(aws("logs"), request.node.name.replace("_", "-"))


def test_before_the_first_job_there_is_no_group_and_no_line(log: JobLog) -> None:
    assert log.read() == ()


def test_lines_of_all_hosts_come_in_order_of_time_each_once(log: JobLog) -> None:
    log.write("algo-1", 1, "epoch 1")
    log.write("algo-2", 0, "joined\n")
    assert log.read() == ("[algo-2] joined", "[algo-1] epoch 1")
    log.write("algo-1", 2, "epoch 2")
    assert log.read() == ("[algo-1] epoch 2",)
    assert log.read() == ()


def test_a_line_that_arrives_late_with_an_older_time_is_not_lost(log: JobLog) -> None:
    log.write("algo-1", 10, "late riser waits")
    log.read()
    log.write("algo-2", 4, "from before")
    assert log.read() == ("[algo-2] from before",)


def test_equal_lines_are_all_shown(log: JobLog) -> None:
    log.write("algo-1", 1, "step")
    log.write("algo-1", 1, "step")
    assert log.read() == ("[algo-1] step", "[algo-1] step")


def test_another_job_with_the_same_start_of_name_is_not_mixed_in(log: JobLog) -> None:
    other = JobLog(log.logs, log.job + "-2")
    other.write("algo-1", 1, "other")
    log.write("algo-1", 1, "mine")
    assert log.read() == ("[algo-1] mine",)


def test_the_tail_holds_the_last_lines_of_all_hosts(log: JobLog) -> None:
    for number in range(30):
        log.write(f"algo-{number % 2 + 1}", number, f"line {number}")
    tail = read_tail(log.logs, group=TRAINING_LOG_GROUP, stream_prefix=f"{log.job}/", count=3)
    assert tail == ("[algo-2] line 27", "[algo-1] line 28", "[algo-2] line 29")


def test_the_tail_of_a_job_that_never_started_is_empty(log: JobLog) -> None:
    assert read_tail(log.logs, group=TRAINING_LOG_GROUP, stream_prefix=f"{log.job}/", count=3) == ()


@pytest.mark.parametrize("stream", ["job/i-0abc-1795000000", "job/i-0abc-1795000000/data-log"])
def test_a_line_bears_the_name_of_its_host(stream: str) -> None:
    assert _line({"logStreamName": stream, "message": "up\n"}) == "[i-0abc] up"
