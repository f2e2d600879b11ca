"""Validate, train, evaluate, register and roll out a flight-delay model: on drift, on a calendar, by hand, by backfill.

A run that drift has started shows the sensor's event: report, columns, and what the drift costs in accuracy.

The newest month, or the last one of the run's data interval, compares challenger and champion; the months before it
train the challenger. One that is not better is not deployed: the last tasks are skipped. Neither is a backfill's,
unless it is asked to. Copy this file, set the knobs or their variables.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import Asset, Param, dag
from airflow.timetables.assets import AssetOrTimeSchedule
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_dlaws.operators.data import ChooseDataOperator
from airflow_dlaws.operators.evaluation import ModelEvaluationOperator
from airflow_dlaws.operators.registry import RegisterModelOperator
from airflow_dlaws.operators.rollout import BlueGreenRolloutOperator
from airflow_dlaws.operators.training import DistributedTrainingOperator
from airflow_dlaws.operators.validation import DataValidationOperator

BUCKET = os.environ.get("DLAWS_BUCKET", "my-bucket")
ROLE_ARN = os.environ.get("DLAWS_ROLE_ARN", "arn:aws:iam::123456789012:role/sagemaker-execution")
IMAGE = os.environ.get("DLAWS_IMAGE", "123456789012.dkr.ecr.us-east-1.amazonaws.com/dlaws-torch:2.13")
ENDPOINT = os.environ.get("DLAWS_ENDPOINT", "flight-delays")
SCRIPTS = os.environ.get("DLAWS_SCRIPTS", "../training_scripts/flight_delays")
RUNTIME = os.environ.get("DLAWS_RUNTIME", SCRIPTS.rstrip("/").rpartition("/")[0] + "/sm_runtime")
CRON = os.environ.get("DLAWS_RETRAIN_CRON", "0 6 2 * *")  # empty: only drift and people start a run
EPOCH = datetime(2013, 1, 1)  # of the data: the earliest month that can be asked for
POLL_SECONDS = float(os.environ.get("DLAWS_POLL_SECONDS", "30"))

DRIFT = Asset("flight-delays-drift")  # as in monitor_endpoint.py: this is how one DAG starts the other
SCHEDULE = AssetOrTimeSchedule(timetable=CronDataIntervalTimetable(CRON, "UTC"), assets=[DRIFT]) if CRON else [DRIFT]


def expect(what: str, column: str, severity: str = "critical", **kwargs: Any) -> dict[str, Any]:
    """Return an expectation of a column; a warning lets the run go on."""
    return {"type": f"expect_column_{what}", "kwargs": {"column": column, **kwargs}, "severity": severity}


SUITE = [
    expect("values_to_be_in_set", "late", value_set=[0, 1]),
    expect("values_to_not_be_null", "dep_delay"),
    expect("values_to_be_between", "dep_delay", min_value=-120, max_value=2000),
    expect("values_to_be_between", "distance", min_value=10, max_value=6000),
    expect("values_to_be_in_set", "origin", value_set=["EWR", "JFK", "LGA"]),
    expect("mean_to_be_between", "late", "warning", min_value=0.05, max_value=0.6),
]


def number(default: float, title: str, low: float, high: float, section: str, kind: str = "integer") -> Param:
    """Return a field of the trigger form."""
    return Param(default, type=kind, title=title, minimum=low, maximum=high, section=section)


PARAMS = {
    "bucket": Param(BUCKET, type="string", title="Bucket", description="Data, models and reports.", section="Data"),
    "data_prefix": Param("flights/", type="string", section="Data"),
    "train_months": number(2, "Months to train on", 1, 11, "Data"),
    "instance_type": Param("ml.m5.xlarge", type="string", title="Training instances", section="Training"),
    "instance_count": number(2, "Number of instances", 1, 64, "Training"),
    "epochs": number(4, "Epochs", 1, 500, "Training"),
    "endpoint_name": Param(ENDPOINT, type="string", title="Endpoint", section="Rollout"),
    "strategy": Param("canary", type="string", enum=["canary", "linear", "all_at_once"], section="Rollout"),
    "canary_percent": number(30, "Canary share (%)", 1, 50, "Rollout"),
    "wait_seconds": number(600, "Bake (seconds)", 0, 3600, "Rollout"),
    "deploy_in_backfill": Param(False, type="boolean", title="Deploy from backfills too", section="Rollout"),
}

DEFAULTS = {
    "image": IMAGE,
    "source": SCRIPTS,
    "dependencies": [RUNTIME],  # training only: evaluate.py stands alone
    "role_arn": ROLE_ARN,
    "instance_type": "{{ params.instance_type }}",
    "output_s3_uri": "s3://{{ params.bucket }}/models",
    "max_runtime_s": 3600,
    "poll_interval": POLL_SECONDS,
    "allow_backfill": "{{ params.deploy_in_backfill }}",
    "retries": 2,  # a retry adopts the job of the try before; what cannot be mended fails at once
    "retry_delay": timedelta(seconds=POLL_SECONDS),
}
RUNS = {"schedule": SCHEDULE, "start_date": EPOCH, "catchup": False, "max_active_runs": 1}


@dag(params=PARAMS, default_args=DEFAULTS, doc_md=__doc__, **RUNS)
def retrain_on_drift() -> None:
    """One road from data to the endpoint; every task can end it."""
    choose_data = ChooseDataOperator(
        task_id="choose_data",
        data_s3_uri="s3://{{ params.bucket }}/{{ params.data_prefix }}",
        runs_s3_uri="s3://{{ params.bucket }}/runs",
        train_months="{{ params.train_months }}",
    )
    data = choose_data.output
    validate = DataValidationOperator(
        task_id="validate",
        manifest_s3_uri=data["train"],
        suite=SUITE,
        min_rows=10_000,
        report_s3_uri="s3://{{ params.bucket }}/reports/validation",
    )
    train = DistributedTrainingOperator(
        task_id="train",
        entry_point="train.py",
        channels={"train": {"uri": data["train"], "kind": "ManifestFile"}},
        data_snapshot=data["snapshot"],
        hyperparameters={"epochs": "{{ params.epochs }}"},
        instance_count="{{ params.instance_count }}",
        metrics=["validation:loss", "validation:auc"],
    )
    evaluate = ModelEvaluationOperator(
        task_id="evaluate",
        challenger_artifact=train.output["artifact_uri"],
        endpoint_name="{{ params.endpoint_name }}",
        evaluation_data={"uri": data["evaluate"], "kind": "ManifestFile"},
        data_snapshot=data["snapshot"],
        requirements={"max_log_loss": 0.6, "min_auc": 0.7},
    )
    register = RegisterModelOperator(
        task_id="register",
        model_package_group="flight-delays",
        training=train.output,
        evaluation=evaluate.output,
        validation=validate.output,
        approval_status="Approved",
    )
    roll_out = BlueGreenRolloutOperator(
        task_id="roll_out",
        endpoint_name="{{ params.endpoint_name }}",
        model_package_arn=register.output["package_arn"],
        instance_type="ml.m5.large",
        strategy="{{ params.strategy }}",
        canary_percent="{{ params.canary_percent }}",
        wait_seconds="{{ params.wait_seconds }}",
        state_s3_uri="s3://{{ params.bucket }}",
        data_capture_s3_uri="s3://{{ params.bucket }}/capture",
    )
    choose_data >> validate >> train >> evaluate >> register >> roll_out


retrain_on_drift()
