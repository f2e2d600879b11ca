"""Sweeps of our own: a job made of training jobs. Looking at it moves it on.

The sweep has no process of its own. Whoever looks (the triggerer while the task is deferred, the worker) reads the
journal, looks at the trials' jobs, decides, writes the journal, and then does what it says. Two who look at the same
time do no harm: one of them replaces the journal, and a job's name depends on its trial alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from airflow_dlaws.errors import JobFailed, NoSuchJob, ServiceRefused
from airflow_dlaws.jobs.identity import TaskIdentity, digest_of
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.reference import JobReference, JobStatus, Submission
from airflow_dlaws.jobs.wire import to_json
from airflow_dlaws.launchers.lives import TaskLives
from airflow_dlaws.launchers.protocol import Launcher, LogCursor, LogPage, describe_each
from airflow_dlaws.launchers.sagemaker import SageMakerLauncher
from airflow_dlaws.launchers.sweep_store import SweepStore, lost_race
from airflow_dlaws.launchers.trials import TrialRunner
from airflow_dlaws.storage import ObjectStore, S3Uri
from airflow_dlaws.sweeps.decide import decide, reopen, stop_all, summary
from airflow_dlaws.sweeps.journal import Ending, SweepJournal, TrialState
from airflow_dlaws.sweeps.search import propose
from airflow_dlaws.sweeps.spec import SweepSpec

ENGINE = "optuna"
#: Others that look at the same sweep win the race now and then, not always.
_TRIES = 5
_JOURNAL = "/journal.json"


class SweepLauncher:
    """The sweeps of one account and region.

    :param client: gives the boto3 client of a service by name ("sagemaker", "s3", "logs").
    """

    #: The clients that `stop` needs: it moves the sweep on.
    stops_with = ("s3", "sagemaker", "logs")

    def __init__(self, client: Callable[[str], Any]) -> None:
        self._client = client
        self._jobs = SageMakerLauncher(client)

    @property
    def log_group(self) -> str:
        """The trials' hosts print there; what the sweep itself has to say stands in its journal."""
        return self._jobs.log_group

    def log_prefix(self, reference: JobReference) -> str:
        """Return the sweep's name, which those of its trials begin with."""
        return reference.name

    def console_page(self, reference: JobReference) -> str:
        """Return the list of training jobs: SageMaker knows of no sweep."""
        return "jobs"

    def submit(self, spec: SweepSpec, identity: TaskIdentity, *, stop_former: bool = True) -> Submission:
        """Begin the task's sweep, or take up the one an earlier try has begun; see the protocol for what it raises."""
        root = S3Uri.parse(spec.training.output_s3_uri)
        code = self._jobs.code_of(spec.training)
        digest = _digest(spec, code.location)
        name = identity.name(digest)
        store, reference = self._store(root, name), self._reference(root, name)
        lives = TaskLives(self._objects, root, identity, digest, ENGINE)
        adopted = store.exists()
        if not adopted:
            propose(_first_journal(name, spec, identity, ""))  # that the search can be asked is found out for nothing
            self._jobs.publish(spec.training, code)
            if stop_former:
                lives.stop_former(self, self._client, until_ended=False)
            lives.note(reference.arn)
            adopted = not store.begin(_first_journal(name, spec, identity, str(code.location)))
        self._take_up(store)
        return Submission(reference=reference, status=self.describe(reference), adopted=adopted, attempt=1)

    def describe(self, reference: JobReference) -> JobStatus:
        """Look at the sweep and move it on.

        :raises NoSuchJob: it has no journal.
        """
        store = self._store_of(reference)
        try:
            return status_of(self._step(store))
        except ServiceRefused as error:
            if store.exists():
                raise
            raise NoSuchJob(f"there is no sweep {reference.name}: {error}") from error

    def describe_many(self, references: Sequence[JobReference]) -> dict[JobReference, JobStatus]:
        """Look at the sweeps and move them on; each has a journal of its own."""
        return describe_each(self.describe, references)

    def stop(self, reference: JobReference) -> bool:
        """Stop all trials; tell whether the sweep was still running."""
        store = self._store_of(reference)
        for _ in range(_TRIES):
            journal, etag = store.load()
            if journal.ended_at is not None:
                return False
            stopping = stop_all(journal, Ending.STOPPED, "the sweep was stopped", datetime.now(UTC))
            if store.replace(stopping, etag):
                self._step(store)
                return True
        raise lost_race(store.journal_uri)

    def log_lines(self, reference: JobReference, cursor: LogCursor) -> LogPage:
        """Return what has happened since `cursor`."""
        journal, _ = self._store_of(reference).load()
        news = [event for event in journal.events if event.at_ms > cursor.since_ms]
        newest = news[-1].at_ms if news else cursor.since_ms
        return LogPage(lines=tuple(event.text for event in news), cursor=LogCursor(since_ms=newest))

    def log_tail(self, reference: JobReference, count: int) -> tuple[str, ...]:
        """Return the last `count` things that have happened."""
        journal, _ = self._store_of(reference).load()
        return tuple(event.text for event in journal.events[-count:])

    def journal(self, reference: JobReference) -> SweepJournal:
        """Return what is known of the sweep; does not move it on."""
        return self._store_of(reference).load()[0]

    def files(self, reference: JobReference) -> SweepStore:
        """Return where the sweep is remembered."""
        return self._store_of(reference)

    @property
    def _objects(self) -> ObjectStore:
        return ObjectStore(self._client("s3"))

    def _step(self, store: SweepStore) -> SweepJournal:
        """Look at the trials, decide, write it down; go on until there is nothing to be done at once."""
        for _ in range(_TRIES):
            journal, etag = store.load()
            if journal.ended_at is not None:
                return journal
            looked = TrialRunner(self._client, self._jobs, journal).look()
            decided = decide(looked, propose, datetime.now(UTC))
            if decided == journal:
                return journal
            if _ended(decided) != _ended(journal) or decided.ended_at is not None:
                store.publish(decided)
            if not store.replace(decided, etag):
                continue
            if not _has_orders(decided, looked):
                return decided
        return store.load()[0]

    def _take_up(self, store: SweepStore) -> None:
        """Go on with a sweep that was stopped by a kill; refuse to pay again for one that has failed.

        :raises JobFailed: an earlier try's sweep failed.
        """
        for _ in range(_TRIES):
            journal, etag = store.load()
            status = status_of(journal)
            if status.phase is JobPhase.FAILED:
                raise JobFailed(f"sweep {journal.name}, run by an earlier try of this task, failed: {status.reason}")
            if journal.ending is not Ending.STOPPED:
                return
            looked = TrialRunner(self._client, self._jobs, journal).look()
            if store.replace(reopen(looked, datetime.now(UTC)), etag):
                return
        raise lost_race(store.journal_uri)

    def stop_noted(self, note: str, *, until_ended: bool) -> bool:
        """Stop the sweep whose journal was noted; nobody waits for its trials, which share nothing with another's."""
        name = note.removesuffix(_JOURNAL).rpartition("/")[2]
        reference = JobReference(engine=ENGINE, name=name, arn=note, region=self._jobs.region)
        return self._store_of(reference).exists() and self.stop(reference)

    def _store(self, root: S3Uri, name: str) -> SweepStore:
        return SweepStore(self._objects, root / "sweeps" / name)

    def _store_of(self, reference: JobReference) -> SweepStore:
        return SweepStore(self._objects, S3Uri.parse(reference.arn.removesuffix(_JOURNAL)))

    def _reference(self, root: S3Uri, name: str) -> JobReference:
        """Return the reference of a sweep: in the place of an ARN, where its journal is."""
        where = f"{root / 'sweeps' / name}{_JOURNAL}"
        return JobReference(engine=ENGINE, name=name, arn=where, region=self._jobs.region)


