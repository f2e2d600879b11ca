"""Which running jobs nobody owns, and stopping those. Looks twice before it stops anything."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_dlaws.airflow_rest import AirflowTasks
from airflow_dlaws.errors import DlawsError
from airflow_dlaws.jobs.identity import TaskIdentity
from airflow_dlaws.jobs.ownership import Ownership, TaskAnswer, Verdict, before_asking, judge_ownership
from airflow_dlaws.launchers.found_job import FoundJob
from airflow_dlaws.launchers.found_jobs import JobFinder


@dataclass(frozen=True, kw_only=True)
class JudgedJob:
    """A job, whose it is, and what has been done about it ("", "stopped", "had ended", or an error)."""

    job: FoundJob
    ownership: Ownership
    done: str = ""


class Judge:
    """Judges jobs by what one Airflow says. A task instance is asked for once, for all the trials of its sweep.

    :param deployment: how that Airflow's jobs name it in their tags: its `[api] base_url`.
    :param grace: jobs younger than this are not judged.
    :param vouched: a person has named the deployment; see `before_asking`.
    """

    def __init__(self, tasks: AirflowTasks, *, deployment: str, grace: timedelta, vouched: bool) -> None:
        self._tasks, self._deployment, self._grace, self._vouched = tasks, deployment, grace, vouched
        self._answers: dict[TaskIdentity, TaskAnswer] = {}

    def judge(self, job: FoundJob, now: datetime) -> Ownership:
        """Say whose a job is.

        :raises ServiceUnavailable: or ServiceRefused; Airflow cannot be asked.
        """
        age = now - job.status.created_at if job.status.created_at else timedelta(0)
        early = before_asking(job.claim, age=age, grace=self._grace, deployment=self._deployment, vouched=self._vouched)
        if early is not None:
            return early
        assert job.claim is not None
        identity = job.claim.identity
        if identity not in self._answers:
            self._answers[identity] = self._tasks.ask(identity)
        return judge_ownership(job.claim, self._answers[identity])

    def forget(self) -> None:
        """Ask anew from now on."""
        self._answers.clear()


def judge_jobs(finder: JobFinder, judge: Judge, jobs: list[FoundJob], now: datetime) -> list[JudgedJob]:
    """Judge running jobs; one that has ended meanwhile is left out.

    Its task may have ended with it, after the list of running jobs was read and before Airflow was asked: it would pass
    for a job that runs on after its task.

    :raises ServiceUnavailable: or ServiceRefused; Airflow or AWS cannot be asked.
    """
    rows = [JudgedJob(job=job, ownership=judge.judge(job, now)) for job in jobs]
    return [row for row in rows if row.ownership.verdict is not Verdict.ORPHAN or finder.runs(row.job)]


def stop_orphans(finder: JobFinder, judge: Judge, orphans: list[JudgedJob], now: datetime) -> list[JudgedJob]:
    """Stop jobs that were judged orphans and still are; a tuner's jobs end with their tuner.

    Where Airflow cannot be asked any more, the rest is left running.
    """
    judge.forget()
    done: list[JudgedJob] = []
    for row in orphans:
        try:
            again = judge.judge(row.job, now)
        except DlawsError as error:  # what was stopped before must be told all the same
            unclear = Ownership(verdict=Verdict.UNKNOWN, reason=f"Airflow could not be asked again: {error}")
            left = [JudgedJob(job=each.job, ownership=unclear, done="left running") for each in orphans[len(done) :]]
            return [*done, *left]
        words = stop_job(finder, row.job) if again.verdict is Verdict.ORPHAN else "left running"
        done.append(JudgedJob(job=row.job, ownership=again, done=words))
    return done


def stop_job(finder: JobFinder, job: FoundJob) -> str:
    """Stop one job; return what came of it in words."""
    try:
        return "stopped" if finder.stop(job) else "had ended"
    except DlawsError as error:
        return f"error: {error}"
