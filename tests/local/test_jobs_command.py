"""`dlaws jobs list|stop` as a user types it, against the local AWS; the Airflow here gives the answers a test orders.

What a real Airflow says is tested in tests/airflow/test_orphans.py.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from airflow_answers import Answers, answering
from job_spec import spec, write_scripts
from running_task import aws_environment
from service_queue import service_queue

from airflow_dlaws.cli import main
from airflow_dlaws.jobs.identity import TaskIdentity
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.queue import BatchQueue
from airflow_dlaws.launchers.batch import BatchLauncher
from airflow_dlaws.launchers.sagemaker import SageMakerLauncher
from airflow_dlaws.local.airflow_api import wait_until
from airflow_dlaws.local.process import LocalAws


@pytest.fixture
def airflow() -> Iterator[tuple[str, Answers]]:
    """An Airflow of this test."""
    with answering() as served:
        yield served


class Jobs:
    """Running jobs of tasks of one Airflow, each task with a name of its own."""

    def __init__(self, aws: LocalAws, source: Path, bucket: str, deployment: str) -> None:
        self._spec, self._deployment = spec(source, bucket, "forever.py"), deployment
        self.launcher, self.batch = SageMakerLauncher(aws.client), BatchLauncher(aws.client)
        self.dag_id = f"dag-{uuid.uuid4().hex[:8]}"
        self.references: list[Any] = []

    def start(self, task_id: str, *, queue: str | None = None, **changes: Any) -> tuple[str, str]:
        """Start a job, or queue it with Batch; return its name and the path under which Airflow tells of its task."""
        fields = {"dag_id": self.dag_id, "run_id": "r", "task_id": task_id, "deployment": self._deployment, **changes}
        what = replace(self._spec, job_queue=BatchQueue(name=queue)) if queue else self._spec
        launcher = self.batch if queue else self.launcher
        reference = launcher.submit(what, TaskIdentity(**fields)).reference
        self.references.append(reference)
        return reference.name, f"/api/v2/dags/{fields['dag_id']}/dagRuns/r/taskInstances/{task_id}"

    def phase(self, name: str) -> str:
        """Return how a job stands."""
        return str(self.launcher.description(name)["TrainingJobStatus"])


@pytest.fixture
def jobs(
    local_aws: LocalAws, bucket: str, tmp_path: Path, airflow: tuple[str, Answers], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Jobs]:
    """Jobs that are stopped after the test."""
    aws_environment(monkeypatch, local_aws)
    local_aws.client("s3").put_object(Bucket=bucket, Key="data/x", Body=b"x")
    running = Jobs(local_aws, write_scripts(tmp_path / "code"), bucket, airflow[0])
    yield running
    for reference in running.references:
        (running.batch if reference.engine == "batch" else running.launcher).stop(reference)


def dlaws(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any, str]:
    """Run the command with --json; return status, document and what it complained about."""
    status = main(["jobs", *words, "--json"])
    told = capsys.readouterr()
    return status, json.loads(told.out) if told.out else None, told.err


def rows(document: Any) -> dict[str, dict[str, Any]]:
    """Return the rows by the name of the job."""
    return {row["name"]: row for row in document["jobs"]}


def test_list_shows_task_state_machines_and_cost(jobs: Jobs, capsys: pytest.CaptureFixture[str]) -> None:
    name, _ = jobs.start("train", map_index=3)
    status, document, _ = dlaws(capsys, "list", "--dag", jobs.dag_id)
    assert status == 0
    (row,) = document["jobs"]
    assert (row["name"], row["kind"], row["task_id"], row["map_index"]) == (name, "training", "train", 3)
    assert (row["state"], row["machines"]) == ("running", "1 x ml.m5.large")
    assert dlaws(capsys, "list", "--dag", jobs.dag_id, "--task", "other")[1] == {"jobs": []}
    assert dlaws(capsys, "list", "--dag", jobs.dag_id, "--state", "failed")[1] == {"jobs": []}
    main(["jobs", "list", "--dag", jobs.dag_id])
    table = capsys.readouterr().out
    assert f"{jobs.dag_id}.train[3]" in table
    assert "1 x ml.m5.large" in table


def test_jobs_are_found_where_the_tagging_api_may_not_be_asked(
    jobs: Jobs, local_aws: LocalAws, capsys: pytest.CaptureFixture[str]
) -> None:
    name, _ = jobs.start("train")
    local_aws.order_fault(kind="error", target="GetResources", code="AccessDeniedException", message="no")
    try:
        assert list(rows(dlaws(capsys, "list", "--dag", jobs.dag_id)[1])) == [name]
    finally:
        local_aws.clear_faults()


def test_only_what_no_task_owns_is_stopped(
    jobs: Jobs, airflow: tuple[str, Answers], capsys: pytest.CaptureFixture[str]
) -> None:
    url, answers = airflow
    retrying, path = jobs.start("retrying", clear_marker=2)
    answers.by_path[path] = (200, {"state": "up_for_retry", "max_tries": 2})
    failed, path = jobs.start("failed", clear_marker=2)
    answers.by_path[path] = (200, {"state": "failed", "max_tries": 2})
    cleared, path = jobs.start("cleared", clear_marker=2)
    answers.by_path[path] = (200, {"state": "running", "max_tries": 4})
    deleted, _ = jobs.start("deleted")
    elsewhere, _ = jobs.start("elsewhere", deployment="https://other.example.com")
    strange, path = jobs.start("strange")
    answers.by_path[path] = (200, {"state": "hibernating", "max_tries": 0})
    asked = ("--orphans", "--dag", jobs.dag_id, "--airflow-url", url, "--deployment", url)

    assert dlaws(capsys, "list", *asked)[1]["verdicts"]["young"] == 5
    asked = (*asked, "--older-than", "0s")
    status, document, _ = dlaws(capsys, "list", *asked)
    verdicts = {name: row["verdict"] for name, row in rows(document).items()}
    assert verdicts == {failed: "orphan", cleared: "orphan", deleted: "orphan", strange: "unknown"}
    assert status == 3  # `strange` cannot be told
    status, _, complaint = dlaws(capsys, "stop", *asked)
    assert (status, jobs.phase(failed)) == (1, "InProgress")
    assert "give --yes" in complaint
    status, document, _ = dlaws(capsys, "stop", *asked, "--yes")
    assert status == 3
    assert {name for name, row in rows(document).items() if row.get("done") == "stopped"} == {failed, cleared, deleted}
    for name in (retrying, elsewhere, strange):
        assert jobs.phase(name) == "InProgress"
    for name in (failed, cleared, deleted):
        assert jobs.phase(name) in ("Stopping", "Stopped")


def test_a_job_that_ends_with_its_task_while_airflow_is_asked_is_no_orphan(
    jobs: Jobs, airflow: tuple[str, Answers], capsys: pytest.CaptureFixture[str]
) -> None:
    url, answers = airflow
    name, path = jobs.start("train")

    def end_with_the_task() -> tuple[int, Any]:
        jobs.launcher.stop(jobs.references[0])
        wait_until(lambda: jobs.phase(name) == "Stopped", limit_s=60, what=f"{name} has ended")
        return 200, {"state": "success", "max_tries": 0}

    answers.by_path[path] = end_with_the_task
    asked = ("--orphans", "--dag", jobs.dag_id, "--airflow-url", url, "--deployment", url, "--older-than", "0s")
    status, document, _ = dlaws(capsys, "list", *asked)
    assert (status, document["jobs"]) == (0, [])


@pytest.mark.parametrize(
    "answer",
    [
        (404, {"detail": "Not Found"}),
        (404, "<html>no such page</html>"),
        (404, {"detail": "The requested URL was not found on the server.", "title": "Not Found", "status": 404}),
        (200, "<html>log in</html>"),
        (403, {"detail": "Forbidden"}),
        (503, "busy"),
        (500, {"detail": "boom"}),
    ],
    ids=["other 404", "proxy's 404", "another program's 404", "login page", "forbidden", "unavailable", "broken"],
)
def test_an_airflow_that_does_not_say_makes_no_orphans(
    jobs: Jobs, airflow: tuple[str, Answers], capsys: pytest.CaptureFixture[str], answer: tuple[int, Any]
) -> None:
    url, answers = airflow
    name, _ = jobs.start("train")
    answers.otherwise = answer
    status, document, complaint = dlaws(
        capsys,
        "stop",
        "--orphans",
        "--yes",
        "--older-than",
        "0s",
        "--dag",
        jobs.dag_id,
        "--airflow-url",
        url,
        "--deployment",
        url,
    )
    assert (status, document) == (1, None)
    assert url in complaint
    assert jobs.phase(name) == "InProgress"


def test_what_was_stopped_before_airflow_went_away_is_told(
    jobs: Jobs, airflow: tuple[str, Answers], capsys: pytest.CaptureFixture[str]
) -> None:
    url, answers = airflow
    failed = (200, {"state": "failed", "max_tries": 0})
    stopped, path = jobs.start("first")
    answers.by_path[path] = failed
    left, path = jobs.start("second")
    said = iter([failed])
    answers.by_path[path] = lambda: next(said, (503, "busy"))
    asked = (
        "--orphans",
        "--yes",
        "--older-than",
        "0s",
        "--dag",
        jobs.dag_id,
        "--airflow-url",
        url,
        "--deployment",
        url,
    )
    status, document, _ = dlaws(capsys, "stop", *asked)
    assert status == 3
    done = {name: (row["verdict"], row["done"]) for name, row in rows(document).items()}
    assert done == {stopped: ("orphan", "stopped"), left: ("unknown", "left running")}
    assert jobs.phase(left) == "InProgress"


def test_an_airflow_without_its_database_is_not_believed(
    jobs: Jobs, airflow: tuple[str, Answers], capsys: pytest.CaptureFixture[str]
) -> None:
    url, answers = airflow
    jobs.start("train")
    answers.by_path["/api/v2/monitor/health"] = (200, {"metadatabase": {"status": "unhealthy"}})
    status, _, complaint = dlaws(capsys, "list", "--orphans", "--airflow-url", url)
    assert status == 1
    assert "not healthy" in complaint


def test_the_jobs_of_whoever_calls_himself_localhost_are_not_judged_unasked(
    jobs: Jobs, airflow: tuple[str, Answers], capsys: pytest.CaptureFixture[str]
) -> None:
    name, _ = jobs.start("train")  # of a colleague's Airflow: mine, of the same address, knows no such run
    asked = ("--orphans", "--dag", jobs.dag_id, "--airflow-url", airflow[0], "--older-than", "0s")
    status, document, _ = dlaws(capsys, "stop", *asked, "--yes")
    assert (status, document["verdicts"]["unknown"], document["verdicts"]["orphan"]) == (3, 1, 0)
    assert jobs.phase(name) == "InProgress"


def test_nothing_to_ask_is_an_error(jobs: Jobs, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, complaint = dlaws(capsys, "list", "--orphans", "--deployment", "x")
    assert status == 1
    assert "--airflow-url" in complaint
    status, _, complaint = dlaws(
        capsys, "list", "--orphans", "--airflow-url", "http://127.0.0.1:9", "--deployment", "x"
    )
    assert status == 1
    assert "cannot be asked" in complaint


def test_jobs_are_stopped_by_name_all_or_none(jobs: Jobs, capsys: pytest.CaptureFixture[str]) -> None:
    name, _ = jobs.start("train")
    status, _, complaint = dlaws(capsys, "stop", name, "no-such-job", "--yes")
    assert (status, jobs.phase(name)) == (1, "InProgress")
    assert "no-such-job" in complaint
    status, document, _ = dlaws(capsys, "stop", name, "--yes")
    assert (status, rows(document)[name]["done"]) == (0, "stopped")
    assert jobs.phase(name) in ("Stopping", "Stopped")


def test_a_job_in_a_queue_of_batch_is_one_row_whether_it_waits_or_trains(
    jobs: Jobs, local_aws: LocalAws, capsys: pytest.CaptureFixture[str]
) -> None:
    queue = f"queue-{jobs.dag_id}"
    service_queue(local_aws, queue)
    names = [jobs.start(f"train-{number}", queue=queue)[0] for number in range(5)]  # there is room for four
    pages = local_aws.client("sagemaker").get_paginator("list_training_jobs")
    named = jobs.batch.log_prefix(jobs.references[0])

    def is_training() -> bool:
        return bool(list(pages.paginate(NameContains=named).search("TrainingJobSummaries[]")))

    wait_until(is_training, limit_s=60, what="a service job has become a training job")
    found = rows(dlaws(capsys, "list", "--dag", jobs.dag_id)[1])
    assert sorted(found) == sorted(names)
    assert {row["kind"] for row in found.values()} == {"queued"}
    assert {row["machines"] for row in found.values()} == {"1 x ml.m5.large"}
    assert found[names[4]]["state"] == "pending"
    assert list(rows(dlaws(capsys, "list", "--dag", jobs.dag_id, "--state", "pending")[1]))[-1] == names[4]
    status, document, _ = dlaws(capsys, "stop", names[4], "--yes")
    assert (status, rows(document)[names[4]]["done"]) == (0, "stopped")


def test_queued_jobs_that_no_task_owns_are_stopped(
    jobs: Jobs, local_aws: LocalAws, airflow: tuple[str, Answers], capsys: pytest.CaptureFixture[str]
) -> None:
    url, answers = airflow
    queue = f"queue-{jobs.dag_id}"
    service_queue(local_aws, queue)
    owned, path = jobs.start("owned", queue=queue)
    answers.by_path[path] = (200, {"state": "deferred", "max_tries": 0})
    gone, _ = jobs.start("gone", queue=queue)
    asked = ("--orphans", "--dag", jobs.dag_id, "--airflow-url", url, "--deployment", url, "--older-than", "0s")
    # While a training job is seen and not yet the service job that has become it, its owner cannot be told.
    wait_until(lambda: dlaws(capsys, "list", *asked)[0] == 0, limit_s=60, what="all jobs are judged")
    status, document, _ = dlaws(capsys, "stop", *asked, "--yes")
    assert (status, {name: row.get("done") for name, row in rows(document).items()}) == (0, {gone: "stopped"})
    phases = {reference.name: jobs.batch.describe(reference).phase for reference in jobs.references}
    assert phases[owned] in (JobPhase.PENDING, JobPhase.RUNNING)
    assert phases[gone] in (JobPhase.STOPPING, JobPhase.STOPPED)


def test_where_batch_may_not_be_asked_the_command_says_so(
    jobs: Jobs, local_aws: LocalAws, capsys: pytest.CaptureFixture[str]
) -> None:
    name, _ = jobs.start("train")
    local_aws.order_fault(kind="error", target="DescribeJobQueues", code="AccessDeniedException", message="not yours")
    try:
        status, document, complaint = dlaws(capsys, "list", "--dag", jobs.dag_id)
    finally:
        local_aws.clear_faults()
    assert (status, list(rows(document))) == (0, [name])
    assert "AWS Batch are left out" in complaint
    assert "not yours" in complaint
