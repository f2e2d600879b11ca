"""Backfills of the templates in a real Airflow: one model a month, each from its own data, and nothing deployed.

`make test` plays two months, `make bench-backfill` six, and writes what it measured.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from airflow_dlaws.local.airflow_api import ENDED, wait_until
from airflow_dlaws.local.airflow_stack import LocalAirflow
from airflow_dlaws.local.demo import flights
from airflow_dlaws.local.process import LocalAws

ROOT = Path(__file__).parent.parent.parent
HISTORY, LOOP = "retrain_history", "retrain_on_drift"
#: How many months are backfilled, from March on: January and February are only learned from.
COUNT = int(os.environ.get("DLAWS_BACKFILL_MONTHS", "2"))
#: Where the figures go, if anywhere.
RESULTS = os.environ.get("DLAWS_BACKFILL_RESULTS")
MONTHS = flights.MONTHS[2 : 2 + COUNT]
#: Two hosts, as the template asks for: bit-equal weights are no feat on one.
FORM = {"instance_count": 2, "epochs": 1, "train_months": 2}

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(900)]


class History:
    """The flights up to the last month that is backfilled, in a bucket that keeps versions; and its backfills."""

    def __init__(self, airflow: LocalAirflow, aws: LocalAws, bucket: str, dag: str = HISTORY) -> None:
        self.airflow, self.api, self.bucket, self.dag = airflow, airflow.api, bucket, dag
        self.api.wait_for_dags({dag}, limit_s=60)
        self.api.unpause(dag)
        self.s3, self.sagemaker = aws.client("s3"), aws.client("sagemaker")
        self.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        files = flights.monthly_files(ROOT / ".dlaws/cache")
        for month in flights.MONTHS[: 2 + COUNT]:
            # An older version of everything: what is newest must be told from what is first.
            self.s3.put_object(Bucket=bucket, Key=key(month), Body=b"an older version")
            self.s3.put_object(Bucket=bucket, Key=key(month), Body=files[month].read_bytes())

    def backfill(self, first: str, last: str, **options: Any) -> list[str]:
        """Run a backfill over months through the REST API, to its end; return its runs, the oldest first."""
        conf = {**FORM, "bucket": self.bucket}
        body = {"dag_id": self.dag, "from_date": start(first), "to_date": start(last), "dag_run_conf": conf, **options}
        return self.wait(first, last, self.api.backfill(body))

    def backfill_by_command(self, first: str, last: str, *options: str) -> list[str]:
        """Do the same with `airflow backfill create`."""
        dates = ["--from-date", start(first), "--to-date", start(last)]
        conf = ["--dag-run-conf", json.dumps({**FORM, "bucket": self.bucket})]
        self.airflow.run("backfill", "create", "--dag-id", self.dag, *dates, *conf, *options)
        newest = max(row["id"] for row in self.api.call("GET", "/backfills", dag_id=self.dag)["backfills"])
        return self.wait(first, last, newest)

    def wait(self, first: str, last: str, backfill_id: int) -> list[str]:
        """Return the runs when all have ended, and end the backfill, which Airflow would do within a minute."""
        runs = [run for run in self.runs() if start(first) <= run["logical_date"] <= start(last)]
        for run in runs:
            state = self.api.wait_for_run(self.dag, run["dag_run_id"], limit_s=120 * COUNT)
            assert state == "success", self.why(run["dag_run_id"])
        self.api.end_backfill(backfill_id)
        return [run["dag_run_id"] for run in runs]

    def runs(self) -> list[dict[str, Any]]:
        """Return the runs of backfills."""
        return [run for run in self.api.runs(self.dag) if run["run_type"] == "backfill"]

    def why(self, run_id: str) -> str:
        """Return the end of the log of what failed in a run."""
        failed = {name: row for name, row in self.api.tasks(self.dag, run_id).items() if row["state"] == "failed"}
        return "\n".join(
            self.api.log(self.dag, run_id, name, row["try_number"])[-3000:] for name, row in failed.items()
        )

    def jobs(self) -> dict[str, list[str]]:
        """Return the names of the training jobs of each run."""
        found: dict[str, list[str]] = {}
        for row in self.sagemaker.get_paginator("list_training_jobs").paginate().search("TrainingJobSummaries[]"):
            tags = {
                tag["Key"]: tag["Value"] for tag in self.sagemaker.list_tags(ResourceArn=row["TrainingJobArn"])["Tags"]
            }
            if tags.get("dlaws:dag") == self.dag:
                found.setdefault(tags["dlaws:run"], []).append(row["TrainingJobName"])
        return found

    def manifest(self, run_id: str) -> dict[str, Any]:
        """Return the manifest beside a run's model."""
        return dict(json.loads(self.read(self.api.xcom(self.dag, run_id, "train")["manifest_uri"])))

    def weights(self, manifest: Mapping[str, Any]) -> dict[str, bytes]:
        """Return the bytes of each tensor of a model."""
        archive = tarfile.open(fileobj=io.BytesIO(self.read(manifest["artifact"]["uri"])))  # noqa: SIM115
        tensors = torch.load(io.BytesIO(archive.extractfile("model.pt").read()), weights_only=True)
        return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}

    def read(self, uri: str) -> bytes:
        """Return an object's bytes."""
        bucket, _, name = uri.removeprefix("s3://").partition("/")
        return bytes(self.s3.get_object(Bucket=bucket, Key=name)["Body"].read())

    def version(self, month: str) -> str:
        """Return the newest version of a month's object."""
        return str(self.s3.head_object(Bucket=self.bucket, Key=key(month))["VersionId"])


