"""One rollout, as the run's form says: for the tests of shadow, rolling and rehearsal in a real Airflow."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag

from airflow_dlaws.operators.rollout import BlueGreenRolloutOperator

#: AWS's own waits are a twentieth of these here; the shadow's time is ours, and real.
FORM = {
    "endpoint": Param("", type="string"),
    "package": Param("", type="string"),
    "state": Param("", type="string"),
    "strategy": Param("canary", type="string"),
    "instance_type": Param("ml.m5.large", type="string"),
    "instances": Param(1, type="integer"),
    "wait_seconds": Param(120, type="integer"),
    "shadow_seconds": Param(0, type="integer"),
    "samples": Param(None, type=["string", "null"]),
}


def roll_out(deferrable: bool) -> BlueGreenRolloutOperator:
    """Return the rollout; its plan comes as text."""
    return BlueGreenRolloutOperator(
        task_id="roll_out",
        aws_conn_id="rollout_aws",
        endpoint_name="{{ params.endpoint }}",
        model_package_arn="{{ params.package }}",
        role_arn="arn:aws:iam::123456789012:role/dlaws-sagemaker",
        instance_type="{{ params.instance_type }}",
        initial_instance_count="{{ params.instances }}",
        state_s3_uri="{{ params.state }}",
        strategy="{{ params.strategy }}",
        canary_percent=50,
        wait_seconds="{{ params.wait_seconds }}",
        termination_wait_seconds=20,
        min_requests=5,
        # These models answer within a millisecond: what else the machine does decides how fast.
        judge_latency=False,
        shadow_seconds="{{ params.shadow_seconds }}",
        capture_lag_seconds=120,
        sample_requests="{{ params.samples }}",
        # So long at least the task is away, which leaves the scheduler time to hear that its worker is gone.
        poll_interval=3,
        deferrable=deferrable,
        retries=2,
        retry_delay=timedelta(seconds=1),
    )


@dag(dag_id="roll_out_once", schedule=None, params=FORM)
def roll_out_once() -> None:
    """Waits in the triggerer."""
    roll_out(deferrable=True)


@dag(dag_id="roll_out_on_worker", schedule=None, params=FORM)
def roll_out_on_worker() -> None:
    """Waits in the worker."""
    roll_out(deferrable=False)


roll_out_once()
roll_out_on_worker()