def status_of(journal: SweepJournal) -> JobStatus:
    """Return how a sweep stands, as if it were one job."""
    best = journal.best
    phase, reason = JobPhase.RUNNING, ""
    if journal.ended_at is not None:
        phase, reason = _outcome(journal)
    elif journal.ending is Ending.STOPPED:
        phase = JobPhase.STOPPING
    return JobStatus(
        phase=phase,
        reason=reason,
        detail=f"{_ended(journal)} of {journal.spec.trials} trials have ended",
        created_at=journal.created_at,
        started_at=journal.created_at,
        ended_at=journal.ended_at,
        billable_seconds=round(journal.cost),
        artifact_uri=best.artifact_uri if best else None,
        metrics={journal.spec.objective: best.value} if best and best.value is not None else {},
    )


def _outcome(journal: SweepJournal) -> tuple[JobPhase, str]:
    if journal.ending is Ending.STOPPED:
        return JobPhase.STOPPED, ""
    if journal.ending is Ending.FAILURES:
        return JobPhase.FAILED, journal.ending_reason
    if journal.best is None:
        return JobPhase.FAILED, f"{summary(journal)} ({journal.ending_reason})"
    return JobPhase.SUCCEEDED, ""


def _first_journal(name: str, spec: SweepSpec, identity: TaskIdentity, code: str) -> SweepJournal:
    now = datetime.now(UTC)
    return SweepJournal(name=name, spec=spec, identity=identity, code_uri=code, created_at=now)


def _digest(spec: SweepSpec, code: S3Uri) -> str:
    """Return the digest of what the sweep does; the code counts through its content-addressed location."""
    document = to_json(spec)
    return digest_of({**document, "training": {**document["training"], "source": str(code), "dependencies": []}})


def _ended(journal: SweepJournal) -> int:
    return sum(trial.ended for trial in journal.trials)


def _has_orders(decided: SweepJournal, looked: SweepJournal) -> bool:
    """Tell whether the decision asks for a job to be created or stopped that nobody was asked for before."""
    before = {trial.number: trial.state for trial in looked.trials}
    return any(
        trial.state in (TrialState.PROPOSED, TrialState.STOPPING) and before.get(trial.number) is not trial.state
        for trial in decided.trials
    )


def _proof_of_conformance(client: Callable[[str], Any]) -> Launcher[SweepSpec]:
    """Have mypy check the protocol."""
    return SweepLauncher(client)
