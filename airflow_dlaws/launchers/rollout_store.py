"""Where a rollout is remembered: its lock, its state file and its report, in S3.

<state_s3_uri>/rollouts/<endpoint>/lock.json       who is rolling out on this endpoint
<state_s3_uri>/rollouts/<endpoint>/<config>.json   state and looks of one rollout; .html its report
<state_s3_uri>/rollouts/<endpoint>/<config>.wish   what a person asked of it, from the command line

Everything of an endpoint that is not one task's own is `RolloutFolder`; the command line needs no more.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from airflow_dlaws.errors import EndpointBusy
from airflow_dlaws.jobs.wire import from_json, to_json
from airflow_dlaws.launchers.aws_errors import service_errors
from airflow_dlaws.rollout.order import RolloutNames, RolloutOrder
from airflow_dlaws.rollout.report import RolloutRecord, RolloutReport
from airflow_dlaws.rollout.report_page import to_html
from airflow_dlaws.rollout.result import result_of
from airflow_dlaws.rollout.state import Wish, WishKind, is_final
from airflow_dlaws.storage import ObjectStore, S3Uri


@dataclass(frozen=True, kw_only=True)
class LockNote:
    """Who holds an endpoint. Times are epoch seconds."""

    owner: str
    config_name: str
    record_uri: str
    taken_at: float
    #: After this the holder's own deadlines have passed: nobody can be working on it any more.
    expires_at: float
    #: Whom it was taken from, until what that rollout has left behind is seen to.
    former: LockNote | None = None


class RolloutFolder:
    """What is remembered of one endpoint's rollouts."""

    def __init__(self, store: ObjectStore, state_s3_uri: str, endpoint_name: str) -> None:
        self.store = store
        self._folder = S3Uri.parse(state_s3_uri) / "rollouts" / endpoint_name
        self.lock_uri = self._folder / "lock.json"

    def uri(self, config_name: str, suffix: str) -> S3Uri:
        """Return where a file of one rollout lies."""
        return self._folder / f"{config_name}{suffix}"

    def holder(self) -> LockNote | None:
        """Return who holds the endpoint, None where nobody does."""
        with service_errors(f"read the lock {self.lock_uri}"):
            if not self.store.exists(self.lock_uri):
                return None
            return from_json(LockNote, self.store.read_json(self.lock_uri))

    def record(self, config_name: str) -> RolloutRecord | None:
        """Return what is remembered of a rollout, None where it never began."""
        uri = self.uri(config_name, ".json")
        with service_errors(f"read {uri}"):
            return read_record(self.store, uri)

    def save(self, record: RolloutRecord) -> None:
        """Remember a rollout that nobody is working on."""
        uri = self.uri(record.state.requested_config, ".json")
        with service_errors(f"write {uri}"):
            self.store.write_json(uri, to_json(record))

    def records(self) -> list[RolloutRecord]:
        """Return all rollouts, the oldest first."""
        with service_errors(f"list {self._folder}"):
            names = [row.uri.key.rpartition("/")[2] for row in self.store.list(self._folder / "")]
        states = [name[: -len(".json")] for name in names if name.endswith(".json") and not _is_aside(name)]
        found = [record for record in map(self.record, states) if record is not None]
        return sorted(found, key=lambda record: record.state.started_at)

    def wish(self, config_name: str) -> Wish | None:
        """Return what a person asked of a rollout."""
        uri = self.uri(config_name, ".wish")
        with service_errors(f"read {uri}"):
            return from_json(Wish, self.store.read_json(uri)) if self.store.exists(uri) else None

    def ask(self, config_name: str, wish: Wish) -> None:
        """Leave a wish for the task that rolls out; the last one counts."""
        uri = self.uri(config_name, ".wish")
        with service_errors(f"write {uri}"):
            self.store.write_json(uri, to_json(wish))

    def is_cleaned(self, config_name: str) -> bool:
        """Tell whether a rollout's configuration and model were deleted."""
        uri = self.uri(config_name, ".cleaned")
        with service_errors(f"read {uri}"):
            return self.store.exists(uri)

    def mark_cleaned(self, config_name: str) -> None:
        """Remember that they were deleted."""
        uri = self.uri(config_name, ".cleaned")
        with service_errors(f"write {uri}"):
            self.store.write(uri, b"")


def _body(note: LockNote) -> bytes:
    return json.dumps(to_json(note)).encode()


def _is_aside(name: str) -> bool:
    return name == "lock.json" or name.endswith(".report.json")


def read_record(store: ObjectStore, uri: S3Uri) -> RolloutRecord | None:
    """Return the state file at `uri`, None where there is none."""
    return from_json(RolloutRecord, store.read_json(uri)) if store.exists(uri) else None


