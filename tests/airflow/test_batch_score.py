"""The template `batch_score` in a real Airflow: by schedule, by hand and in a backfill, each run its own month."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import tiny_flights

from airflow_dlaws.local.airflow_api import wait_until
from airflow_dlaws.local.airflow_stack import LocalAirflow
from airflow_dlaws.local.process import LocalAws

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

DAG_ID = "batch_score"
GROUP = "scored-flights"
ENDPOINT = "flight-delays"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/dlaws-torch:2.13"
NUMBERS = ("dep_delay", "distance", "wind_speed", "precip", "visib")
CATEGORIES = {"hour": ["5", "6"], "weekday": ["0", "1"], "carrier": ["B6", "UA"], "origin": ["EWR"], "dest": ["IAH"]}
COLUMNS = (
    "dep_delay", "hour", "weekday", "distance", "carrier", "origin", "dest", "wind_speed", "precip", "visib"
)  # fmt: skip
PREPROCESSING = {
    "numeric": {name: {"mean": 10.0, "edges": [-20.0, 0.0, 15.0, 600.0]} for name in NUMBERS},
    "categorical": CATEGORIES,
    "network": {"hidden": [8], "embed": 2, "dropout": 0.5},
}


class Flights:
    """A bucket with months of flights, and an approved version of a model with weights drawn at random."""

    def __init__(self, aws: LocalAws, bucket: str, folder: Path) -> None:
        self.bucket, self.s3, self.sagemaker = bucket, aws.client("s3"), aws.client("sagemaker")
        features = [{"name": name, "kind": "numeric" if name in NUMBERS else "categorical"} for name in COLUMNS]
        archive = tiny_flights.pack(tiny_flights.write_model(folder / "model", features, PREPROCESSING))
        self.s3.put_object(Bucket=bucket, Key="model.tar.gz", Body=archive)
        self.sagemaker.create_model_package_group(ModelPackageGroupName=GROUP)
        self.sagemaker.create_model_package(
            ModelPackageGroupName=GROUP,
            ModelApprovalStatus="Approved",
            InferenceSpecification={
                "Containers": [{"Image": IMAGE, "ModelDataUrl": f"s3://{bucket}/model.tar.gz"}],
                "SupportedContentTypes": ["text/csv"],
                "SupportedResponseMIMETypes": ["text/csv"],
            },
        )

    def serve(self) -> None:
        """Put the model behind the endpoint that the file names."""
        container = {"Image": IMAGE, "ModelDataUrl": f"s3://{self.bucket}/model.tar.gz"}
        role = "arn:aws:iam::123456789012:role/dlaws-sagemaker"
        self.sagemaker.create_model(ModelName="scoring", ExecutionRoleArn=role, PrimaryContainer=container)
        variant = {"VariantName": "AllTraffic", "ModelName": "scoring"}
        machines = {"InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        self.sagemaker.create_endpoint_config(EndpointConfigName="scoring", ProductionVariants=[variant | machines])
        self.sagemaker.create_endpoint(EndpointName=ENDPOINT, EndpointConfigName="scoring")

    def write(self, month: str, rows: int) -> None:
        """Store a month as the monthly files have it: a header, and the label first."""
        chance = random.Random(month)
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["late", *COLUMNS])
        for _ in range(rows):
            values = {name: f"{chance.gauss(10, 30):.2f}" for name in NUMBERS}
            values |= {name: chance.choice(known) for name, known in CATEGORIES.items()}
            writer.writerow([chance.randint(0, 1), *(values[name] for name in COLUMNS)])
        key = f"flights/month={month}/flights.csv"
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=text.getvalue().encode())

    def scores(self, month: str) -> list[float]:
        """Return the predictions of a month."""
        key = f"scores/month={month}/flights.csv.out"
        body = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read().decode()
        return [float(line) for line in body.splitlines()]


@pytest.fixture
def flights(local_aws: LocalAws, airflow: LocalAirflow, tmp_path: Path) -> Iterator[Flights]:
    """What the runs of one test read; the DAG is paused and the endpoint gone after it."""
    made = Flights(local_aws, "airflow-tests", tmp_path)
    yield made
    airflow.api.call("PATCH", f"/dags/{DAG_ID}", {"is_paused": True})
    made.sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=ENDPOINT, WaiterConfig={"Delay": 1})
    made.sagemaker.delete_endpoint(EndpointName=ENDPOINT)


def runs_of(airflow: LocalAirflow, run_type: str) -> list[dict[str, Any]]:
    return [run for run in airflow.api.runs(DAG_ID) if run["run_type"] == run_type]


def green(airflow: LocalAirflow, run_type: str, count: int) -> None:
    """Wait until there are so many runs of a type, and they are green."""
    wait_until(lambda: len(runs_of(airflow, run_type)) == count, limit_s=60, what=f"{count} {run_type} runs")
    for run in runs_of(airflow, run_type):
        state = airflow.api.wait_for_run(DAG_ID, run["dag_run_id"], limit_s=180)
        assert state == "success", (run["dag_run_id"], airflow.api.tasks(DAG_ID, run["dag_run_id"]))


def test_each_run_scores_its_own_month(airflow: LocalAirflow, flights: Flights) -> None:
    now = datetime.now(UTC)
    last = now.replace(day=1, hour=6, minute=0, second=0, microsecond=0)
    last = last if last <= now else (last - timedelta(days=2)).replace(day=1)
    due = f"{last - timedelta(days=2):%Y-%m}"  # the month whose interval has ended last
    for number, month in enumerate(("2013-01", "2013-02", "2013-03", due), start=1):
        flights.write(month, 100 * number)
    airflow.api.wait_for_dags({DAG_ID}, limit_s=60)
    # The knob in the file is the endpoint; the form and the backfill ask for the registry's model.
    approved = {"score_with": "latest approved", "model_package_group": GROUP}
    backfill = {
        "dag_id": DAG_ID,
        "from_date": "2013-01-01T00:00:00Z",
        "to_date": "2013-02-28T00:00:00Z",
        "run_backwards": False,
        "dag_run_conf": approved,
        "max_active_runs": 2,
        "reprocess_behavior": "none",
    }
    flights.serve()
    airflow.api.unpause(DAG_ID)
    airflow.api.trigger(DAG_ID, {**approved, "month": "2013-03"})
    airflow.api.backfill(backfill)
    for run_type, count in (("manual", 1), ("backfill", 2), ("scheduled", 1)):
        green(airflow, run_type, count)
    assert [len(flights.scores(month)) for month in ("2013-01", "2013-02", "2013-03", due)] == [100, 200, 300, 400]
    assert all(0 < score < 1 for score in flights.scores(due))
    (run,) = runs_of(airflow, "manual")
    result = airflow.api.xcom(DAG_ID, run["dag_run_id"], "score")
    assert (result["records"], result["output_s3_uri"]) == (300, f"s3://{flights.bucket}/scores/month=2013-03/")
