"""One approval, for the matrix of Airflow's versions: which way a person's word takes differs between them."""

from __future__ import annotations

from airflow.sdk import Param, dag

from airflow_dlaws.operators.approval import ModelApprovalOperator


@dag(dag_id="approve_once", schedule=None, params={"package": Param("", type="string")})
def approve_once() -> None:
    """Wait for the word."""
    ModelApprovalOperator(
        task_id="approve",
        model_package_arn="{{ params.package }}",
        details={"Rollout": "none"},
        poll_interval=1,
        timeout=300,
    )


approve_once()
