"""What every launcher must do: one task, one job. Each engine runs this class against the real thing, or our local one.

An engine's test class gives the fixtures

    launcher        the launcher
    spec            makes specifications by script of `job_spec` (the channel `train` holds two files of one row each)
    count_jobs      how many jobs of a task the engine has ever had
    dying           a launcher whose process is killed when the engine has just taken the job
    taken_name      makes the job of a reference look as if it had been made from something else
    impossible      pairs of changes to a specification that cannot work, and what is said about them
"""

from __future__ import annotations

import dataclasses
import json
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import job_spec
import pytest

from airflow_dlaws.errors import IdentityConflict, JobFailed, NoSuchJob, SpecificationError
from airflow_dlaws.jobs.identity import TaskIdentity
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.reference import JobReference, JobStatus
from airflow_dlaws.jobs.wire import from_json, to_json
from airflow_dlaws.launchers.protocol import Asking, Collecting, Held, Launcher, LogCursor, Noting

Specs = Callable[..., Any]
Count = Callable[[TaskIdentity], int]
#: How many processes may come upon the same task at once: schedulers that disagree, workers that were thought dead.
CROWD = 12
LINES = 400


class Killed(BaseException):
    """The submitting process is gone."""


def wait_for(launcher: Launcher[Any], reference: JobReference, reached: Callable[[JobStatus], bool]) -> JobStatus:
    """Poll until the job's status is as wanted."""
    until = time.monotonic() + 60
    while not reached(status := launcher.describe(reference)):
        assert time.monotonic() < until, f"still {status}: {launcher.log_tail(reference, 20)}"
        time.sleep(0.05)
    return status


def ended(status: JobStatus) -> bool:
    return status.terminal


def any_task(**changes: Any) -> TaskIdentity:
    """Return a task nobody else has."""
    return TaskIdentity(**{"dag_id": "dag", "run_id": uuid.uuid4().hex, "task_id": "train", **changes})


def read_on(launcher: Launcher[Any], reference: JobReference, cursor: LogCursor) -> tuple[tuple[str, ...], LogCursor]:
    """Read what is new in the log, from a cursor that has crossed a process boundary."""
    page = launcher.log_lines(reference, from_json(LogCursor, json.loads(json.dumps(to_json(cursor)))))
    return page.lines, page.cursor