def key(month: str) -> str:
    return f"flights/month={month}/flights.csv"


def start(month: str) -> str:
    return f"{month}-01T00:00:00Z"


@pytest.fixture
def history(airflow: LocalAirflow, local_aws: LocalAws, bucket: str) -> History:
    return History(airflow, local_aws, bucket)


def test_a_backfill_makes_one_model_a_month_and_a_reprocessed_month_is_trained_again_bit_by_bit(
    history: History,
) -> None:
    endpoints = history.sagemaker.list_endpoints()["Endpoints"]
    began = time.monotonic()
    runs = history.backfill(MONTHS[0], MONTHS[-1], max_active_runs=2)
    seconds = time.monotonic() - began

    assert len(runs) == COUNT
    manifests = dict(zip(MONTHS, map(history.manifest, runs), strict=True))
    for month, manifest in manifests.items():
        place = flights.MONTHS.index(month)
        assert named(manifest) == {
            f"s3://{history.bucket}/{key(each)}": history.version(each)
            for each in flights.MONTHS[place - 2 : place + 1]
        }
        assert manifest["data"]["evaluation_month"] == month
        assert manifest["data_changes"] == []
        assert manifest["model_package_group"] == "flight-delays-history"
        assert manifest["billable_instance_seconds"] >= 2
        assert manifest["airflow"]["data_interval_start"].startswith(month)
    jobs = history.jobs()
    assert {run: len(jobs[run]) for run in runs} == dict.fromkeys(runs, 1)
    assert len({manifest["artifact"]["uri"] for manifest in manifests.values()}) == COUNT
    assert len({tuple(history.weights(manifest).values()) for manifest in manifests.values()}) == COUNT
    assert approvals(history) == ["PendingManualApproval"] * COUNT

    before = history.api.tasks(HISTORY, runs[0])["train"]
    began = time.monotonic()
    if RESULTS:
        assert history.backfill_by_command(MONTHS[0], MONTHS[0], "--reprocess-behavior", "completed") == runs[:1]
    else:
        assert history.backfill(MONTHS[0], MONTHS[0], reprocess_behavior="completed") == runs[:1]
    again_seconds = time.monotonic() - began

    new = {run: set(names) - set(jobs[run]) for run, names in history.jobs().items() if run in runs}
    assert {run: len(names) for run, names in new.items()} == {run: int(run == runs[0]) for run in runs}
    assert history.api.tasks(HISTORY, runs[0])["train"]["max_tries"] > before["max_tries"]
    again = history.manifest(runs[0])
    assert {again["training"]["job_name"]} == new[runs[0]]
    assert named(again) == named(manifests[MONTHS[0]])
    assert history.weights(again) == history.weights(manifests[MONTHS[0]])
    assert history.sagemaker.list_endpoints()["Endpoints"] == endpoints
    write_results(manifests, seconds, again_seconds)


def test_the_loop_is_backfilled_without_a_champion_an_approval_or_a_deployment(
    airflow: LocalAirflow, local_aws: LocalAws, bucket: str
) -> None:
    loop = History(airflow, local_aws, bucket, LOOP)
    endpoints = loop.sagemaker.list_endpoints()["Endpoints"]
    # The run of March is that of the second of March to the second of April.
    (run,) = loop.backfill(MONTHS[0], MONTHS[1])
    assert {name: row["state"] for name, row in loop.api.tasks(LOOP, run).items()} == {
        **dict.fromkeys(("choose_data", "validate", "train", "evaluate", "register"), "success"),
        "roll_out": "skipped",
    }
    assert loop.manifest(run)["data"]["evaluation_month"] == MONTHS[0]
    assert loop.api.xcom(LOOP, run, "evaluate")["verdict"] == "no_champion"
    assert loop.api.xcom(LOOP, run, "register")["approval_status"] == "PendingManualApproval"
    assert loop.sagemaker.list_endpoints()["Endpoints"] == endpoints


def test_the_calendar_adds_no_model_of_a_month_that_has_no_data(history: History) -> None:
    def ended() -> list[dict[str, Any]]:
        return [run for run in history.api.runs(HISTORY) if run["run_type"] == "scheduled" and run["state"] in ENDED]

    wait_until(lambda: bool(ended()), limit_s=90, what="the run of the last month has ended")
    (run,) = ended()
    assert run["state"] == "failed"
    assert "Clear the task when the data are there" in history.why(run["dag_run_id"])


def named(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the objects that a manifest names, each with its version."""
    objects = manifest["data"]["training"] + manifest["data"]["evaluation"]
    return {each["uri"]: each["version_id"] for each in objects}


def approvals(history: History) -> list[str]:
    rows = history.sagemaker.list_model_packages(ModelPackageGroupName="flight-delays-history")
    return [row["ModelApprovalStatus"] for row in rows["ModelPackageSummaryList"]]


def write_results(manifests: Mapping[str, Mapping[str, Any]], seconds: float, again_seconds: float) -> None:
    if not RESULTS:
        return
    document = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": len(os.sched_getaffinity(0)),
        "load_average_15_minutes": round(os.getloadavg()[2], 1),
        "form": FORM,
        "seconds": round(seconds, 1),
        "reprocess_seconds": round(again_seconds, 1),
        "reprocessed_weights": "bit-equal",
        "months": {
            month: {
                "metrics": {name: round(value, 4) for name, value in manifest["training"]["metrics"].items()},
                "billable_instance_seconds": manifest["billable_instance_seconds"],
            }
            for month, manifest in manifests.items()
        },
    }
    path = Path(RESULTS)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
