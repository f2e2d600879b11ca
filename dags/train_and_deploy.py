"""Train a flight-delay model on the newest months and deploy it once a person has said yes: started by hand.

Choose data, validate, train, compare with the model in service, register, ask, roll out. Each task can end the run:
bad data, a model that is not better (skipped), a person's no, a canary that does harm. `approve` waits under *Required
actions* (Airflow 3.1 and later), or for the word in the model registry. Green: the new model is in service.

Copy this file, set the knobs or their variables. `retrain_on_drift` is the same road, without a person.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag

from airflow_dlaws.operators.approval import ModelApprovalOperator
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
POLL_SECONDS = float(os.environ.get("DLAWS_POLL_SECONDS", "30"))


def expect(what: str, column: str, severity: str = "critical", **kwargs: Any) -> dict[str, Any]:
    """Return an expectation of a column; a warning lets the run go on, and the approver sees it."""
    return {"type": f"expect_column_{what}", "kwargs": {"column": column, **kwargs}, "severity": severity}


SUITE = [
    expect("values_to_be_in_set", "late", value_set=[0, 1]),
    expect("values_to_not_be_null", "dep_delay"),
    expect("values_to_be_between", "distance", min_value=10, max_value=6000),
    expect("mean_to_be_between", "late", "warning", min_value=0.05, max_value=0.6),
]


def field(default: Any, title: str, section: str, description: str, **schema: Any) -> Param:
    """Return a field of the trigger form; it takes what its default is: text, a whole number, a number."""
    kind = {str: "string", int: "integer", float: "number"}[type(default)]
    return Param(default, type=kind, title=title, section=section, description=description, **schema)


MOVES, BUSY = ["canary", "linear", "all_at_once"], ["wait", "fail", "supersede"]
PARAMS = {
    "bucket": field(BUCKET, "Bucket", "Data", "Data, models, reports, and the state of rollouts."),
    "data_prefix": field("flights/", "Prefix", "Data", "Keys below it name their month: month=2013-02/part-0.csv."),
    "train_months": field(2, "Months", "Data", "How many train; the next one judges.", minimum=1, maximum=24),
    "instance_type": field("ml.m5.xlarge", "Machine", "Training", "Such as ml.m5.xlarge, ml.g5.12xlarge."),
    "instance_count": field(2, "Machines", "Training", "How many train together.", minimum=1, maximum=64),
    "epochs": field(4, "Epochs", "Training", "Passes over the training months.", minimum=1, maximum=500),
    "margin": field(0.0, "Margin", "Gates", "By how much log loss may be worse, and pass.", minimum=0, maximum=1),
    "approval": field("ask", "Approval", "Gates", "Ask a person, or deploy what passes.", enum=["ask", "automatic"]),
    "endpoint_name": field(ENDPOINT, "Endpoint", "Rollout", "The first run makes it; later ones change its model."),
    "strategy": field("canary", "Strategy", "Rollout", "How traffic moves to the new model.", enum=MOVES),
    "canary_percent": field(10, "Canary (%)", "Rollout", "Share of the traffic.", minimum=1, maximum=50),
    "wait_seconds": field(600, "Bake (s)", "Rollout", "How long each step is watched.", minimum=0, maximum=3600),
    "on_busy": field("wait", "If another is under way", "Rollout", "Wait for it, fail, or make it go back.", enum=BUSY),
}

HOW = "{{ params.strategy }}, {{ params.canary_percent }} %, {{ params.wait_seconds }} s, on {{ params.endpoint_name }}"
DEFAULTS = {
    "image": IMAGE,
    "source": SCRIPTS,
    "dependencies": [RUNTIME],  # training only: evaluate.py stands alone
    "role_arn": ROLE_ARN,
    "instance_type": "{{ params.instance_type }}",
    "output_s3_uri": "s3://{{ params.bucket }}/models",
    "max_runtime_s": 3600,
    "poll_interval": POLL_SECONDS,
    "retries": 2,  # a retry adopts the job of the try before; what cannot be mended fails at once
    "retry_delay": timedelta(seconds=POLL_SECONDS),
}


@dag(schedule=None, params=PARAMS, default_args=DEFAULTS, doc_md=__doc__, tags=["dlaws"])
def train_and_deploy() -> None:
    """One road from data to the endpoint, with a person at its gate."""
    data = ChooseDataOperator(
        task_id="choose_data",
        data_s3_uri="s3://{{ params.bucket }}/{{ params.data_prefix }}",
        runs_s3_uri="s3://{{ params.bucket }}/runs",
        train_months="{{ params.train_months }}",
    )
    validate = DataValidationOperator(
        task_id="validate",
        manifest_s3_uri=data.output["train"],
        suite=SUITE,
        report_s3_uri="s3://{{ params.bucket }}/reports/validation",
    )
    train = DistributedTrainingOperator(
        task_id="train",
        entry_point="train.py",
        channels={"train": {"uri": data.output["train"], "kind": "ManifestFile"}},
        data_snapshot=data.output["snapshot"],
        hyperparameters={"epochs": "{{ params.epochs }}"},
        instance_count="{{ params.instance_count }}",
        metrics=["validation:loss", "validation:auc"],
    )
    evaluate = ModelEvaluationOperator(
        task_id="evaluate",
        challenger_artifact=train.output["artifact_uri"],
        endpoint_name="{{ params.endpoint_name }}",
        evaluation_data={"uri": data.output["evaluate"], "kind": "ManifestFile"},
        data_snapshot=data.output["snapshot"],
        margin="{{ params.margin }}",
        requirements={"max_log_loss": 0.6, "min_auc": 0.7},
    )
    register = RegisterModelOperator(
        task_id="register",
        model_package_group="flight-delays",
        training=train.output,
        evaluation=evaluate.output,
        validation=validate.output,
        approval_status="{{ 'PendingManualApproval' if params.approval == 'ask' else 'Approved' }}",
    )
    approve = ModelApprovalOperator(
        task_id="approve",
        model_package_arn=register.output["package_arn"],
        evaluation=evaluate.output,
        validation=validate.output,
        details={"Rollout": HOW},
    )
    roll_out = BlueGreenRolloutOperator(
        task_id="roll_out",
        endpoint_name="{{ params.endpoint_name }}",
        model_package_arn=approve.output["package_arn"],
        instance_type="ml.m5.large",
        on_busy="{{ params.on_busy }}",
        require_approval=True,
        strategy="{{ params.strategy }}",
        canary_percent="{{ params.canary_percent }}",
        wait_seconds="{{ params.wait_seconds }}",
        state_s3_uri="s3://{{ params.bucket }}",
        data_capture_s3_uri="s3://{{ params.bucket }}/capture",
    )
    data >> validate >> train >> evaluate >> register >> approve >> roll_out


train_and_deploy()
