"""One model for each month of the past, as it would have been trained then: a backfill over a flight-delay model.

    airflow backfill create --dag-id retrain_history --from-date 2013-03-01 --to-date 2013-08-01 --max-active-runs 2

makes six models. That of March trains on the `train_months` before March, and is judged on March: no row is read that
was not known at the end of the month. Each lies with its manifest.json (objects, versions, request, cost) under
`models/`, and waits in a model package group of its own for a person's approval. There is no task here that deploys.

Unpaused, the calendar adds the model of each new month when it is over. Copy this file, set the knobs or their
variables.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import Param, dag
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_dlaws.operators.data import ChooseDataOperator
from airflow_dlaws.operators.registry import RegisterModelOperator
from airflow_dlaws.operators.training import DistributedTrainingOperator
from airflow_dlaws.operators.validation import DataValidationOperator

BUCKET = os.environ.get("DLAWS_BUCKET", "my-bucket")
ROLE_ARN = os.environ.get("DLAWS_ROLE_ARN", "arn:aws:iam::123456789012:role/sagemaker-execution")
IMAGE = os.environ.get("DLAWS_IMAGE", "123456789012.dkr.ecr.us-east-1.amazonaws.com/dlaws-torch:2.13")
SCRIPTS = os.environ.get("DLAWS_SCRIPTS", "../training_scripts/flight_delays")
RUNTIME = os.environ.get("DLAWS_RUNTIME", SCRIPTS.rstrip("/").rpartition("/")[0] + "/sm_runtime")
POLL_SECONDS = float(os.environ.get("DLAWS_POLL_SECONDS", "30"))
EPOCH = datetime(2013, 1, 1)  # of the data: no run before it

# In Airflow 3, "@monthly" has empty data intervals; this timetable's are the months themselves.
MONTHLY = CronDataIntervalTimetable("0 0 1 * *", timezone="UTC")


def expect(what: str, column: str, severity: str = "critical", **kwargs: Any) -> dict[str, Any]:
    """Return an expectation of a column; a warning lets the run go on."""
    return {"type": f"expect_column_{what}", "kwargs": {"column": column, **kwargs}, "severity": severity}


SUITE = [
    expect("values_to_be_in_set", "late", value_set=[0, 1]),
    expect("values_to_not_be_null", "dep_delay"),
    expect("values_to_be_between", "distance", min_value=10, max_value=6000),
    expect("mean_to_be_between", "late", "warning", min_value=0.05, max_value=0.6),
]


def number(default: int, title: str, low: int, high: int, section: str) -> Param:
    """Return a whole number of the form."""
    return Param(default, type="integer", title=title, minimum=low, maximum=high, section=section)


PARAMS = {
    "bucket": Param(BUCKET, type="string", title="Bucket", description="Data, models and reports.", section="Data"),
    "data_prefix": Param("flights/", type="string", title="Data under", section="Data"),
    "train_months": number(2, "Months to train on", 1, 24, "Data"),
    "instance_type": Param("ml.m5.xlarge", type="string", title="Instances", section="Training"),
    "instance_count": number(2, "Number of instances", 1, 64, "Training"),
    "epochs": number(4, "Epochs", 1, 500, "Training"),
    "seed": number(0, "Seed", 0, 2**31 - 1, "Training"),
    "model_package_group": Param("flight-delays-history", type="string", title="Register in", section="Registry"),
}

DEFAULTS = {
    "retries": 2,  # a retry adopts the job of the try before; what cannot be mended fails at once
    "retry_delay": timedelta(seconds=POLL_SECONDS),
}


@dag(schedule=MONTHLY, start_date=EPOCH, catchup=False, params=PARAMS, default_args=DEFAULTS, doc_md=__doc__)
def retrain_history() -> None:
    """From a month's data to its model, and no further."""
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
        image=IMAGE,
        source=SCRIPTS,
        dependencies=[RUNTIME],
        entry_point="train.py",
        channels={
            "train": {"uri": data["train"], "kind": "ManifestFile"},
            "validation": {"uri": data["evaluate"], "kind": "ManifestFile"},
        },
        data_snapshot=data["snapshot"],
        hyperparameters={"epochs": "{{ params.epochs }}", "seed": "{{ params.seed }}"},
        instance_type="{{ params.instance_type }}",
        instance_count="{{ params.instance_count }}",
        metrics=["validation:loss", "validation:auc"],
        output_s3_uri="s3://{{ params.bucket }}/models",
        role_arn=ROLE_ARN,
        max_runtime_s=3600,
        poll_interval=POLL_SECONDS,
    )
    register = RegisterModelOperator(
        task_id="register",
        model_package_group="{{ params.model_package_group }}",
        image=IMAGE,
        training=train.output,
        validation=validate.output,
        approval_status="PendingManualApproval",
        description="Trained by {{ run_id }} for history's sake",
    )
    choose_data >> validate >> train >> register


retrain_history()
