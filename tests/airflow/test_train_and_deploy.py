"""`train_and_deploy` in a real Airflow: a person's word, promotion, rollback, abort, two runs on one endpoint.

The months are a quarter of the real ones, and AWS's waits take a twentieth of their time: a bake of 600 s is one of 30.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_dlaws.cli import main
from airflow_dlaws.launchers.rollout_store import RolloutFolder
from airflow_dlaws.local.airflow_api import ENDED, wait_until
from airflow_dlaws.local.airflow_stack import LocalAirflow
from airflow_dlaws.local.demo import flights
from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.local.scheduler_log import wait_until_heard
from airflow_dlaws.rollout.report import RolloutRecord
from airflow_dlaws.rollout.state import Cause, Step
from airflow_dlaws.storage import ObjectStore

ROOT = Path(__file__).parent.parent.parent
DAG, BUCKET, ENDPOINT = "train_and_deploy", "train-and-deploy", "flights-by-hand"
#: The same rows and seed train every model here: with a margin the new one is "not worse".
FORM = {
    "bucket": BUCKET,
    "endpoint_name": ENDPOINT,
    "train_months": 1,
    "instance_count": 1,
    "epochs": 10,
    "margin": 0.1,
    "canary_percent": 50,
}
#: What a careless hand does to the handler: JSON numbers are no text any more. The evaluation sends CSV.
SLIP = ('"" if value is None else str(value)', "value")
WAITING = {"awaiting_input", "deferred"}

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(600)]


def version(package_arn: str) -> int:
    """Return the number of a model package's version."""
    return int(package_arn.rpartition("/")[2])


class Traffic:
    """Single flights as CSV and as JSON, in turns, 20 a second, until stopped; counts what failed."""

    def __init__(self, aws: LocalAws, rows: list[str]) -> None:
        self.sent = self.failed = 0
        self._runtime, self._rows, self._stop = aws.client("sagemaker-runtime"), rows, threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _send(self) -> None:
        while not self._stop.wait(0.05):
            row = self._rows[self.sent % len(self._rows)]
            kind, body = ("text/csv", row) if self.sent % 2 else ("application/json", as_json(row))
            self.sent += 1
            try:
                self._runtime.invoke_endpoint(EndpointName=ENDPOINT, ContentType=kind, Body=body)["Body"].read()
            except self._runtime.exceptions.ClientError:
                self.failed += 1


def as_json(row: str) -> str:
    """Return a row of CSV as a client with typed values sends it."""
    values: list[Any] = []
    for text in row.split(","):
        try:
            values.append(float(text) if "." in text else int(text))
        except ValueError:
            values.append(text or None)
    return json.dumps({"instances": [values]})


