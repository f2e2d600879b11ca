"""What `retrain_on_drift` approves and deploys, for every way in which a run can start.

The template's own tasks run against the local AWS, rendered with the run that Airflow would hand them.
"""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.api.datamodels._generated import DagRun
from airflow.sdk.exceptions import AirflowSkipException
from rollout_bench import IMAGE, ROLE, RolloutBench
from running_task import RunningTask, aws_environment

from airflow_dlaws.local.process import LocalAws

TEMPLATE = Path(__file__).parent.parent.parent / "dags" / "retrain_on_drift.py"
JANUARY = (datetime(2013, 1, 2, 6, tzinfo=UTC), datetime(2013, 2, 2, 6, tzinfo=UTC))
IN_TIME, LATER = datetime(2013, 2, 2, 6, 1, tzinfo=UTC), datetime(2013, 9, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Row:
    """How a run came to be, and what must come of it."""

    started_by: str
    run_type: str
    run_id: str
    interval: tuple[datetime, datetime] | tuple[None, None] = (None, None)
    began: datetime = IN_TIME
    form: dict[str, Any] = field(default_factory=dict)
    deploys: bool


TABLE = [
    Row(started_by="the drift asset", run_type="asset_triggered", run_id="asset_triggered__1", deploys=True),
    Row(started_by="the calendar", run_type="scheduled", run_id="scheduled__1", interval=JANUARY, deploys=True),
    Row(
        started_by="a person in the UI",
        run_type="manual",
        run_id="manual__1",
        form={"strategy": "all_at_once", "wait_seconds": 1},
        deploys=True,
    ),
    Row(started_by="another DAG", run_type="operator_triggered", run_id="triggered__1", deploys=True),
    Row(
        started_by="a backfill", run_type="backfill", run_id="backfill__1", interval=JANUARY, began=LATER, deploys=False
    ),
    Row(
        started_by="a backfill that reprocesses a run of the calendar",
        run_type="backfill",
        run_id="scheduled__1",
        interval=JANUARY,
        began=LATER,
        deploys=False,
    ),
    Row(
        started_by="a backfill that was asked to deploy",
        run_type="backfill",
        run_id="backfill__2",
        interval=JANUARY,
        began=LATER,
        form={"deploy_in_backfill": True},
        deploys=True,
    ),
    Row(
        started_by="the calendar, and cleared months later",
        run_type="scheduled",
        run_id="scheduled__1",
        interval=JANUARY,
        began=LATER,
        deploys=False,
    ),
]


class Run(RunningTask):
    """A run of the template: its tasks see what Airflow 3.3 would show them, and hand each other their results."""

    def __init__(self, dag: DAG, row: Row, results: dict[str, Any]) -> None:
        super().__init__("task", run_id=row.run_id)
        self.dag, self.dag_id, self.row, self.results = dag, dag.dag_id, row, results

    def xcom_pull(self, task_ids: str, key: str, **_: Any) -> Any:
        result = self.results[task_ids]
        return result if key == "return_value" else result[key]

    @property
    def context(self) -> dict[str, Any]:
        start, end = self.row.interval
        dag_run = DagRun(
            dag_id=self.dag_id,
            run_id=self.run_id,
            logical_date=start,
            data_interval_start=start,
            data_interval_end=end,
            run_after=end or self.row.began,
            start_date=self.row.began,
            end_date=None,
            run_type=self.row.run_type,
            state="running",
            conf=self.row.form,
            consumed_asset_events=[],
            partition_key=None,
        )
        self.dag.params.update(self.row.form)
        params = self.dag.params.validate()
        interval = {"logical_date": start, "data_interval_start": start, "data_interval_end": end} if start else {}
        return {"ti": self, "dag_run": dag_run, "params": params, "run_id": self.run_id, **interval}

    def execute(self, task_id: str) -> Any:
        """Render a task and run it to its end in this process."""
        self.task_id, task = task_id, self.dag.get_task(task_id)
        task.deferrable, task.aws_conn_id = False, None
        task.render_template_fields(self.context)
        self.results[task_id] = task.execute(self.context)
        return self.results[task_id]


@pytest.fixture
def bench(local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> Iterator[RolloutBench]:
    aws_environment(monkeypatch, local_aws)
    bench = RolloutBench(local_aws)
    for name, value in {"BUCKET": bench.name, "ENDPOINT": bench.name, "IMAGE": IMAGE, "ROLE_ARN": ROLE}.items():
        monkeypatch.setenv(f"DLAWS_{name}", value)
    monkeypatch.setenv("DLAWS_POLL_SECONDS", "0.4")
    yield bench
    if served(bench):
        bench.sagemaker.delete_endpoint(EndpointName=bench.name)


def served(bench: RolloutBench) -> bool:
    rows = bench.sagemaker.list_endpoints(NameContains=bench.name)["Endpoints"]
    return [row["EndpointStatus"] for row in rows] == ["InService"]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.started_by)
def test_a_run_deploys_or_leaves_the_endpoint_alone(bench: RolloutBench, row: Row) -> None:
    dag = runpy.run_path(str(TEMPLATE))["retrain_on_drift"]()
    bench.package("challenger")
    training = {"job_name": "train-1", "artifact_uri": f"s3://{bench.name}/challenger/model.tar.gz", "output_uri": ""}
    results = {"train": training, "validate": {"passed": True}, "evaluate": {"verdict": "better", "passed": True}}
    run = Run(dag, row, results)

    registered = run.execute("register")
    assert registered["approval_status"] == ("Approved" if row.deploys else "PendingManualApproval")
    if not row.deploys:
        with pytest.raises(AirflowSkipException, match="is left alone"):
            run.execute("roll_out")
        assert not served(bench)
        return
    rolled_out = run.execute("roll_out")
    assert served(bench)
    assert rolled_out["endpoint_config_name"] == bench.live_config()
    assert dag.get_task("roll_out").strategy == row.form.get("strategy", "canary")