class RolloutStore:
    """Lock, state file and report of one rollout."""

    def __init__(self, store: ObjectStore, order: RolloutOrder, names: RolloutNames) -> None:
        self._store, self._names = store, names
        self._endpoint = order.endpoint_name
        self.folder = RolloutFolder(store, order.state_s3_uri, order.endpoint_name)
        self._lock_uri = self.folder.lock_uri
        self.record_uri = self.folder.uri(names.config_name, ".json")
        self.report_uri = self.folder.uri(names.config_name, ".html")
        self._report_data_uri = self.folder.uri(names.config_name, ".report.json")

    def load(self) -> RolloutRecord | None:
        """Return what is remembered of this rollout, or None where it never began."""
        return self.folder.record(self._names.config_name)

    def wish(self) -> Wish | None:
        """Return what a person asked of this rollout."""
        return self.folder.wish(self._names.config_name)

    def save(self, record: RolloutRecord) -> None:
        """Remember."""
        with service_errors(f"write {self.record_uri}"):
            self._store.write_json(self.record_uri, to_json(record))

    def write_report(self, record: RolloutRecord) -> None:
        """Draw the report anew."""
        result = result_of(record.state, report_uri=str(self.report_uri))
        report = RolloutReport(result=result, record=record)
        with service_errors(f"write {self.report_uri}"):
            self._store.write_json(self._report_data_uri, to_json(report))
            self._store.write(self.report_uri, to_html(report).encode(), content_type="text/html; charset=utf-8")

    def acquire(self, *, now: float, expires_at: float) -> LockNote | None:
        """Take the endpoint's lock; return the note of a former holder, until `forget_former` is called.

        Its own task takes a lock up again (a retry; or, after a clear, the task's next life). So does anybody once
        the holder's rollout is over, was abandoned by a killed task, or has expired.

        :raises EndpointBusy: another task is rolling out on this endpoint.
        """
        note = LockNote(
            owner=self._names.owner,
            config_name=self._names.config_name,
            record_uri=str(self.record_uri),
            taken_at=now,
            expires_at=expires_at,
        )
        with service_errors(f"take the lock {self._lock_uri}"):
            if self._store.create(self._lock_uri, _body(note)):
                return None
            text, etag = self._store.read_versioned(self._lock_uri)
            holder = from_json(LockNote, json.loads(text))
            former = holder.former if holder.config_name == note.config_name else holder
            free = holder.owner == note.owner or now > holder.expires_at or self._is_over(holder)
            if free and self._store.replace(self._lock_uri, _body(replace(note, former=former)), etag=etag):
                return former
        raise EndpointBusy(self._refusal(holder))

    def is_ours(self) -> bool | None:
        """Tell whether this rollout holds the endpoint; None where nobody does."""
        holder = self.folder.holder()
        return None if holder is None else holder.config_name == self._names.config_name

    def taken_at(self) -> float | None:
        """Return when a try of this rollout took the lock last: each has a time of its own. None without the lock."""
        holder = self.folder.holder()
        return holder.taken_at if holder and holder.config_name == self._names.config_name else None

    def ask_holder_to_go_back(self, *, why: str, now: float) -> None:
        """Leave a wish for the rollout that holds the endpoint, unless a person has asked something of it already."""
        holder = self.folder.holder()
        if holder and holder.config_name != self._names.config_name and self.folder.wish(holder.config_name) is None:
            self.folder.ask(holder.config_name, Wish(kind=WishKind.ABORT, by=self._names.owner, at=now, why=why))

    def forget_former(self) -> None:
        """What former holders left behind is seen to."""
        with service_errors(f"write the lock {self._lock_uri}"):
            text, etag = self._store.read_versioned(self._lock_uri)
            holder = from_json(LockNote, json.loads(text))
            if holder.config_name == self._names.config_name:
                self._store.replace(self._lock_uri, _body(replace(holder, former=None)), etag=etag)

    def release(self) -> None:
        """Give the lock back, if it is ours: to the former holder, as long as something that it left is not seen to."""
        holder = self.folder.holder()
        if holder and holder.config_name == self._names.config_name:
            with service_errors(f"release the lock {self._lock_uri}"):
                if holder.former:
                    self._store.write(self._lock_uri, _body(holder.former))
                else:
                    self._store.delete(self._lock_uri)

    def _is_over(self, holder: LockNote) -> bool:
        record = read_record(self._store, S3Uri.parse(holder.record_uri))
        return record is not None and (is_final(record.state.step) or record.state.abandoned)

    def _refusal(self, holder: LockNote) -> str:
        since = datetime.fromtimestamp(holder.taken_at, UTC).isoformat(timespec="seconds")
        until = datetime.fromtimestamp(holder.expires_at, UTC).isoformat(timespec="seconds")
        return (
            f"endpoint {self._endpoint} is being rolled out to {holder.config_name} by {holder.owner} since {since}: "
            f"one rollout at a time. Try again when it is over (its lock expires at {until}); if that task is gone for "
            f"good, delete {self._lock_uri}"
        )
