"""One approval, for the matrix of Airflow's versions: which way a person's word takes differs between them."""

from __future__ import annotations

from airflow.sdk import Param, dag

from airflow_dlaws.operators.approval import ModelApprovalOperator


def approve(package: str) -> None:
    """Wait for the word."""
    ModelApprovalOperator(
        task_id="approve",
        model_package_arn=package,
        details={"Rollout": "none"},
        poll_interval=1,
        timeout=300,
    )


@dag(dag_id="approve_once", schedule=None, params={"package": Param("", type="string")})
def approve_once() -> None:
    """Ask about the package of the run."""
    approve("{{ params.package }}")


@dag(dag_id="approve_newest", schedule=None)
def approve_newest() -> None:
    """Ask about another package after each registration, as where the task that registers is cleared too."""
    approve("{{ var.value.newest_package }}")


approve_once()
approve_newest()