class LauncherContract:
    """One task, one job, whatever happens; and what is told about it."""

    def test_a_job_runs_to_its_end_and_leaves_what_it_should(self, launcher: Launcher[Any], spec: Specs) -> None:
        submission = launcher.submit(spec(hyperparameters={"epochs": 2}, metrics=("rows",)), any_task())
        assert (submission.adopted, submission.attempt) == (False, 1)
        assert not submission.status.terminal
        status = wait_for(launcher, submission.reference, ended)
        assert status.phase is JobPhase.SUCCEEDED, status
        if isinstance(launcher, Collecting):
            status = launcher.collect(submission.reference, status)
            assert launcher.describe(submission.reference) == status
        assert status.metrics == {"rows": 2.0}
        assert status.artifact_uri is not None
        assert status.created_at is not None
        assert status.started_at is not None
        assert status.ended_at is not None
        assert status.billable_seconds >= 0
        lines = launcher.log_lines(submission.reference, LogCursor()).lines
        assert "[algo-1] arguments ['--epochs', '2']" in lines

    def test_a_retry_adopts_the_running_job_and_then_the_finished_one(
        self, launcher: Launcher[Any], spec: Specs, count_jobs: Count
    ) -> None:
        task = any_task()
        first = launcher.submit(spec(), task)
        again = launcher.submit(spec(), task)
        assert (again.adopted, again.reference) == (True, first.reference)
        wait_for(launcher, first.reference, ended)
        last = launcher.submit(spec(), task)
        assert (last.adopted, last.reference, last.status.phase) == (True, first.reference, JobPhase.SUCCEEDED)
        assert count_jobs(task) == 1

    def test_who_has_adopted_a_job_last_is_known(self, launcher: Launcher[Any], spec: Specs) -> None:
        task = any_task()
        first, second = (launcher.submit(spec("forever.py"), task) for _ in range(2))
        assert isinstance(launcher, Held), "else a try that is killed late stops what another one waits for"
        assert launcher.holder(first.reference) == second.holder
        assert second.holder not in ("", first.holder)
        launcher.stop(first.reference)

    def test_a_crowd_that_submits_at_once_gets_one_job(
        self, launcher: Launcher[Any], spec: Specs, count_jobs: Count
    ) -> None:
        task, wanted = any_task(), spec("forever.py")
        with ThreadPoolExecutor(CROWD) as crowd:
            submissions = list(crowd.map(lambda _: launcher.submit(wanted, task), range(CROWD)))
        assert len({submission.reference for submission in submissions}) == 1
        assert sum(not submission.adopted for submission in submissions) == 1
        assert count_jobs(task) == 1
        launcher.stop(submissions[0].reference)

    def test_a_job_whose_submitter_was_killed_is_found_by_the_next(
        self, launcher: Launcher[Any], dying: Launcher[Any], spec: Specs, count_jobs: Count
    ) -> None:
        task, wanted = any_task(), spec("forever.py")
        with pytest.raises(Killed):
            dying.submit(wanted, task)
        found = launcher.submit(wanted, task)
        assert (found.adopted, found.attempt, count_jobs(task)) == (True, 1, 1)
        launcher.stop(found.reference)

    def test_who_is_killed_over_a_submission_knows_what_to_stop(
        self, launcher: Launcher[Any], dying: Launcher[Any], spec: Specs
    ) -> None:
        with pytest.raises(Killed):
            dying.submit(spec("forever.py"), any_task())
        assert isinstance(dying, Asking)
        assert isinstance(launcher, Held)
        assert dying.asked_for is not None
        job = dying.asked_for
        assert launcher.holder(job.reference) in ("", job.holder)
        assert launcher.stop(job.reference)

    def test_a_last_try_that_finds_no_job_of_its_own_stops_what_was_noted(
        self, launcher: Launcher[Any], spec: Specs
    ) -> None:
        task, wanted = any_task(), spec("forever.py")
        first = launcher.submit(wanted, task)
        assert isinstance(launcher, Noting)
        assert launcher.stop_last(wanted.output_s3_uri, task)
        assert wait_for(launcher, first.reference, ended).phase is JobPhase.STOPPED
        assert launcher.stop_last(wanted.output_s3_uri, task) is None

    def test_a_reference_survives_a_process_boundary(self, launcher: Launcher[Any], spec: Specs) -> None:
        reference = launcher.submit(spec("forever.py"), any_task()).reference
        known = from_json(JobReference, json.loads(json.dumps(to_json(reference))))
        assert known == reference
        assert launcher.stop(known)
        assert wait_for(launcher, known, ended).phase is JobPhase.STOPPED

    def test_a_cleared_task_starts_another_job(self, launcher: Launcher[Any], spec: Specs) -> None:
        task = any_task()
        first = launcher.submit(spec(), task)
        wait_for(launcher, first.reference, ended)
        cleared = launcher.submit(spec(), dataclasses.replace(task, clear_marker=2))
        assert not cleared.adopted
        assert cleared.reference != first.reference
        assert wait_for(launcher, cleared.reference, ended).phase is JobPhase.SUCCEEDED
        assert launcher.describe(first.reference).phase is JobPhase.SUCCEEDED

    @pytest.mark.parametrize("stop_former", [True, False])
    def test_a_cleared_task_stops_the_job_of_its_former_life_unless_told_otherwise(
        self, launcher: Launcher[Any], spec: Specs, stop_former: bool
    ) -> None:
        task = any_task()
        first = launcher.submit(spec("forever.py"), task)
        launcher.submit(spec(), dataclasses.replace(task, clear_marker=2), stop_former=stop_former)
        status = launcher.describe(first.reference)
        assert (status.phase in {JobPhase.STOPPING, JobPhase.STOPPED}) is stop_former
        launcher.stop(first.reference)

    def test_a_stopped_job_is_stopped_and_the_next_try_starts_another(
        self, launcher: Launcher[Any], spec: Specs
    ) -> None:
        task = any_task()
        first = launcher.submit(spec("forever.py"), task)
        assert launcher.stop(first.reference)
        second = launcher.submit(spec("forever.py"), task)
        assert (second.adopted, second.attempt) == (False, 2)
        assert launcher.stop(second.reference)
        for submission in (first, second):
            assert wait_for(launcher, submission.reference, ended).phase is JobPhase.STOPPED

    def test_stopping_a_job_twice_and_after_its_end_is_no_error(self, launcher: Launcher[Any], spec: Specs) -> None:
        reference = launcher.submit(spec("forever.py"), any_task()).reference
        assert launcher.stop(reference)
        launcher.stop(reference)
        assert wait_for(launcher, reference, ended).phase is JobPhase.STOPPED
        assert launcher.stop(reference) is False
        assert launcher.describe(reference).phase is JobPhase.STOPPED

    def test_many_jobs_are_described_at_once_and_those_that_are_not_there_left_out(
        self, launcher: Launcher[Any], spec: Specs
    ) -> None:
        good, bad, endless = (
            launcher.submit(spec(script), any_task()).reference for script in ("good.py", "raises.py", "forever.py")
        )
        strange = dataclasses.replace(good, name=f"{good.name[:-4]}none", arn=f"{good.arn[:-4]}none")
        for reference in (good, bad):
            wait_for(launcher, reference, ended)
        found = launcher.describe_many([good, strange, bad, endless])
        assert set(found) == {good, bad, endless}
        assert (found[good].phase, found[bad].phase) == (JobPhase.SUCCEEDED, JobPhase.FAILED)
        assert not found[endless].terminal
        assert launcher.describe_many([]) == {}
        with pytest.raises(NoSuchJob):
            launcher.describe(strange)
        launcher.stop(endless)

    def test_no_line_of_the_log_is_lost_or_repeated(self, launcher: Launcher[Any], spec: Specs) -> None:
        reference = launcher.submit(spec("talks.py", arguments=(str(LINES),)), any_task()).reference
        cursor, seen = LogCursor(), []
        until = time.monotonic() + 60
        while sum("line " in line for line in seen) < LINES or not launcher.describe(reference).terminal:
            assert time.monotonic() < until, seen[-3:]
            lines, cursor = read_on(launcher, reference, cursor)
            seen += lines
        seen += read_on(launcher, reference, cursor)[0]
        assert [line for line in seen if "line " in line] == [f"[algo-1] line {number} é" for number in range(LINES)]
        said = launcher.log_tail(reference, 3)
        assert len(said) == 3
        assert said[-1] == f"[algo-1] line {LINES - 1} é"

    def test_a_bug_is_not_paid_for_twice(self, launcher: Launcher[Any], spec: Specs, count_jobs: Count) -> None:
        task = any_task()
        submission = launcher.submit(spec("raises.py"), task)
        status = wait_for(launcher, submission.reference, ended)
        assert status.phase is JobPhase.FAILED
        assert "ValueError: label column is empty" in status.reason
        assert any("ValueError" in line for line in launcher.log_tail(submission.reference, 20))
        with pytest.raises(JobFailed, match="label column is empty") as failed:
            launcher.submit(spec("raises.py"), task)
        assert failed.value.permanent
        assert count_jobs(task) == 1

    def test_a_folder_that_changes_is_another_job_and_stops_the_first(
        self, launcher: Launcher[Any], spec: Specs
    ) -> None:
        task = any_task()
        first = launcher.submit(spec("forever.py"), task)
        Path(spec().source, "forever.py").write_text(job_spec.SCRIPTS["forever.py"] + "# changed\n")
        second = launcher.submit(spec("forever.py"), task)
        assert second.reference != first.reference
        assert launcher.describe(first.reference).phase in {JobPhase.STOPPING, JobPhase.STOPPED}
        launcher.stop(second.reference)

    def test_a_name_taken_by_something_else_is_a_conflict(
        self, launcher: Launcher[Any], spec: Specs, taken_name: Callable[[JobReference], None]
    ) -> None:
        task = any_task()
        submission = launcher.submit(spec("forever.py"), task)
        taken_name(submission.reference)
        with pytest.raises(IdentityConflict, match=submission.reference.name):
            launcher.submit(spec("forever.py"), task)
        launcher.stop(submission.reference)
        wait_for(launcher, submission.reference, ended)

    def test_what_cannot_work_is_refused_before_a_job_is_made(
        self,
        launcher: Launcher[Any],
        spec: Specs,
        count_jobs: Count,
        impossible: Sequence[tuple[dict[str, Any], str]],
    ) -> None:
        for change, words in impossible:
            task = any_task()
            with pytest.raises(SpecificationError, match=words):
                launcher.submit(spec(**change), task)
            assert count_jobs(task) == 0
