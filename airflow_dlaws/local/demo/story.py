"""The demo's acts: a first model, drifting traffic, a retrain that is promoted, and a bad model that is refused.

Everything is driven through Airflow's REST API and SageMaker's own API, as a team would; `facts` holds what was read
back.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from airflow_dlaws.local.airflow_api import ENDED, AirflowApi
from airflow_dlaws.local.demo import observe
from airflow_dlaws.local.demo.broken_model import break_model
from airflow_dlaws.local.demo.scene import BUCKET, ENDPOINT, Scene
from airflow_dlaws.local.demo.timeline import Timeline
from airflow_dlaws.local.demo.traffic import Sender, Stream, feature_rows

RETRAIN, MONITOR, BAD_MODEL = "retrain_on_drift", "monitor_endpoint", "demo_bad_model"
#: The first champion trains on January and February, and is scored on March.
FIRST_MONTHS = ("2013-01", "2013-02", "2013-03")
#: About a sixth of a month's flights; as many as monitor_endpoint takes for one look, so that it looks once a month.
ROWS_PER_MONTH = 4000
ROWS_PER_REQUEST = 100
#: Single flights a second while a rollout goes on: what two cores serve beside Airflow without falling behind.
LIVE_PER_SECOND = 15.0
#: A run on two cores takes about 90 s; one that takes this long is stuck.
_RUN_LIMIT_S = 360.0
_RESULTS = ("validate", "train", "evaluate", "register", "roll_out")


class DemoFailed(Exception):
    """Something did not happen that the demo exists to show."""


class Story:
    """Plays the acts one after the other. `months` maps "2013-01" to its CSV file."""

    def __init__(self, scene: Scene, timeline: Timeline, months: Mapping[str, Path]) -> None:
        self.scene, self.timeline, self.months = scene, timeline, months
        self.facts: dict[str, Any] = {}

    @cached_property
    def _sender(self) -> Sender:
        return Sender(self.scene.client("sagemaker-runtime"), ENDPOINT)

    @cached_property
    def _sagemaker(self) -> Any:
        return self.scene.client("sagemaker")

    @property
    def api(self) -> AirflowApi:
        """The REST API of the demo's Airflow."""
        if self.scene.airflow is None:
            raise DemoFailed("Airflow is not running")
        return self.scene.airflow.api

    def play(self) -> None:
        """Play all acts."""
        self.first_model()
        self.drift()
        self.promotion()
        self.refusal()
        jobs = observe.training_jobs(self._sagemaker)
        self.facts["training_jobs"] = jobs
        self.facts["jobs_per_task"] = observe.jobs_per_task(jobs)

    def first_model(self) -> None:
        """Train, evaluate, register and deploy on the first months; a person triggers the run."""
        for month in FIRST_MONTHS:
            self._publish(month)
        self.timeline.tell(f"flights of {', '.join(FIRST_MONTHS)} are in S3; triggering {RETRAIN} by hand")
        self.api.unpause(RETRAIN)
        run = self._finish(RETRAIN, self.api.trigger(RETRAIN), expected="success")
        live = observe.live_configuration(self._sagemaker, ENDPOINT)
        self.facts["first_model"] = {**run, "live": live}
        metrics = run["results"]["train"]["metrics"]
        self.timeline.tell(f"first model in service: {live['endpoint_config']} ({_brief(metrics)})", mark="✓")

    def drift(self) -> None:
        """Replay month after month as requests, until the sensor's asset event is there."""
        self.api.unpause(MONITOR)
        replayed = []
        for month in [month for month in self.months if month > FIRST_MONTHS[-1]]:
            rows = feature_rows(self.months[month], ROWS_PER_MONTH)
            self.timeline.tell(f"replaying {len(rows)} flights of {month} as requests")
            # The month's labels are known when it is over, which is before the sensor can have seen all its requests.
            answers = self._sender.replay(month, rows[:-ROWS_PER_REQUEST], ROWS_PER_REQUEST)
            self._publish(month)
            answers += self._sender.replay(f"{month}-end", rows[-ROWS_PER_REQUEST:], ROWS_PER_REQUEST)
            failed = sum(bool(answer.error) for answer in answers)
            replayed.append({"month": month, "rows": len(rows), "failed_requests": failed})
            if self._sensor_fired(ROWS_PER_MONTH * len(replayed)):
                break
        else:
            raise DemoFailed("all months were replayed and the drift sensor did not fire")
        self.facts["drift"] = {"replayed": replayed, **self._drift_facts()}
        self.timeline.tell(f"{replayed[-1]['month']}: {self.facts['drift']['sentence']}", mark="!")

    def promotion(self) -> None:
        """Follow the run that the asset event started: retrain, comparison, canary, promotion."""
        run_id = self._asset_run()
        self.timeline.tell(f"the asset event started {RETRAIN}: {run_id}")
        before = observe.live_configuration(self._sagemaker, ENDPOINT)
        self._await_task(RETRAIN, run_id, "roll_out")
        with self._live_traffic() as stream:
            run = self._finish(RETRAIN, run_id, expected="success")
        if "roll_out" not in run["results"]:
            raise DemoFailed(f"the challenger was not deployed: {run['tasks']}\n{self._why_not(run_id)}")
        rollout = run["results"]["roll_out"]
        live = observe.live_configuration(self._sagemaker, ENDPOINT)
        if (
            live["endpoint_config"] != rollout["endpoint_config_name"]
            or live["status"] != "InService"
            or live["pending"]
        ):
            raise DemoFailed(f"the rollout says {rollout['endpoint_config_name']}, SageMaker says {live}")
        report = self._rollout_record(rollout["report_uri"])
        self.facts["promotion"] = {
            **run,
            "before": before,
            "live": live,
            "traffic": _traffic(stream),
            "rollout": report,
        }
        evaluation = run["results"]["evaluate"]
        self.timeline.tell(f"challenger against champion: {evaluation['verdict']} ({evaluation.get('reason', '')})")
        self.timeline.tell(
            f"promoted: {live['endpoint_config']} in service; {_count(stream)}",
            mark="✓",
        )

    def refusal(self) -> None:
        """Roll out a model that fails on a share of requests; the canary must refuse it."""
        before = observe.live_configuration(self._sagemaker, ENDPOINT)
        artifact = self._publish_broken_model()
        self.timeline.tell("rolling out a model whose handler fails on one airline")
        self.api.unpause(BAD_MODEL)
        run_id = self.api.trigger(BAD_MODEL, {"artifact_s3_uri": artifact})
        self._await_task(BAD_MODEL, run_id, "roll_out")
        with self._live_traffic() as stream:
            run = self._finish(BAD_MODEL, run_id, expected="failed")
        live = observe.live_configuration(self._sagemaker, ENDPOINT)
        if live["endpoint_config"] != before["endpoint_config"] or live["status"] != "InService" or live["pending"]:
            raise DemoFailed(f"before the bad model {before}, after it {live}")
        reason = _failure(self.api.log(BAD_MODEL, run_id, "roll_out", self._tries(BAD_MODEL, run_id, "roll_out")))
        report = self._rollout_record(_report_uri(reason))
        self.facts["refusal"] = {
            **run,
            "before": before,
            "live": live,
            "traffic": _traffic(stream),
            "reason": reason,
            "rollout": report,
        }
        self.timeline.tell(f"refused, and the task is red: {reason}", mark="✗")
        self.timeline.tell(
            f"in service as before: {live['endpoint_config']}; {_count(stream)}",
            mark="✓",
        )

    def _publish(self, month: str) -> None:
        key = f"flights/month={month}/flights.csv"
        self.scene.client("s3").upload_file(str(self.months[month]), BUCKET, key)

    def _publish_broken_model(self) -> str:
        s3 = self.scene.client("s3")
        bucket, _, key = (
            self.facts["promotion"]["results"]["train"]["artifact_uri"].removeprefix("s3://").partition("/")
        )
        good = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        s3.put_object(Bucket=BUCKET, Key="models/hand-made/output/model.tar.gz", Body=break_model(good))
        return f"s3://{BUCKET}/models/hand-made/output/model.tar.gz"

    def _rollout_record(self, report_uri: str) -> Any:
        """Return every look of a rollout; the record lies beside its report."""
        bucket, _, key = report_uri.removeprefix("s3://").removesuffix(".html").partition("/")
        key += ".json"
        return json.loads(self.scene.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())

    def _live_traffic(self) -> Stream:
        month = self.facts["drift"]["replayed"][-1]["month"]
        return Stream(self._sender, feature_rows(self.months[month], ROWS_PER_MONTH), LIVE_PER_SECOND)

    def _sensor_fired(self, rows: int) -> bool:
        """Wait until the sensor has read `rows` rows and judged them; return whether it found drift."""
        deadline = time.monotonic() + _RUN_LIMIT_S
        while time.monotonic() < deadline:
            state = observe.sensor_state(self.scene.client("s3"), BUCKET)
            if state and state["alarm"]:
                return True
            if state and state["total"]["rows"] >= rows and state["window"]["rows"] < ROWS_PER_MONTH:
                return False
            self.timeline.progress("waiting for the sensor to look at the captured requests")
            time.sleep(1)
        raise DemoFailed(f"the sensor did not look at the captured requests: {state}")

    def _drift_facts(self) -> dict[str, Any]:
        """Return what the sensor task returned, and the looks its state holds."""
        self._asset_run()
        (event,) = self.api.call("GET", "/assets/events")["asset_events"]
        state = observe.sensor_state(self.scene.client("s3"), BUCKET) or {}
        source = event["source_dag_id"], event["source_run_id"], event["source_task_id"]
        summary = self.api.xcom(*source)
        return {"source": source, "event": event["extra"], "looks": state["history"], **summary}

    def _asset_run(self) -> str:
        """Return the run that the asset event started, once it has begun.

        Before it has, Airflow 3.3.2 answers questions about asset events with 500: it asks for a start date.
        """

        def started() -> list[str]:
            runs = self.api.runs(RETRAIN)
            return [run["dag_run_id"] for run in runs if run["run_type"] == "asset_triggered" and run["start_date"]]

        return str(self._wait_for(started, f"a run of {RETRAIN} that the asset event started", 60)[0])

    def _wait_for(self, look: Callable[[], list[Any]], what: str, limit_s: float) -> list[Any]:
        deadline = time.monotonic() + limit_s
        while not (found := look()):
            if time.monotonic() > deadline:
                raise DemoFailed(f"after {limit_s:.0f} s there is still not {what}")
            time.sleep(0.5)
        return found

    def _await_task(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Return when the task has begun, or the run has ended without it."""
        deadline = time.monotonic() + _RUN_LIMIT_S
        while time.monotonic() < deadline:
            states = {name: row["state"] for name, row in self.api.tasks(dag_id, run_id).items()}
            if states.get(task_id) in ENDED | {"running", "deferred"} or self.api.run_state(dag_id, run_id) in ENDED:
                return
            self._show(dag_id, states)
            time.sleep(1)
        raise DemoFailed(f"{task_id} of {dag_id} did not begin")

    def _finish(self, dag_id: str, run_id: str, *, expected: str) -> dict[str, Any]:
        """Wait for the run's end and return what it did."""
        deadline = time.monotonic() + _RUN_LIMIT_S
        while (state := self.api.run_state(dag_id, run_id)) not in ENDED:
            if time.monotonic() > deadline:
                raise DemoFailed(f"run {run_id} of {dag_id} has not ended: {self.api.tasks(dag_id, run_id)}")
            self._show(dag_id, {name: row["state"] for name, row in self.api.tasks(dag_id, run_id).items()})
            time.sleep(1)
        facts = observe.run_facts(self.api, dag_id, run_id, tuple(set(_RESULTS) & set(self.api.tasks(dag_id, run_id))))
        if state != expected:
            raise DemoFailed(
                f"run {run_id} of {dag_id} ended {state}, not {expected}: {facts['tasks']}\n{self._why(facts)}"
            )
        return facts

    def _why_not(self, run_id: str) -> str:
        return self.api.log(RETRAIN, run_id, "evaluate", self._tries(RETRAIN, run_id, "evaluate"))[-1000:]

    def _why(self, facts: Mapping[str, Any]) -> str:
        failed = [name for name, state in facts["tasks"].items() if state == "failed"]
        dag_id, run_id = facts["dag"], facts["run"]
        return "\n".join(
            self.api.log(dag_id, run_id, name, self._tries(dag_id, run_id, name))[-3000:] for name in failed
        )

    def _tries(self, dag_id: str, run_id: str, task_id: str) -> int:
        return int(self.api.tasks(dag_id, run_id)[task_id]["try_number"])

    def _show(self, dag_id: str, states: Mapping[str, str | None]) -> None:
        now = [f"{name} {state}" for name, state in states.items() if state in {"queued", "running", "deferred"}]
        self.timeline.progress(f"{dag_id}: {', '.join(now) or 'scheduling'}")


def _brief(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in sorted(metrics.items()))


def _traffic(stream: Stream) -> dict[str, Any]:
    answers = stream.answers
    return {
        "requests": len(answers),
        "failed": stream.failed,
        "answers": [[round(answer.at, 2), bool(answer.error)] for answer in answers],
        "errors": dict(Counter(answer.error.partition("(")[0] for answer in answers if answer.error)),
    }


def _count(stream: Stream) -> str:
    return f"{stream.failed} of {len(stream.answers)} requests failed"


def _failure(log: str) -> str:
    """Return what a task log says the task failed with: the exception that Airflow caught."""
    errors = re.findall(r"^AirflowFailException: (.*)$", log, re.MULTILINE)
    if not errors:
        raise DemoFailed(f"the log of the refused rollout does not say why:\n{log[-3000:]}")
    return str(errors[-1])


def _report_uri(reason: str) -> str:
    """Return the location of the report that a refused rollout's message names."""
    (uri,) = re.findall(r"Report: (s3://\S+)", reason)
    return str(uri)
