"""Whose log a shared poller reads next, so that its calls do not grow with the number of jobs: decisions only.

A job's log streams have names that nobody can foretell. They are found among those written to last, many jobs with one
call where the account prints little else, or by reading one job's log by its prefix. Known streams of many jobs are
then read in one call. Jobs take turns; what waits longer is still read whole, as is the log of a job that has ended.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from airflow_dlaws.launchers.job_log import STREAMS_PER_CALL
from airflow_dlaws.launchers.protocol import LogCursor, LogPage, LogTask, SharedLogPage

#: Calls a minute for the logs of all jobs, where these are more than a few. CloudWatch answers 5 FilterLogEvents a
#: second in most regions, to all users of an account (AWS re:Post, "cloudwatch-logs-throttling"); this is less than a
#: thirtieth, and reads 1,000 jobs of one host in two minutes.
LOG_CALLS_PER_MINUTE = 8.0
#: A call that lists streams must find so many of our jobs, or their logs are read one by one.
WORTH_A_LIST = 2
#: A job that has printed nothing is looked for again after so long, and so is the list.
NOT_YET_S = 60.0
#: Other hosts of a job may begin to print later, and a job goes on in a new stream after a spot interruption.
OTHER_HOSTS_S = 600.0


@dataclass(frozen=True)
class ReadOne:
    """Read the log of one job by its prefix."""

    name: str


@dataclass(frozen=True)
class ReadMany:
    """Read the logs of several jobs."""

    tasks: tuple[LogTask, ...]


@dataclass(frozen=True)
class FindStreams:
    """List the streams written to last; `token` goes on behind an earlier page."""

    token: str | None = None


LogStep = ReadOne | ReadMany | FindStreams


@dataclass(kw_only=True)
class _Log:
    """One job's log: how far it was read, and when (seconds since the epoch)."""

    cursor: LogCursor
    streams: tuple[str, ...] = ()
    read_at: float = 0.0
    look_for_streams_at: float = 0.0


@dataclass
class LogPlan:
    """The logs that are followed."""

    _logs: dict[str, _Log] = field(default_factory=dict)
    _budget: float = LOG_CALLS_PER_MINUTE / 2
    _began: float = 0.0
    #: Streams in one read: fewer where a read could not be finished.
    _width: int = STREAMS_PER_CALL
    #: When the list of streams is next worth a call, and behind which page.
    _list_at: float = 0.0
    _token: str | None = None
    _searched: bool = False

    def add(self, name: str, cursor: LogCursor) -> None:
        """Follow a job's log too."""
        self._logs[name] = _Log(cursor=cursor)

    def drop(self, name: str) -> None:
        """Follow a job's log no longer."""
        self._logs.pop(name, None)

    def cursor(self, name: str) -> LogCursor:
        """Return how far a job's log was read."""
        log = self._logs.get(name)
        return log.cursor if log else LogCursor()

    def begin(self, now: float) -> None:
        """Begin a round."""
        earned = LOG_CALLS_PER_MINUTE * max(0.0, now - (self._began or now)) / 60
        self._budget = min(LOG_CALLS_PER_MINUTE, self._budget + earned)
        self._began, self._searched = now, False

    def next_step(self, *, few: bool) -> LogStep | None:
        """Return what to read now; None where the round is over.

        :param few: read every log in every round, whatever it costs.
        """
        due = sorted((log.read_at, name) for name, log in self._logs.items() if log.read_at < self._began)
        if not due:
            return None
        if few:
            return ReadOne(due[0][1])
        if self._budget < 1:
            return None
        self._searched = not self._searched
        search = self._search() if self._searched else None
        step = search or self._read_many([name for _, name in due]) or self._search()
        self._budget -= step is not None
        return step

    def found(self, streams: Iterable[str], token: str | None, now: float) -> None:
        """Note which streams were written to last; a list that holds mostly others' is left alone for a while."""
        ours: dict[str, set[str]] = {}
        for stream in streams:
            name = stream.partition("/")[0]
            if name in self._logs:
                ours.setdefault(name, set()).add(stream)
        new = [name for name in ours if not self._logs[name].streams]
        for name, names in ours.items():
            log = self._logs[name]
            log.streams = tuple(sorted(names.union(log.streams)))
            log.look_for_streams_at = now + OTHER_HOSTS_S
        worth = len(new) >= WORTH_A_LIST
        self._list_at, self._token = (now if worth else now + NOT_YET_S), (token if worth else None)

    def read(self, name: str, page: LogPage, now: float) -> None:
        """Note what a job's log has given."""
        if log := self._logs.get(name):
            self._note(log, page, now)
            log.look_for_streams_at = now + (OTHER_HOSTS_S if log.streams else NOT_YET_S)

    def read_many(self, answer: SharedLogPage, now: float) -> None:
        """Note what a read of several logs has given; what was not read to its end is read in smaller portions."""
        complete = all(page.complete for page in answer.pages.values())
        self._width = min(STREAMS_PER_CALL, self._width + 10) if complete else max(1, self._width // 2)
        self._budget -= answer.calls - 1
        for name, page in answer.pages.items():
            if log := self._logs.get(name):
                self._note(log, page, now)

    def unavailable(self) -> None:
        """Note that the log could not be read: leave the rest of the round."""
        for log in self._logs.values():
            log.read_at = max(log.read_at, self._began)

    def _note(self, log: _Log, page: LogPage, now: float) -> None:
        log.cursor, log.read_at = page.cursor, now
        log.streams = tuple(sorted({*log.streams, *page.streams}))

    def _search(self) -> LogStep | None:
        """Return how to find streams that are not known."""
        due_at, name = min((log.look_for_streams_at, name) for name, log in self._logs.items())
        if due_at > self._began:
            return None
        if self._list_at <= self._began:
            self._list_at = self._began + NOT_YET_S
            return FindStreams(self._token)
        return ReadOne(name)

    def _read_many(self, names: Iterable[str]) -> LogStep | None:
        """Return a read of those jobs that were not read for longest, as many as one call takes."""
        tasks: list[LogTask] = []
        room = self._width
        for name in names:
            log = self._logs[name]
            if not log.streams:
                continue
            if len(log.streams) > self._width:
                return ReadMany(tuple(tasks)) if tasks else ReadOne(name)
            if len(log.streams) > room:
                break
            room -= len(log.streams)
            tasks.append(LogTask(name=name, streams=log.streams, cursor=log.cursor))
        if tasks:
            return ReadMany(tuple(tasks))
        return None
