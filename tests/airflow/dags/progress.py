"""A deferred training task whose script says how far it is, and goes on when the test opens its gate."""

from __future__ import annotations

import os
from pathlib import Path

from airflow.sdk import dag

from airflow_dlaws.operators.training import DistributedTrainingOperator

BUCKET = os.environ.get("DLAWS_BUCKET", "tests")


@dag(dag_id="train_with_progress", schedule=None)
def train_with_progress() -> None:
    """Waits in the triggerer."""
    DistributedTrainingOperator(
        task_id="train",
        image="123456789012.dkr.ecr.us-east-1.amazonaws.com/dlaws-torch:2.13",
        source=str(Path(__file__).parent.parent / "scripts"),
        entry_point="step_by_step.py",
        output_s3_uri=f"s3://{BUCKET}/models",
        checkpoint_s3_uri=f"s3://{BUCKET}/checkpoints",
        spot=True,
        max_runtime_s=240,
        max_wait_s=300,
        role_arn="arn:aws:iam::123456789012:role/dlaws-sagemaker",
        instance_type="ml.m5.large",
        price_per_hour=1.0,
        poll_interval=1,
        progress_interval=0.5,
        retries=2,
    )


train_with_progress()
