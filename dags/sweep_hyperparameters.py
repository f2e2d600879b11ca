"""Look for the best hyperparameters of an image classifier, and register the best trial's model.

Trials that are behind are stopped early; the leaderboard is linked from the task `sweep`. The model waits in the
registry for somebody's approval: nothing is deployed. Copy this file, set the knobs or their variables.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import Param, dag

from airflow_dlaws.operators.registry import RegisterModelOperator
from airflow_dlaws.operators.sweep import HyperparameterSweepOperator

BUCKET = os.environ.get("DLAWS_BUCKET", "my-bucket")
ROLE_ARN = os.environ.get("DLAWS_ROLE_ARN", "arn:aws:iam::123456789012:role/sagemaker-execution")
IMAGE = os.environ.get("DLAWS_IMAGE", "123456789012.dkr.ecr.us-east-1.amazonaws.com/dlaws-torch:2.13")
SCRIPTS = os.environ.get("DLAWS_IMAGE_SCRIPTS", "../training_scripts/image_classifier")
RUNTIME = os.environ.get("DLAWS_RUNTIME", SCRIPTS.rstrip("/").rpartition("/")[0] + "/sm_runtime")
POLL_SECONDS = float(os.environ.get("DLAWS_POLL_SECONDS", "30"))

SPACE = {
    "learning_rate": {"low": 1e-5, "high": 1.0, "log": True},
    "batch_size": [32, 64, 128],
    "optimizer": ["sgd", "momentum", "adam"],
    "width": {"low": 4, "high": 16, "log": True, "integer": True},
    "dropout": {"low": 0.0, "high": 0.5},
    "weight_decay": {"low": 1e-6, "high": 0.1, "log": True},
}


def number(default: int, title: str, low: int, high: int, section: str, description: str = "") -> Param:
    """Return a field of the trigger form."""
    text = {"title": title, "section": section, "description": description}
    return Param(default, type="integer", minimum=low, maximum=high, **text)


PARAMS = {
    "bucket": Param(BUCKET, type="string", title="Bucket", description="Data, models and reports.", section="Data"),
    "data_prefix": Param("mnist", type="string", title="Prefix of the images", section="Data"),
    "max_trials": number(16, "Trials", 1, 1000, "Search"),
    "parallel_trials": number(4, "Trials at the same time", 1, 100, "Search"),
    "search": Param("tpe", type="string", enum=["tpe", "random"], title="Search", section="Search"),
    "early_stopping": Param(
        "halving",
        type="string",
        enum=["halving", "none"],
        title="Early stopping",
        description="Halving stops what is not among the best third after 1, 3, 9 ... epochs.",
        section="Search",
    ),
    "seed": number(0, "Seed", 0, 2**31 - 1, "Search"),
    "epochs": number(18, "Epochs of a full trial", 1, 500, "Cost"),
    "max_billable_seconds": number(100_000, "Budget", 1, 10**9, "Cost", "Instance-seconds of all trials together."),
    "instance_type": Param("ml.m5.large", type="string", title="Machine of a trial", section="Cost"),
}


@dag(
    schedule=None,
    params=PARAMS,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=POLL_SECONDS)},
    doc_md=__doc__,
    tags=["dlaws", "sweep"],
)
def sweep_hyperparameters() -> None:
    """Many trials, one model."""
    sweep = HyperparameterSweepOperator(
        task_id="sweep",
        image=IMAGE,
        source=SCRIPTS,
        dependencies=[RUNTIME],
        entry_point="train.py",
        role_arn=ROLE_ARN,
        channels={
            "train": "s3://{{ params.bucket }}/{{ params.data_prefix }}/train/",
            "validation": "s3://{{ params.bucket }}/{{ params.data_prefix }}/validation/",
        },
        hyperparameters={"epochs": "{{ params.epochs }}", "seed": "{{ params.seed }}"},
        output_s3_uri="s3://{{ params.bucket }}/sweeps",
        instance_type="{{ params.instance_type }}",
        max_runtime_s=3600,
        space=SPACE,
        objective="validation:error",
        direction="minimize",
        max_trials="{{ params.max_trials }}",
        parallel_trials="{{ params.parallel_trials }}",
        max_billable_seconds="{{ params.max_billable_seconds }}",
        search="{{ params.search }}",
        early_stopping="{{ params.early_stopping }}",
        tolerance=0.006,  # one standard error of an error of 3 % on 750 images
        seed="{{ params.seed }}",
        poll_interval=POLL_SECONDS,
    )
    RegisterModelOperator(
        task_id="register",
        image=IMAGE,
        model_package_group="image-classifier",
        training=sweep.output,
        lineage={"sweep": "{{ ti.xcom_pull('sweep')['sweep'] }}"},
        content_types=["text/csv", "application/json", "application/x-npy"],
        approval_status="PendingManualApproval",
    )


sweep_hyperparameters()
