"""The stack of docker-compose.yaml, started natively, runs the loop: Celery, Postgres, Redis, the local AWS."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import psutil
import pytest
from celery import Celery
from compose_file import ROOT, read_services, read_variables
from native_stack import NativeStack, missing_programs
from sqlalchemy import create_engine, text

from airflow_dlaws.local.airflow_api import AirflowApi, wait_until
from airflow_dlaws.local.clients import make_client

DAG = "retrain_on_drift"
WORKER = "celery@dlaws-worker"
#: The loop takes about a minute and a half on two cores of its own.
RUN_LIMIT_S = 360

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.slow,
    pytest.mark.timeout(RUN_LIMIT_S + 300),
    # CI installs them (.ci/run): there a skip would be a fault.
    pytest.mark.skipif(bool(missing_programs()) and "CI" not in os.environ, reason=missing_programs()),
]


@dataclass
class Loop:
    """The running stack, and the one run of the template DAG that all tests here look at."""

    stack: NativeStack
    variables: dict[str, str]
    run_id: str = ""
    state: str = ""

    @property
    def api(self) -> AirflowApi:
        """The REST API, for the user of the .env file."""
        return AirflowApi(self.url, login=("admin", self.variables["AIRFLOW_ADMIN_PASSWORD"]))

    @property
    def url(self) -> str:
        """Where the API server listens."""
        return f"http://127.0.0.1:{self.stack.translate.ports[8080]}"

    @property
    def settings(self) -> dict[str, str]:
        """What the worker is told."""
        return self.stack.environment(self.stack.services["airflow-worker"])

    def aws(self, service: str) -> Any:
        """Return a boto3 client of the stack's local AWS."""
        return make_client(f"http://127.0.0.1:{self.stack.translate.ports[4566]}", service)

    @cached_property
    def worker_totals(self) -> dict[str, int]:
        """What the Celery worker says it has run: task name and count."""
        app = Celery(broker=self.settings["AIRFLOW__CELERY__BROKER_URL"])
        (answer,) = app.control.inspect(timeout=20, limit=1).stats().items()
        assert answer[0] == WORKER
        return dict(answer[1]["total"])

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Ask Postgres."""
        engine = create_engine(self.settings["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query))]

    def why(self) -> str:
        """Return what failed, for a message."""
        tasks = self.api.tasks(DAG, self.run_id)
        failed = [name for name, row in tasks.items() if row["state"] == "failed"]
        logs = [self.api.log(DAG, self.run_id, name, tasks[name]["try_number"])[-3000:] for name in failed]
        states = {name: row["state"] for name, row in tasks.items()}
        return "\n".join([json.dumps(states), *logs, self.stack.tail("airflow-worker")])


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """Follow the installation page: make .env, start the stack, fill the bucket, trigger the DAG; then stop it all."""
    folder = tmp_path_factory.mktemp("stack")
    _run("scripts/compose_env.py", str(folder / ".env"))
    variables = read_variables((folder / ".env").read_text()) | {"DLAWS_POLL_SECONDS": "1"}
    stack = NativeStack(read_services(variables), folder)
    try:
        stack.start()
        loop = Loop(stack, variables)
        _fill(loop)
        loop.api.wait_for_dags({DAG}, limit_s=120)
        loop.api.unpause(DAG)
        loop.run_id = loop.api.trigger(DAG, {"epochs": 2})
        loop.state = loop.api.wait_for_run(DAG, loop.run_id, limit_s=RUN_LIMIT_S)
        yield loop
    finally:
        stack.stop()


def _fill(loop: Loop) -> None:
    endpoint = f"http://127.0.0.1:{loop.stack.translate.ports[4566]}"
    bucket = loop.settings["DLAWS_BUCKET"]
    cache = str(ROOT / ".dlaws/cache")
    _run("-m", "airflow_dlaws.local.demo.fill", "--bucket", bucket, "--endpoint-url", endpoint, "--cache", cache)


def _run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_health_check_of_the_file_succeeds_while_the_stack_runs(loop: Loop) -> None:
    checked = {name for name, service in loop.stack.services.items() if service.health}
    assert len(checked) == 8
    assert {name for name in checked if loop.stack.healthy(name)} == checked


def test_the_run_is_green_and_the_endpoint_serves_the_model_it_trained(loop: Loop) -> None:
    assert loop.state == "success", loop.why()
    trained = loop.api.xcom(DAG, loop.run_id, "train")["artifact_uri"]
    sagemaker = loop.aws("sagemaker")
    endpoint = sagemaker.describe_endpoint(EndpointName=loop.settings["DLAWS_ENDPOINT"])
    assert (endpoint["EndpointStatus"], "PendingDeploymentSummary" in endpoint) == ("InService", False)
    (variant,) = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])[
        "ProductionVariants"
    ]
    model = sagemaker.describe_model(ModelName=variant["ModelName"])
    containers = model.get("Containers") or [model["PrimaryContainer"]]
    packages = [container["ModelPackageName"] for container in containers]
    described = [sagemaker.describe_model_package(ModelPackageName=name) for name in packages]
    assert [row["InferenceSpecification"]["Containers"][0]["ModelDataUrl"] for row in described] == [trained]
    assert trained.startswith(f"s3://{loop.settings['DLAWS_BUCKET']}/models/")


def test_every_task_was_run_by_the_celery_worker(loop: Loop) -> None:
    tasks = loop.api.tasks(DAG, loop.run_id)
    assert {row["state"] for row in tasks.values()} == {"success"}
    assert {row["queue"] for row in tasks.values()} == {"default"}
    # Each task once, and once more when the triggerer gives it back: training, evaluation and rollout wait there.
    assert sum(loop.worker_totals.values()) >= len(tasks) + 3

    def all_results_are_kept() -> bool:
        ((kept,),) = loop.rows("SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS'")
        return bool(kept == sum(loop.worker_totals.values()))

    # Airflow ends the run when the last task says so, a moment before Celery notes that it has finished.
    wait_until(all_results_are_kept, limit_s=30, what="Celery's results are in Postgres")


def test_the_metadata_is_in_postgres_and_no_other_database_exists(loop: Loop) -> None:
    found = loop.rows(f"SELECT task_id, state FROM task_instance WHERE dag_id = '{DAG}'")
    assert dict(found) == {name: row["state"] for name, row in loop.api.tasks(DAG, loop.run_id).items()}
    assert list(loop.stack.root.rglob("*.db")) == []


def test_the_logs_of_the_worker_are_shown_by_the_api_server(loop: Loop) -> None:
    job = loop.api.xcom(DAG, loop.run_id, "train")["job_name"]
    assert job in loop.api.log(DAG, loop.run_id, "train", 1)


def test_nobody_enters_without_the_password(loop: Loop) -> None:
    with pytest.raises(RuntimeError, match="403"):
        AirflowApi(loop.url).call("GET", "/dags")
    with pytest.raises(RuntimeError, match="401"):
        AirflowApi(loop.url, login=("admin", "admin")).call("GET", "/dags")


def test_after_the_stop_nothing_runs_listens_or_lies_about(loop: Loop) -> None:
    assert len(_processes_of(loop.stack)) > 15
    loop.stack.stop()
    assert _processes_of(loop.stack) == []
    for port in loop.stack.translate.ports.values():
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0, f"port {port} still listens"
    assert not loop.stack.root.exists()


def _processes_of(stack: NativeStack) -> list[str]:
    """Return the commands of the running processes that were told, or work in, the stack's folder."""
    found = []
    for process in psutil.process_iter():
        try:
            told = [process.cwd(), *process.cmdline(), *process.environ().values()]
            if process.status() != psutil.STATUS_ZOMBIE and str(stack.root) in " ".join(told):
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
