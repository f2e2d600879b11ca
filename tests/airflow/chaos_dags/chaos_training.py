"""Four training tasks in every way of waiting, for `make chaos-training`: one each, and two mapped on spot machines."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import dag

from airflow_dlaws.operators.training import DistributedTrainingOperator

BUCKET = os.environ.get("DLAWS_BUCKET", "tests")
COMMON: dict[str, Any] = {
    "image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/dlaws-torch:2.13",
    "source": str(Path(__file__).parent.parent / "scripts"),
    "entry_point": "wait_for_it.py",
    "output_s3_uri": f"s3://{BUCKET}/models",
    "role_arn": "arn:aws:iam::123456789012:role/dlaws-sagemaker",
    "instance_type": "ml.m5.large",
    "max_runtime_s": 600,
    "poll_interval": 1,
    # More than any round can use up: what is asked is whether training survives, not how often Airflow tries.
    "retries": 20,
    "retry_delay": timedelta(seconds=1),
}
SPOT: dict[str, Any] = {"spot": True, "max_wait_s": 900, "checkpoint_s3_uri": f"s3://{BUCKET}/checkpoints"}


@dag(dag_id="chaos_training", schedule=None, max_active_runs=4)
def chaos_training() -> None:
    """Four jobs at the same time."""
    DistributedTrainingOperator(task_id="deferred", hyperparameters={"seconds": "9"}, **COMMON)
    DistributedTrainingOperator(task_id="waiting", deferrable=False, hyperparameters={"seconds": "9"}, **COMMON)
    DistributedTrainingOperator.partial(task_id="mapped", **SPOT, **COMMON).expand(
        hyperparameters=[{"seconds": "7"}, {"seconds": "11"}]
    )


chaos_training()
