"""What is seen of a training task while it is deferred, in a real Airflow."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from airflow_dlaws.local.airflow_api import wait_until
from airflow_dlaws.local.airflow_stack import LocalAirflow
from airflow_dlaws.local.process import LocalAws

pytestmark = [pytest.mark.airflow, pytest.mark.slow]
DAG = "train_with_progress"


def test_progress_is_read_through_the_api_while_the_task_is_deferred(
    airflow: LocalAirflow, local_aws: LocalAws
) -> None:
    airflow.api.wait_for_dags({DAG}, limit_s=60)
    airflow.api.unpause(DAG)
    run_id = airflow.api.trigger(DAG)

    def seen() -> dict[str, Any]:
        keys = airflow.api.call("GET", f"/dags/{DAG}/dagRuns/{run_id}/taskInstances/train/xcomEntries")
        if "progress" not in {entry["key"] for entry in keys["xcom_entries"]}:
            return {}
        progress = airflow.api.xcom(DAG, run_id, "train", "progress")
        return dict(progress)

    # Its first life makes three steps and then waits, so the task is deferred until the instances are taken away.
    wait_until(lambda: seen().get("step") == 3, limit_s=90, what="step 3 is seen", every_s=0.2)
    assert airflow.api.task_state(DAG, run_id, "train") == "deferred"
    progress = seen()
    assert (progress["steps"], progress["fraction"], progress["checkpoint_step"]) == (6, 0.5, 3)
    assert progress["sentence"].startswith("Progress: step 3 of 6, 50% done, loss 0.3333, 100 samples/s")

    links = airflow.api.links(DAG, run_id, "train")
    assert "CloudWatch logs" in links
    if links["Progress"]:  # this Airflow may have no address of its own
        assert links["Progress"].endswith(f"/dags/{DAG}/runs/{quote(run_id, safe='')}/tasks/train/xcom")

    job = airflow.api.xcom(DAG, run_id, "train", "dlaws_job")["reference"]["name"]
    local_aws.order_fault(kind="interruption", target=job, times=1)
    assert airflow.api.wait_for_run(DAG, run_id, limit_s=120) == "success"
    result = airflow.api.xcom(DAG, run_id, "train")
    assert (result["interruptions"], result["attempts"]) == (1, 1)
    assert result["cost_usd"] == pytest.approx(result["billable_seconds"] / 3600, abs=1e-6)
    assert seen()["step"] == 6
    log = airflow.api.log(DAG, run_id, "train", 1)
    assert "Progress: step 3 of 6, 50% done" in log
    assert "Job: Training" in log
