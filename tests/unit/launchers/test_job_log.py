"""The job's log is read bit by bit: every line once, all hosts, late events too."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_dlaws.launchers.job_log import (
    TRAINING_LOG_GROUP,
    _line,
    read_log,
    read_logs,
    read_tail,
    recent_streams,
)
from airflow_dlaws.launchers.log_plan import LOG_CALLS_PER_MINUTE, FindStreams, LogPlan, ReadMany, ReadOne
from airflow_dlaws.launchers.protocol import LogCursor, LogPage, SharedLogPage

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


class TinyPages:
    """CloudWatch's answers from a list of events, a few to a page, so that reads end in the middle."""

    def __init__(self, page: int) -> None:
        self._page = page
        self.events: list[dict[str, Any]] = []

    def write(self, stream: str, at_ms: int, message: str) -> None:
        identity = f"{len(self.events):020}"
        event = {"logStreamName": stream, "timestamp": at_ms, "message": message, "eventId": identity}
        self.events.append(event)

    def filter_log_events(self, **asked: Any) -> dict[str, Any]:
        names, prefix = asked.get("logStreamNames"), asked.get("logStreamNamePrefix", "")
        found = [
            event
            for event in sorted(self.events, key=lambda event: (event["timestamp"], event["eventId"]))
            if event["timestamp"] >= asked["startTime"]
            and event["logStreamName"].startswith(prefix)
            and (names is None or event["logStreamName"] in names)
        ]
        return self._cut(found, "events", asked)

    def describe_log_streams(self, **asked: Any) -> dict[str, Any]:
        newest = dict.fromkeys(event["logStreamName"] for event in reversed(self.events))
        return self._cut([{"logStreamName": name} for name in newest], "logStreams", asked)

    def _cut(self, rows: list[dict[str, Any]], key: str, asked: dict[str, Any]) -> dict[str, Any]:
        start = int(asked.get("nextToken") or 0)
        more = {"nextToken": str(start + self._page)} if len(rows) > start + self._page else {}
        return {key: rows[start : start + self._page], **more}


class ManyLogs:
    """The logs of several jobs, read as a log plan says, at a time that the test sets."""

    def __init__(self, jobs: int, page: int) -> None:
        self.logs, self.plan, self.calls = TinyPages(page), LogPlan(), 0
        self.said: dict[str, list[str]] = {f"job-{number}": [] for number in range(jobs)}
        self.heard: dict[str, list[str]] = {name: [] for name in self.said}
        for name in self.said:
            self.plan.add(name, LogCursor())

    def say(self, name: str, host: str, at_s: float) -> None:
        line = f"line {len(self.said[name])}"
        self.logs.write(f"{name}/{host}-1", NOW_MS + int(at_s * 1000), line)
        self.said[name].append(f"[{host}] {line}")

    def round(self, at_s: float) -> None:
        now_ms, now = NOW_MS + int(at_s * 1000), NOW_MS / 1000 + at_s
        self.plan.begin(now)
        while step := self.plan.next_step(few=False):
            self.calls += 1
            if isinstance(step, FindStreams):
                self.plan.found(*recent_streams(self.logs, group=TRAINING_LOG_GROUP, token=step.token), now)
            elif isinstance(step, ReadMany):
                answer = read_logs(self.logs, group=TRAINING_LOG_GROUP, tasks=step.tasks, now_ms=now_ms)
                self.plan.read_many(answer, now)
                for name, page in answer.pages.items():
                    self.heard[name] += page.lines
            else:
                self.read_one(step.name, now)

    def read_one(self, name: str, now: float) -> bool:
        cursor = self.plan.cursor(name)
        page = read_log(self.logs, group=TRAINING_LOG_GROUP, stream_prefix=f"{name}/", cursor=cursor)
        self.plan.read(name, page, now)
        self.heard[name] += page.lines
        return page.complete


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_logs_read_together_lose_and_repeat_no_line(data: st.DataObject) -> None:
    many = ManyLogs(jobs=6, page=data.draw(st.sampled_from([15, 1_000])))
    at_s = 0.0
    for _ in range(data.draw(st.integers(3, 12))):
        # Also pauses so long that a quiet job's place in the log is moved on.
        at_s += data.draw(st.sampled_from([1.0, 20.0, 60.0, 400.0, 2_000.0]))
        for name in data.draw(st.lists(st.sampled_from(sorted(many.said)), max_size=12)):
            # A line may come to light some seconds after its time.
            late_s = data.draw(st.sampled_from([0.0, 3.0, 6.0]))
            many.say(name, data.draw(st.sampled_from(["algo-1", "algo-2"])), at_s - late_s)
        many.round(at_s)
    for name in many.said:  # as when a job has ended
        while not many.read_one(name, NOW_MS / 1000 + at_s):
            pass
    assert {name: sorted(lines) for name, lines in many.heard.items()} == {
        name: sorted(lines) for name, lines in many.said.items()
    }


def test_the_logs_of_many_jobs_are_read_within_the_budget() -> None:
    many = ManyLogs(jobs=500, page=50)
    for number, name in enumerate(many.said):
        many.say(name, "algo-1", number / 100)
    for minute in range(1, 11):
        many.round(minute * 60)
    assert many.calls <= 10 * LOG_CALLS_PER_MINUTE
    assert many.heard == many.said


def test_a_read_that_cannot_be_finished_is_made_smaller() -> None:
    plan = LogPlan()
    for number in range(8):
        plan.add(f"job-{number}", LogCursor())
    plan.begin(1_000.0)
    plan.found([f"job-{number}/algo-1-1" for number in range(8)], None, 1_000.0)
    sizes = []
    for minute in range(1, 6):
        plan.begin(1_000.0 + 60 * minute)
        step = plan.next_step(few=False)
        assert isinstance(step, ReadMany)
        sizes.append(len(step.tasks))
        pages = {task.name: LogPage(lines=(), cursor=task.cursor, complete=minute > 4) for task in step.tasks}
        for _ in range(3):  # a hundred streams, halved again and again
            plan.read_many(SharedLogPage(pages=pages), 1_000.0 + 60 * minute)
    assert sizes[0] == 8
    assert sizes[3] == 1
    assert sizes[4] == 1


def test_a_job_with_more_hosts_than_a_call_takes_is_read_alone() -> None:
    plan = LogPlan()
    plan.add("wide", LogCursor())
    plan.begin(1_000.0)
    plan.found([f"wide/algo-{host}-1" for host in range(150)], None, 1_000.0)
    plan.begin(1_060.0)
    assert plan.next_step(few=False) == ReadOne("wide")
