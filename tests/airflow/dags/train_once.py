"""One training task in each way of waiting, for the tests that kill things."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import dag

from airflow_dlaws.operators.training import DistributedTrainingOperator

BUCKET = os.environ.get("DLAWS_BUCKET", "tests")
#: So long that a job still runs when what waits for it was killed and is back.
SECONDS = {"seconds": 12}


def train(deferrable: bool, **arguments: Any) -> DistributedTrainingOperator:
    """Return the training task."""
    return DistributedTrainingOperator(
        task_id="train",
        image="123456789012.dkr.ecr.us-east-1.amazonaws.com/dlaws-torch:2.13",
        source=str(Path(__file__).parent.parent / "scripts"),
        entry_point="wait_for_it.py",
        hyperparameters={"seconds": "{{ params.seconds }}"},
        channels={},
        output_s3_uri=f"s3://{BUCKET}/models",
        role_arn="arn:aws:iam::123456789012:role/dlaws-sagemaker",
        instance_type="ml.m5.large",
        instance_count=1,
        deferrable=deferrable,
        poll_interval=1,
        **{"retries": 2, "retry_delay": timedelta(seconds=1)} | arguments,
    )


@dag(dag_id="train_deferred", schedule=None, params=SECONDS)
def train_deferred() -> None:
    """Waits in the triggerer."""
    train(deferrable=True)


@dag(dag_id="train_waiting", schedule=None, params=SECONDS)
def train_waiting() -> None:
    """Waits in the worker."""
    train(deferrable=False)


def take_time(context: Any) -> None:
    """Say that the task has begun, and publish much code."""
    context["ti"].xcom_push(key="begun", value=True)
    time.sleep(1.5)


@dag(dag_id="train_after_a_while", schedule=None, params=SECONDS)
def train_after_a_while() -> None:
    """Takes its time before it starts its job, and waits in the triggerer."""
    train(deferrable=True, pre_execute=take_time)


@dag(dag_id="train_for_the_last_time", schedule=None, params=SECONDS)
def train_for_the_last_time() -> None:
    """Waits in the worker, and is not tried again."""
    train(deferrable=False, retries=0)


@dag(dag_id="train_again_tomorrow", schedule=None, params=SECONDS)
def train_again_tomorrow() -> None:
    """Waits in the worker; a retry comes much later."""
    train(deferrable=False, retry_delay=timedelta(days=1))


@dag(dag_id="train_in_time", schedule=None, params=SECONDS, dagrun_timeout=timedelta(seconds=30))
def train_in_time() -> None:
    """Waits in the worker; a retry would come after the run's time."""
    train(deferrable=False, retry_delay=timedelta(days=1))


@dag(dag_id="train_in_any_case", schedule=None, params=SECONDS)
def train_in_any_case() -> None:
    """Waits in the worker; its job runs on when it is killed."""
    train(deferrable=False, retries=0, stop_on_kill=False)


train_deferred()
train_waiting()
train_for_the_last_time()
train_again_tomorrow()
train_in_time()
train_in_any_case()
train_after_a_while()