class Pipeline:
    """Runs of the DAG on one endpoint, and what AWS says of it."""

    def __init__(self, airflow: LocalAirflow, aws: LocalAws) -> None:
        self._airflow, self.api, self.aws = airflow, airflow.api, aws
        self.s3, self.sagemaker = aws.client("s3"), aws.client("sagemaker")
        #: What the first run asked.
        self.question: dict[str, Any] = {}
        self.s3.create_bucket(Bucket=BUCKET)
        self.s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        files = flights.monthly_files(ROOT / ".dlaws/cache")
        for month in flights.MONTHS[:2]:
            head, *rows = files[month].read_text().splitlines()
            body = "\n".join([head, *rows[::4]]) + "\n"
            self.s3.put_object(Bucket=BUCKET, Key=f"flights/month={month}/flights.csv", Body=body.encode())
        self.rows = [row.partition(",")[2] for row in rows[:400]]
        self.api.wait_for_dags({DAG}, limit_s=60)
        self.api.unpause(DAG)

    def start(self, **form: Any) -> str:
        return self.api.trigger(DAG, {**FORM, **form})

    def wait_for(self, run_id: str, task: str, states: set[str], limit_s: float = 120) -> None:
        """Wait until a task is in one of these states; fail where it ends in another."""

        def arrived() -> bool:
            state = self.api.task_state(DAG, run_id, task)
            assert state in states or state not in ENDED, f"{task} is {state}\n{self.why(run_id)}"
            return state in states

        wait_until(arrived, limit_s=limit_s, what=f"{task} of {run_id} is one of {states}")

    def wait_for_question(self, run_id: str) -> None:
        """Wait until a person is asked."""
        self.wait_for(run_id, "approve", WAITING)
        wait_until_heard(self._airflow, DAG, run_id, "approve")

    def wait(self, run_id: str, expected: str, limit_s: float = 180) -> None:
        assert self.api.wait_for_run(DAG, run_id, limit_s=limit_s) == expected, self.why(run_id)

    def why(self, run_id: str) -> str:
        """Return the end of the log of each task that did not succeed."""
        rows = [row for row in self.api.task_rows(DAG, run_id) if row["state"] in ("failed", "skipped")]
        return "\n".join(self.api.log(DAG, run_id, row["task_id"], row["try_number"])[-3000:] for row in rows)

    def result(self, run_id: str, task: str) -> Any:
        return self.api.xcom(DAG, run_id, task)

    def approve_in_the_registry(self, run_id: str) -> None:
        self.sagemaker.update_model_package(
            ModelPackageArn=self.result(run_id, "register")["package_arn"],
            ModelApprovalStatus="Approved",
            ApprovalDescription="approved in Studio",
        )

    def live(self) -> str:
        """Return the configuration in service; fail if the endpoint is doing anything else."""
        answer = self.sagemaker.describe_endpoint(EndpointName=ENDPOINT)
        assert answer["EndpointStatus"] == "InService", answer
        assert not answer.get("PendingDeploymentSummary"), answer
        return str(answer["EndpointConfigName"])

    def records(self) -> list[RolloutRecord]:
        return RolloutFolder(ObjectStore(self.s3), f"s3://{BUCKET}", ENDPOINT).records()

    def shifts(self) -> bool:
        """Tell whether green has traffic, and has answered some."""
        last = self.records()[-1].state
        return last.step is Step.SHIFTING and last.evidence.green_requests > 0


@pytest.fixture(scope="module")
def pipeline(airflow: LocalAirflow, local_aws: LocalAws) -> Pipeline:
    return Pipeline(airflow, local_aws)


@pytest.fixture(scope="module")
def served(pipeline: Pipeline) -> str:
    """Bring the first model into service: a run that somebody approves by Airflow's REST API. Return its id."""
    run_id = pipeline.start()
    pipeline.wait_for_question(run_id)
    pipeline.question = pipeline.api.question(DAG, run_id, "approve")
    pipeline.api.answer(DAG, run_id, "approve", "Approve", {"why": "the first one"})
    pipeline.wait(run_id, "success")
    return run_id


@pytest.fixture
def traffic(pipeline: Pipeline, served: str) -> Iterator[Traffic]:
    with Traffic(pipeline.aws, pipeline.rows) as sending:
        yield sending


def test_a_person_is_shown_the_evidence_and_the_registry_keeps_who_approved_and_why(
    pipeline: Pipeline, served: str
) -> None:
    package = pipeline.result(served, "register")["package_arn"]
    question = pipeline.question
    assert question["subject"] == f"Deploy flight-delays, version {version(package)}?"
    assert "| Log loss |" in question["body"]
    assert package in question["body"]
    assert f"| Rollout | canary, 50 %, 600 s, on {ENDPOINT} |" in question["body"]

    approval = pipeline.result(served, "approve")
    by = pipeline.api.question(DAG, served, "approve")["responded_by_user"]["name"]
    assert (approval["status"], approval["decided_by"], approval["why"]) == ("Approved", by, "the first one")
    kept = pipeline.sagemaker.describe_model_package(ModelPackageName=package)
    assert kept["ModelApprovalStatus"] == "Approved"
    assert kept["ApprovalDescription"].startswith(f"Approved by {by} in Airflow at ")
    assert kept["ApprovalDescription"].endswith(": the first one")

    rollout = pipeline.result(served, "roll_out")
    assert rollout["approval"] == kept["ApprovalDescription"]
    assert rollout["endpoint_config_name"] == pipeline.live()


