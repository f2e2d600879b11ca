"""Only for the demo: register a model that somebody built by hand, and roll it out without asking how good it is."""

from __future__ import annotations

import os
from datetime import datetime, timedelta

from airflow.sdk import Param, dag

from airflow_dlaws.operators.registry import RegisterModelOperator
from airflow_dlaws.operators.rollout import BlueGreenRolloutOperator

BUCKET = os.environ.get("DLAWS_BUCKET", "my-bucket")
ROLE_ARN = os.environ.get("DLAWS_ROLE_ARN", "arn:aws:iam::123456789012:role/sagemaker-execution")
IMAGE = os.environ.get("DLAWS_IMAGE", "123456789012.dkr.ecr.us-east-1.amazonaws.com/dlaws-torch:2.13")
ENDPOINT = os.environ.get("DLAWS_ENDPOINT", "flight-delays")
POLL_SECONDS = float(os.environ.get("DLAWS_POLL_SECONDS", "30"))


@dag(
    dag_id="demo_bad_model",
    schedule=None,
    start_date=datetime(2013, 1, 1),
    tags=["dlaws", "demo"],
    default_args={"retries": 2, "retry_delay": timedelta(seconds=POLL_SECONDS)},
    params={"artifact_s3_uri": Param("s3://bucket/model.tar.gz", type="string", title="Model artifact")},
    doc_md=__doc__,
)
def demo_bad_model() -> None:
    """Register, roll out."""
    register = RegisterModelOperator(
        task_id="register",
        model_package_group="flight-delays",
        image=IMAGE,
        artifact_uri="{{ params.artifact_s3_uri }}",
        approval_status="Approved",
        description="made by hand",
    )
    roll_out = BlueGreenRolloutOperator(
        task_id="roll_out",
        endpoint_name=ENDPOINT,
        model_package_arn="{{ ti.xcom_pull(task_ids='register')['package_arn'] }}",
        role_arn=ROLE_ARN,
        instance_type="ml.m5.large",
        canary_percent=30,
        wait_seconds=600,
        termination_wait_seconds=0,
        state_s3_uri=f"s3://{BUCKET}",
        data_capture_s3_uri=f"s3://{BUCKET}/capture",
        poll_interval=POLL_SECONDS,
    )
    register >> roll_out


demo_bad_model()
