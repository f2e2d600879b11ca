"""A task instance as operators see it, without an Airflow: who it is, and where its XComs go."""

from __future__ import annotations

import json
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from airflow_dlaws.local.process import LocalAws


class RunningTask:
    """One try of one task. `pushed` holds what the operator has pushed to XCom."""

    def __init__(
        self,
        task_id: str = "task",
        *,
        run_id: str = "run-1",
        run_type: str = "manual",
        try_number: int = 1,
        max_tries: int = 0,
        run_began: datetime | None = None,
    ) -> None:
        self.dag_id, self.run_id, self.task_id, self.map_index = "dag", run_id, task_id, -1
        self.run_type, self.try_number, self.max_tries = run_type, try_number, max_tries
        self.run_began = run_began
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep an XCom."""
        self.pushed[key] = value

    def xcom_pull(self, task_ids: str, key: str, map_indexes: int = -1) -> Any:
        """Return what this task has pushed."""
        assert (task_ids, map_indexes) == (self.task_id, self.map_index)
        return self.pushed.get(key)

    @property
    def context(self) -> dict[str, Any]:
        """What Airflow hands to `execute`."""
        return {"ti": self, "dag_run": SimpleNamespace(run_type=self.run_type, start_date=self.run_began)}


def resumed(operator: Any, deferred: Any, event: Any, context: Any) -> Any:
    """Let an operator go on after the event of its trigger, as Airflow does: with what went through its database."""
    kwargs = {**json.loads(json.dumps(deferred.kwargs or {})), "event": event}
    return operator.resume_execution(deferred.method_name, kwargs, context)


def aws_environment(monkeypatch: Any, aws: LocalAws) -> None:
    """Let every boto3 client of this process use the local AWS."""
    for name, value in aws.environment().items():
        monkeypatch.setenv(name, value)


def airflow_says(monkeypatch: Any, state: str, task: RunningTask) -> None:
    """Let Airflow answer that a task is in this state, to its worker and to its triggerer."""
    answer = SimpleNamespace(task_states={task.run_id: {task.task_id: state}})
    supervisor = SimpleNamespace(send=lambda question: answer)
    monkeypatch.setattr("airflow.sdk.execution_time.task_runner.SUPERVISOR_COMMS", supervisor, raising=False)
