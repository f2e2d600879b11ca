"""The few calls of Airflow's REST API (v2) that the demo and the tests make."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

#: States after which a run or a task instance changes no more by itself.
ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})


class AirflowApi:
    """A client of one Airflow with the simple auth manager.

    :param login: user name and password; without one, the auth manager must let everybody in as admin.
    :param guard: called before each call; what it raises ends the waiting of whoever calls.
    """

    def __init__(
        self, url: str, login: tuple[str, str] | None = None, guard: Callable[[], None] = lambda: None
    ) -> None:
        self._url, self._login, self._guard = url, login, guard
        self._token = ""

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """Call `/api/v2` + `path`; return the decoded answer.

        :raises RuntimeError: the API answered with an error; the message carries its text.
        """
        self._guard()
        if not self._token:
            self._token = self._new_token()
        suffix = f"?{urlencode(query, doseq=True)}" if query else ""
        return self._request(method, f"/api/v2{path}{suffix}", body)

    def _new_token(self) -> str:
        if self._login is None:
            return str(self._request("GET", "/auth/token")["access_token"])
        user, password = self._login
        return str(self._request("POST", "/auth/token", {"username": user, "password": password})["access_token"])

    def _request(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {path}: {error.code} {error.read().decode()[:1000]}") from error
        return json.loads(text) if text else None

    def health(self) -> dict[str, Any]:
        """Return what each component reports; empty while the API server does not answer."""
        try:
            return dict(self._request("GET", "/api/v2/monitor/health"))
        except (OSError, RuntimeError):
            return {}

    def healthy(self) -> bool:
        """Tell whether all four components report healthy."""
        parts = ("metadatabase", "scheduler", "triggerer", "dag_processor")
        health = self.health()
        return bool(health) and all(health.get(part, {}).get("status") == "healthy" for part in parts)

    def wait_for_dags(self, dag_ids: set[str], *, limit_s: float) -> None:
        """Return when the DAGs are parsed.

        :raises RuntimeError: an import error was reported for a DAG file.
        """

        def parsed() -> bool:
            errors = self.call("GET", "/importErrors")["import_errors"]
            if errors:
                raise RuntimeError("\n".join(f"{row['filename']}: {row['stack_trace']}" for row in errors))
            return dag_ids <= {row["dag_id"] for row in self.call("GET", "/dags", limit=100)["dags"]}

        wait_until(parsed, limit_s=limit_s, what=f"DAGs {sorted(dag_ids)} are parsed")

    def unpause(self, dag_id: str) -> None:
        """Let the DAG run."""
        self.call("PATCH", f"/dags/{dag_id}", {"is_paused": False})

    def parse(self, dag_id: str) -> None:
        """Let the DAG's file be parsed now: only that starts the asset watchers of a DAG that was unpaused."""
        self.call("PUT", f"/parseDagFile/{self.call('GET', f'/dags/{dag_id}')['file_token']}")

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Start a run as the UI's form does; return its run id."""
        answer = self.call("POST", f"/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": dict(conf or {})})
        return str(answer["dag_run_id"])

    def backfill(self, request: Mapping[str, Any]) -> int:
        """Create a backfill from the body that the API takes; return its id.

        With SQLite, Airflow answers "Database is locked" while the scheduler writes: asked again, for half a minute.
        """
        return int(self._unlocked("POST", "/backfills", dict(request))["id"])

    def end_backfill(self, backfill_id: int) -> None:
        """End a backfill whose runs have ended; Airflow's timer does so within a minute, and may have come first."""
        try:
            self._unlocked("PUT", f"/backfills/{backfill_id}/cancel")
        except RuntimeError as error:
            if "already completed" not in str(error):
                raise

    def _unlocked(self, method: str, path: str, body: Any = None) -> Any:
        """Call until SQLite is not locked by the scheduler."""
        answers: list[Any] = []

        def answered() -> bool:
            try:
                answers.append(self.call(method, path, body))
            except RuntimeError as error:
                if "database is locked" not in str(error).lower():
                    raise
            return bool(answers)

        wait_until(answered, limit_s=30, what=f"{method} {path} is answered")
        return answers[0]

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the runs of a DAG, oldest first."""
        return list(self.call("GET", f"/dags/{dag_id}/dagRuns", order_by="run_after", limit=100)["dag_runs"])

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a run."""
        return str(self.call("GET", f"/dags/{dag_id}/dagRuns/{quote(run_id)}")["state"])

    def tasks(self, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
        """Return the task instances of a run by task id; of mapped ones, the last."""
        return {row["task_id"]: row for row in self.task_rows(dag_id, run_id)}

    def task_rows(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return all task instances of a run."""
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances"
        return list(self.call("GET", path, limit=100)["task_instances"])

    def task_state(self, dag_id: str, run_id: str, task_id: str) -> str:
        """Return the state of a task instance."""
        return str(self.tasks(dag_id, run_id)[task_id]["state"])

    def set_task_state(self, dag_id: str, run_id: str, task_id: str, state: str) -> None:
        """Mark a task instance, as a person does in the UI."""
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}"
        self.call("PATCH", path, {"new_state": state})

    def question(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
        """Return what a task asks people (Airflow 3.1 and later), and what they have answered."""
        return dict(self.call("GET", _hitl_path(dag_id, run_id, task_id)))

    def answer(
        self, dag_id: str, run_id: str, task_id: str, option: str, form: Mapping[str, Any] | None = None
    ) -> None:
        """Answer a task's question, as a person does under "Required actions"."""
        body = {"chosen_options": [option], "params_input": dict(form or {})}
        self.call("PATCH", _hitl_path(dag_id, run_id, task_id), body)

    def clear(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Clear a task instance, as a person does in the UI."""
        body = {
            "dry_run": False,
            "dag_run_id": run_id,
            "task_ids": [task_id],
            "only_failed": False,
            "reset_dag_runs": True,
        }
        self.call("POST", f"/dags/{dag_id}/clearTaskInstances", body)

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """Return an XCom value."""
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}/xcomEntries/{key}"
        value = self.call("GET", path, deserialize=False)["value"]
        return json.loads(value) if isinstance(value, str) and value.startswith(("{", "[", '"')) else value

    def links(self, dag_id: str, run_id: str, task_id: str) -> dict[str, str]:
        """Return the extra links of a task instance by name."""
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}/links"
        return dict(self.call("GET", path)["extra_links"])

    def log(self, dag_id: str, run_id: str, task_id: str, attempt: int) -> str:
        """Return the log of one try of a task instance as text."""
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}/logs/{attempt}"
        content = self.call("GET", path, full_content=True)["content"]
        return "\n".join(line for row in content for line in _log_lines(row))

    def wait_for_run(self, dag_id: str, run_id: str, *, limit_s: float) -> str:
        """Wait until a run has ended; return its state."""
        what = f"run {run_id} of {dag_id} has ended"
        wait_until(lambda: self.run_state(dag_id, run_id) in ENDED, limit_s=limit_s, what=what)
        return self.run_state(dag_id, run_id)


def _hitl_path(dag_id: str, run_id: str, task_id: str) -> str:
    return f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}/-1/hitlDetails"


def _log_lines(row: Any) -> list[str]:
    """Return a structured log row as text: what happened, and the exceptions it carries, the outermost first."""
    if not isinstance(row, dict):
        return [str(row)]
    errors = [f"{error['exc_type']}: {error['exc_value']}" for error in row.get("error_detail") or []]
    return [str(row.get("event", row)), *errors]


def wait_until(condition: Callable[[], bool], *, limit_s: float, what: str, every_s: float = 0.5) -> None:
    """Return when `condition()` holds.

    :raises TimeoutError: it did not within `limit_s` seconds.
    """
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {limit_s:.0f} s still not: {what}")
        time.sleep(every_s)
