"""Chaos against a real Airflow: kills at seeded moments, users' acts, and what a supervisor of services does then."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import psutil
from chaos_books import JobRecord, RoundBooks, TaskRecord, job_record, left_running

from airflow_dlaws.airflow_rest import AirflowTasks, RestDoor
from airflow_dlaws.commands.orphans import Judge, judge_jobs
from airflow_dlaws.errors import DlawsError
from airflow_dlaws.jobs.ownership import Verdict
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.launchers.artifact import holds_files
from airflow_dlaws.launchers.found_jobs import JobFinder
from airflow_dlaws.local.airflow_api import ENDED, wait_until
from airflow_dlaws.local.airflow_stack import LocalAirflow
from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.storage import S3Uri

DAG = "chaos_training"
TASKS = ("deferred", "waiting", "mapped")
#: Timeouts of Airflow that are minutes by default, so that a round takes less than one.
FAST_AIRFLOW = {
    "AIRFLOW__CORE__PARALLELISM": "5",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "12",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "12",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "5",
}
#: A round must have ended after this; it takes about 40 s.
ROUND_LIMIT_S = 180.0
#: A round that has not ended after this waits for a task that Airflow has lost.
STUCK_S = 75.0
#: A job whose task has ended must have been asked to stop after this.
STOP_LIMIT_S = 20.0
KILLS = ("task", "worker", "triggerer", "scheduler", "scheduler_and_workers")
ACTS = ("clear", "mark_failed", "mark_run_failed", "clear_later")
ALL_PHASES = (JobPhase.RUNNING, JobPhase.STOPPING, JobPhase.SUCCEEDED, JobPhase.FAILED, JobPhase.STOPPED)


@dataclass
class RoundReport:
    """What was done in a round, and what came of it."""

    seed: int
    kills: Counter[str] = field(default_factory=Counter)
    acts: Counter[str] = field(default_factory=Counter)
    story: list[str] = field(default_factory=list)
    jobs: int = 0
    green: int = 0
    red: int = 0
    #: Restarts of the scheduler because a task stayed queued.
    unstuck: int = 0
    stopped_as_orphans: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Chaos:
    """Rounds of chaos against one Airflow and the local AWS."""

    def __init__(self, airflow: LocalAirflow, aws: LocalAws) -> None:
        self._airflow, self._aws = airflow, aws
        self._sagemaker, self._s3 = aws.client("sagemaker"), aws.client("s3")
        self._finder = JobFinder(aws.client)
        #: Components that are down, and when (`time.monotonic`) a supervisor of services starts them again.
        self._down: dict[str, float] = {}

    def round(self, seed: int) -> RoundReport:
        """Run four training tasks, kill and act at random moments, and check the books."""
        dice, report, began = random.Random(seed), RoundReport(seed=seed), time.monotonic()
        started = datetime.now(UTC) - timedelta(seconds=1)
        if dice.random() < 0.3:
            self._aws.order_fault(kind="capacity", target="CreateTrainingJob", times=1)
            report.acts["capacity fault"] += 1
        run_id = self._asked(lambda: self._airflow.api.trigger(DAG))
        accused = self._storm(dice, report, run_id, began)
        self._settle(report, run_id, began)
        self._aws.clear_faults()
        self._audit(report, run_id, started, accused)
        report.seconds = round(time.monotonic() - began, 1)
        return report

    def _storm(self, dice: random.Random, report: RoundReport, run_id: str, began: float) -> set[str]:
        """Do what the dice say when they say it; return the jobs that were called orphans meanwhile."""
        plan = [(dice.uniform(1, 14), self._kill, kind) for kind in dice.sample(KILLS, dice.randint(1, 3))]
        if dice.random() < 0.5:
            plan.append((dice.uniform(3, 16), self._act, dice.choice(ACTS)))
        accused: set[str] = set()
        while plan or self._down:
            for component, due in list(self._down.items()):
                if time.monotonic() >= due:
                    self._airflow.start_component(component)
                    del self._down[component]
            due_now = [row for row in plan if time.monotonic() >= began + row[0]]
            for row in sorted(due_now, key=lambda row: row[0]):
                plan.remove(row)
                row[1](dice, report, run_id, row[2], began)
            accused |= self._accused()
            time.sleep(0.3)
        return accused

    def _kill(self, dice: random.Random, report: RoundReport, run_id: str, what: str, began: float) -> None:
        """Kill something with SIGKILL, and start it again as systemd or MWAA would."""
        down = dice.choice((0.0, 0.0, 2.0, 15.0))
        if what in ("task", "worker"):
            victims = self._task_processes(what)
            if not victims:
                report.story.append(f"{time.monotonic() - began:5.1f} no {what} runs")
                return
            with suppress(ProcessLookupError):
                os.kill(dice.choice(victims), signal.SIGKILL)
        elif what == "triggerer":
            self._airflow.kill_component("triggerer")
        elif "scheduler" in self._down:
            return
        elif what == "scheduler":
            self._airflow.kill_leader("scheduler")
        else:
            self._airflow.kill_component("scheduler")
        report.kills[what] += 1
        report.story.append(f"{time.monotonic() - began:5.1f} killed {what}, down {down:.0f} s")
        if what not in ("task", "worker"):
            self._down["triggerer" if what == "triggerer" else "scheduler"] = time.monotonic() + down

    def _act(self, dice: random.Random, report: RoundReport, run_id: str, what: str, began: float) -> None:
        """Do what people do in the UI."""
        api, task = self._airflow.api, dice.choice(TASKS)
        if what == "mark_run_failed":
            self._asked(lambda: api.call("PATCH", f"/dags/{DAG}/dagRuns/{quote(run_id)}", {"state": "failed"}))
        elif what == "mark_failed":
            index = "/0" if task == "mapped" else ""
            path = f"/dags/{DAG}/dagRuns/{quote(run_id)}/taskInstances/{task}{index}"
            self._asked(lambda: api.call("PATCH", path, {"new_state": "failed"}))
        else:
            self._asked(lambda: api.clear(DAG, run_id, task))
        report.acts[what] += 1
        report.story.append(f"{time.monotonic() - began:5.1f} {what} {task if 'run' not in what else ''}")

    def _settle(self, report: RoundReport, run_id: str, began: float) -> None:
        """Wait until the run has ended."""

        def ended() -> bool:
            with suppress(RuntimeError, OSError):  # the API answers 500 while SQLite is locked
                rows = self._airflow.api.task_rows(DAG, run_id)
                return self._airflow.api.run_state(DAG, run_id) in ENDED and all(row["state"] in ENDED for row in rows)
            return False

        def wait(until_s: float) -> None:
            wait_until(ended, limit_s=until_s - (time.monotonic() - began), what=f"{run_id} has ended")

        try:
            try:
                wait(STUCK_S)
            except TimeoutError:
                self._unstick(report, began)
                wait(ROUND_LIMIT_S)
        except TimeoutError as error:
            rows = self._airflow.api.task_rows(DAG, run_id)
            states = [(row["task_id"], row["map_index"], row["state"], row["try_number"]) for row in rows]
            report.violations.append(f"{error}: {states}")

    def _unstick(self, report: RoundReport, began: float) -> None:
        """Restart the scheduler, as whoever is on call does for a task that stays queued.

        What a LocalExecutor's worker has taken from the queue is lost with it (Airflow 3.3: it can revoke no task that
        is stuck in `queued`); a new scheduler queues the task again.
        """
        self._airflow.kill_component("scheduler")
        self._airflow.start_component("scheduler")
        report.unstuck += 1
        report.story.append(f"{time.monotonic() - began:5.1f} restarted the scheduler: the run had not ended")

    def _audit(self, report: RoundReport, run_id: str, started: datetime, accused: set[str]) -> None:
        """Compare the books."""
        try:
            wait_until(lambda: not self._left(run_id, started), limit_s=STOP_LIMIT_S, what="no job is left running")
        except TimeoutError:
            for job in self._left(run_id, started):
                report.stopped_as_orphans.append(f"{job}")
            self._stop_orphans(report)
        books = RoundBooks(self._jobs(run_id, started), self._tasks(run_id))
        books.artifacts = {task.artifact_uri for task in books.tasks if task.artifact_uri and self._there(task)}
        report.violations += books.violations()
        used = {task.job_name for task in books.tasks if task.state == "success"}
        report.violations += [f"job {name} was called an orphan and its task is green" for name in accused & used]
        report.jobs = len(books.jobs)
        report.green = sum(task.state == "success" for task in books.tasks)
        report.red = len(books.tasks) - report.green

    def _stop_orphans(self, report: RoundReport) -> None:
        """Let `dlaws jobs stop --orphans` do its work; what it leaves running is a violation."""
        judge = self._judge()
        for job in self._finder.find():
            if judge.judge(job, datetime.now(UTC)).verdict is Verdict.ORPHAN:
                self._finder.stop(job)
        if running := [job.reference.name for job in self._finder.find([JobPhase.RUNNING])]:
            report.violations.append(f"jobs run on after `dlaws jobs stop --orphans`: {running}")

    def _accused(self) -> set[str]:
        """Return the jobs that would be stopped as orphans now, without any grace."""
        with suppress(DlawsError):  # while Airflow cannot be asked nobody is accused
            judge, now = self._judge(), datetime.now(UTC)
            return {
                row.job.reference.name
                for row in judge_jobs(self._finder, judge, self._finder.find([JobPhase.RUNNING]), now)
                if row.ownership.verdict is Verdict.ORPHAN
            }
        return set()

    def _judge(self) -> Judge:
        url = self._airflow.url
        return Judge(AirflowTasks(RestDoor(url)), deployment=url, grace=timedelta(0), vouched=True)

    def _left(self, run_id: str, started: datetime) -> list[JobRecord]:
        return left_running(self._jobs(run_id, started), self._tasks(run_id))

    def _jobs(self, run_id: str, started: datetime) -> list[JobRecord]:
        jobs = [job for job in self._finder.find(ALL_PHASES, since=started) if job.tags["dlaws:run"] == run_id]
        describe = self._sagemaker.describe_training_job
        return [job_record(describe(TrainingJobName=job.reference.name), job.tags) for job in jobs]

    def _tasks(self, run_id: str) -> list[TaskRecord]:
        rows = self._asked(lambda: self._airflow.api.task_rows(DAG, run_id))
        return [self._task(run_id, row) for row in rows]

    def _task(self, run_id: str, row: dict[str, Any]) -> TaskRecord:
        result = self._result(run_id, row) if row["state"] == "success" else {}
        return TaskRecord(
            task=(run_id, row["task_id"], row["map_index"]),
            state=str(row["state"]),
            marker=row["max_tries"],
            artifact_uri=result.get("artifact_uri", ""),
            job_name=result.get("job_name", ""),
        )

    def _result(self, run_id: str, row: dict[str, Any]) -> dict[str, Any]:
        path = f"/dags/{DAG}/dagRuns/{quote(run_id)}/taskInstances/{row['task_id']}/xcomEntries/return_value"
        value = self._asked(
            lambda: self._airflow.api.call("GET", path, map_index=row["map_index"], deserialize=False)["value"]
        )
        return dict(json.loads(value) if isinstance(value, str) else value)

    def _there(self, task: TaskRecord) -> bool:
        return holds_files(self._s3, S3Uri.parse(task.artifact_uri))

    def _task_processes(self, what: str) -> list[int]:
        """Return the processes that run tasks, or the workers that supervise them."""
        pids = self._airflow.leaderless_members()
        if "scheduler" not in self._down:
            pids |= self._airflow.members("scheduler")
        found = []
        for pid in pids:
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                children = process.children()
                if "LocalExecutor" in " ".join(process.cmdline()) and children:
                    found += [child.pid for child in children] if what == "task" else [pid]
        return found

    def _asked(self, ask: Callable[[], Any]) -> Any:
        """Ask the API until it answers: with SQLite it says "locked" now and then, and it is restarted nowhere here."""
        answers: list[Any] = []

        def answered() -> bool:
            with suppress(RuntimeError, OSError):
                answers.append(ask())
            return bool(answers)

        wait_until(answered, limit_s=30, what="Airflow's API answers")
        return answers[0]