def test_an_aborted_canary_is_red_and_the_old_model_in_service(
    pipeline: Pipeline, served: str, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pipeline.live()
    for name, value in pipeline.aws.environment().items():
        monkeypatch.setenv(name, value)
    rollouts = len(pipeline.records())
    # Cleared, the task rolls the same package out once more; what comes before it need not be done again.
    pipeline.api.clear(DAG, served, "roll_out")
    wait_until(lambda: len(pipeline.records()) > rollouts and pipeline.shifts(), limit_s=120, what="the canary bakes")
    assert main(["rollout", "abort", ENDPOINT, "--state", f"s3://{BUCKET}", "--why", "wrong months"]) == 0
    pipeline.wait(served, "failed")
    assert pipeline.api.task_state(DAG, served, "roll_out") == "failed"
    assert pipeline.api.tasks(DAG, served)["roll_out"]["try_number"] == 2  # nobody tries again
    assert "asked to abort this rollout: wrong months" in pipeline.why(served)
    assert pipeline.live() == before
    assert traffic.failed == 0


def test_two_runs_at_once_are_promoted_one_after_the_other(pipeline: Pipeline, traffic: Traffic) -> None:
    rollouts, runs = len(pipeline.records()), [pipeline.start(), pipeline.start()]
    for run_id in runs:
        pipeline.wait_for_question(run_id)
    # Either may have registered first, and an older model is not rolled out over a newer one.
    first, second = sorted(runs, key=lambda run_id: version(pipeline.result(run_id, "register")["package_arn"]))
    pipeline.api.answer(DAG, first, "approve", "Approve", {})
    wait_until(lambda: len(pipeline.records()) > rollouts, limit_s=60, what="the first rollout is under way")
    pipeline.approve_in_the_registry(second)
    pipeline.wait(first, "success")
    pipeline.wait(second, "success")
    assert traffic.failed == 0
    assert pipeline.live() == pipeline.result(second, "roll_out")["endpoint_config_name"]
    assert pipeline.result(second, "approve")["through"] == "registry"

    before, after = (record.state for record in pipeline.records()[-2:])
    assert before.requested_config == pipeline.result(first, "roll_out")["endpoint_config_name"]
    assert after.previous_config == before.requested_config
    assert after.updated_at is not None
    assert pipeline.records()[-2].looks[-1].at <= after.updated_at


def test_a_model_that_fails_on_real_requests_is_red_with_the_numbers_and_the_old_one_in_service(
    pipeline: Pipeline, served: str, traffic: Traffic, training_scripts: Path
) -> None:
    before = pipeline.live()
    handler = training_scripts / "flight_delays" / "inference.py"
    good = handler.read_text()
    assert SLIP[0] in good
    handler.write_text(good.replace(*SLIP))
    try:
        run_id = pipeline.start(approval="automatic")
        pipeline.wait(run_id, "failed", limit_s=300)
    finally:
        handler.write_text(good)
    states = {name: row["state"] for name, row in pipeline.api.tasks(DAG, run_id).items()}
    assert states.pop("roll_out") == "failed"
    assert set(states.values()) == {"success"}
    state = pipeline.records()[-1].state
    assert (state.step, state.cause) == (Step.ROLLED_BACK, Cause.HARM)
    seen = state.evidence
    assert f"green had failed {seen.green_errors} of {seen.green_requests} requests" in pipeline.why(run_id)
    assert seen.green_errors > 0
    assert pipeline.live() == before
    assert 0 < traffic.failed < traffic.sent / 4
