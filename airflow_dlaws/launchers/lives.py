"""What a task may have left running before it was cleared, or before what it asks for was changed.

Clearing a deferred task makes Airflow call the trigger's `on_kill`, which stops the job; but only if the triggerer had
taken the trigger up. A task that is cleared in the second before, or while the triggerer is down, starts its new job
beside the old one. So does a retry whose code or parameters were edited since. So each job is noted in S3 under its
task, before it is created, and whoever starts another one stops it first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from airflow_dlaws.errors import DlawsError, ServiceRefused
from airflow_dlaws.jobs.identity import TaskIdentity
from airflow_dlaws.jobs.wire import from_json, to_json
from airflow_dlaws.launchers.aws_errors import service_errors
from airflow_dlaws.launchers.engines import launcher_class
from airflow_dlaws.launchers.shell import Shell
from airflow_dlaws.storage import ObjectStore, S3Uri

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LifeNote:
    """The last job of a task, the life it was started in, and the digest of what was asked for.

    :param job_name: what the engine needs to find the job, whatever the task asks for by then.
    :param engine: which one; empty in notes of releases that did not say: the engine that reads it.
    :param run_began: the run in which it was started; empty in notes of releases that did not say.
    """

    clear_marker: int
    digest: str
    job_name: str
    engine: str = ""
    run_began: str = ""

    @property
    def life(self) -> tuple[int, str]:
        """The life of the task in which it was started: its clear marker, and when its run began."""
        return self.clear_marker, self.run_began


class StopsNoted(Protocol):
    """An engine that finds a job by what was noted of it before it was created."""

    def stop_noted(self, note: str, *, until_ended: bool) -> bool:
        """Stop the job that was noted so, should it still run; tell whether it did.

        :param until_ended: and wait until it has ended.
        """


class TaskLives:
    """The note of one task; `root` is where the task's jobs put their output, `engine` what runs the next one."""

    def __init__(self, store: ObjectStore, root: S3Uri, identity: TaskIdentity, digest: str, engine: str) -> None:
        self._store, self._engine, self._digest = store, engine, digest
        self._life = identity.clear_marker, identity.run_began
        self._uri = root / "tasks" / f"{identity.task_key}.json"

    @cached_property
    def last(self) -> LifeNote | None:
        """What was noted before this try asked for anything; None where nothing was."""
        with service_errors(f"read {self._uri}"):
            return from_json(LifeNote, self._store.read_json(self._uri)) if self._store.exists(self._uri) else None

    def former(self) -> LifeNote | None:
        """Return the job that the task started last, if that was in another life or for another specification."""
        return self.last if self.last and (self.last.life, self.last.digest) != (self._life, self._digest) else None

    def present_job(self) -> str | None:
        """Return the job that this life has asked for last; those it asked for before are of no more use to it."""
        return self.last.job_name if self.last and self.former() is None else None

    def note(self, job_name: str) -> None:
        """Remember the job that is about to be created."""
        marker, began = self._life
        note = LifeNote(
            clear_marker=marker, run_began=began, digest=self._digest, job_name=job_name, engine=self._engine
        )
        with service_errors(f"write {self._uri}"):
            self._store.write_json(self._uri, to_json(note))

    def stop_former(self, own: StopsNoted, client: Callable[[str], Any], *, until_ended: bool) -> None:
        """Stop what the task had started before it was cleared or changed, should it still run, whatever ran it.

        :param own: the launcher of this task's engine; `client` is for those of others.
        """
        note = self.former()
        if note is not None and self._stop(note, own, client, until_ended=until_ended):
            log.warning("stopped job %s, which this task had started before it was cleared or changed", note.job_name)

    def stop_last(self, own: StopsNoted, client: Callable[[str], Any]) -> str | None:
        """Stop what the present life of the task has started last, whatever it was asked for, should it still run.

        Return what was noted of it, if it did run; see `stop_former` for the parameters.
        """
        note = self.last
        if note is None or note.life != self._life:
            return None
        return note.job_name if self._stop(note, own, client, until_ended=False) else None

    def _stop(self, note: LifeNote, own: StopsNoted, client: Callable[[str], Any], *, until_ended: bool) -> bool:
        if note.engine in ("", self._engine):
            return own.stop_noted(note.job_name, until_ended=until_ended)
        return _stop_elsewhere(note, client, until_ended=until_ended)


def _stop_elsewhere(note: LifeNote, client: Callable[[str], Any], *, until_ended: bool) -> bool:
    """Stop a job of another engine; that this one is not allowed to, or cannot reach it, must not hold up the task."""
    ways = (client, _no_shell) if note.engine == "slurm" else (client,)
    try:
        launcher: StopsNoted = launcher_class(note.engine)(*ways)
        return launcher.stop_noted(note.job_name, until_ended=until_ended)
    except DlawsError as error:
        if not error.permanent:
            raise
        log.warning(
            "job %s of engine %s, which this task had started before it was changed, cannot be looked for: see that it "
            "has ended. %s", note.job_name, note.engine, error,
        )  # fmt: skip
        return False


def _no_shell(address: str) -> Shell:
    raise ServiceRefused(f"{address} is reached by tasks of that cluster only")
