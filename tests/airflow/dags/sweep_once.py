"""A sweep of sixteen small trials, four at the same time, for the test that kills the triggerer in the middle."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from airflow.sdk import dag

from airflow_dlaws.operators.sweep import HyperparameterSweepOperator

BUCKET = os.environ.get("DLAWS_BUCKET", "tests")


@dag(dag_id="sweep_once", schedule=None)
def sweep_once() -> None:
    """Waits in the triggerer, which moves the sweep on."""
    HyperparameterSweepOperator(
        task_id="sweep",
        image="123456789012.dkr.ecr.us-east-1.amazonaws.com/dlaws-torch:2.13",
        source=str(Path(__file__).parent.parent / "scripts"),
        entry_point="learn.py",
        hyperparameters={"epochs": 20},
        output_s3_uri=f"s3://{BUCKET}/sweeps",
        role_arn="arn:aws:iam::123456789012:role/dlaws-sagemaker",
        instance_type="ml.m5.large",
        space={"rate": {"low": 1e-5, "high": 1.0, "log": True}},
        objective="validation:error",
        max_trials=16,
        parallel_trials=4,
        early_stopping="halving",
        poll_interval=0.5,
        retries=2,
        retry_delay=timedelta(seconds=1),
    )


sweep_once()
