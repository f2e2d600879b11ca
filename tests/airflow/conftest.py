"""A real Airflow (scheduler, dag processor, triggerer, API server) beside the local AWS, one for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_dlaws.local.airflow_stack import LocalAirflow
from airflow_dlaws.local.process import LocalAws

HERE = Path(__file__).parent
BUCKET = "airflow-tests"


@pytest.fixture(scope="package")
def airflow(local_aws: LocalAws, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    """Start Airflow with the test DAGs; end it and everything it forked."""
    local_aws.client("s3").create_bucket(Bucket=BUCKET)
    environment = {**local_aws.environment(), "DLAWS_BUCKET": BUCKET, "DLAWS_POLL_SECONDS": "1"}
    stack = LocalAirflow(tmp_path_factory.mktemp("airflow"), {"tests": HERE / "dags"}, environment)
    try:
        stack.start()
        stack.api.wait_for_dags({"train_deferred", "train_waiting"}, limit_s=60)
        for dag_id in ("train_deferred", "train_waiting"):
            stack.api.unpause(dag_id)
        yield stack
    finally:
        stack.stop()
