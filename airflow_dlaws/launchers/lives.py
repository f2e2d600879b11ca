"""What a task may have left running before it was cleared, or before what it asks for was changed.

Clearing a deferred task makes Airflow call the trigger's `on_kill`, which stops the job; but only if the triggerer had
taken the trigger up. A task that is cleared in the second before, or while the triggerer is down, starts its new job
beside the old one. So does a retry whose code or parameters were edited since. So each job is noted in S3 under its
task, before it is created, and whoever starts another one stops it first.
"""

from __future__ import annotations

from dataclasses import dataclass

from airflow_dlaws.jobs.identity import TaskIdentity
from airflow_dlaws.jobs.wire import from_json, to_json
from airflow_dlaws.launchers.aws_errors import service_errors
from airflow_dlaws.storage import ObjectStore, S3Uri


@dataclass(frozen=True, kw_only=True)
class LifeNote:
    """The last job of a task, the life it was started in, and the digest of what was asked for."""

    clear_marker: int
    digest: str
    job_name: str


class TaskLives:
    """The note of one task; `root` is where the task's jobs put their output."""

    def __init__(self, store: ObjectStore, root: S3Uri, identity: TaskIdentity, digest: str) -> None:
        self._store, self._now = store, (identity.clear_marker, digest)
        self._uri = root / "tasks" / f"{identity.task_key}.json"

    def former_job(self) -> str | None:
        """Return the job that the task started last, if that was in another life or for another specification."""
        with service_errors(f"read {self._uri}"):
            if not self._store.exists(self._uri):
                return None
            note = from_json(LifeNote, self._store.read_json(self._uri))
        return note.job_name if (note.clear_marker, note.digest) != self._now else None

    def note(self, job_name: str) -> None:
        """Remember the job that is about to be created."""
        clear_marker, digest = self._now
        note = LifeNote(clear_marker=clear_marker, digest=digest, job_name=job_name)
        with service_errors(f"write {self._uri}"):
            self._store.write_json(self._uri, to_json(note))
