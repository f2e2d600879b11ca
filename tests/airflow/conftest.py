"""A real Airflow (scheduler, dag processor, triggerer, API server) beside the local AWS, one for all tests here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_dlaws.local.airflow_stack import LocalAirflow
from airflow_dlaws.local.process import LocalAws

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BUCKET = "airflow-tests"


def aws_connection(local_aws: LocalAws) -> dict[str, Any]:
    """Return the connection that leads to the local AWS.

    It stands in Airflow's database and nothing in the environment does: worker, triggerer and API server must each ask.
    """
    variables = local_aws.environment()
    extra = {"endpoint_url": variables["AWS_ENDPOINT_URL"], "region_name": variables["AWS_DEFAULT_REGION"]}
    return {
        "connection_id": "aws_default",
        "conn_type": "aws",
        "login": variables["AWS_ACCESS_KEY_ID"],
        "password": variables["AWS_SECRET_ACCESS_KEY"],
        "extra": json.dumps(extra),
    }


@pytest.fixture(scope="package")
def training_scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training scripts that the templates use here: a copy, which tests change as people change theirs."""
    return shutil.copytree(ROOT / "training_scripts", tmp_path_factory.mktemp("code") / "training_scripts")


@pytest.fixture(scope="package")
def airflow(
    local_aws: LocalAws, training_scripts: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalAirflow]:
    """Start Airflow with the test DAGs; end it and everything it forked."""
    local_aws.client("s3").create_bucket(Bucket=BUCKET)
    environment = {
        "DLAWS_BUCKET": BUCKET,
        "DLAWS_POLL_SECONDS": "1",
        "DLAWS_SCRIPTS": str(training_scripts / "flight_delays"),
    }
    folders = {"tests": HERE / "dags", "templates": ROOT / "dags"}
    stack = LocalAirflow(tmp_path_factory.mktemp("airflow"), folders, environment)
    try:
        stack.start()
        stack.api.call("POST", "/connections", aws_connection(local_aws))
        stack.api.wait_for_dags({"train_deferred", "train_waiting"}, limit_s=60)
        for dag_id in ("train_deferred", "train_waiting"):
            stack.api.unpause(dag_id)
        yield stack
    finally:
        stack.stop()


@pytest.fixture(autouse=True)
def components_live_on(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tell of a component that ended by itself, and start it again for the tests that follow."""
    yield
    if "airflow" not in request.fixturenames:
        return
    stack: LocalAirflow = request.getfixturevalue("airflow")
    last_words = {component: stack.tail(component) for component in stack.ended()}
    for component in last_words:
        stack.start_component(component)
    assert not last_words
