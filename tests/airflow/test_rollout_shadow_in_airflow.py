"""Shadow, rolling and rehearsal in a real Airflow: four rollouts at once outlive a triggerer, and a task is marked."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from conftest import aws_connection
from rollout_bench import RolloutBench, Traffic

from airflow_dlaws.local.airflow_api import ENDED, wait_until
from airflow_dlaws.local.airflow_stack import LocalAirflow
from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.rollout.state import Cause, RolloutState, Step

DAG, ON_WORKER, TASK = "roll_out_once", "roll_out_on_worker", "roll_out"
#: What must never be read anywhere but in Airflow's connection.
SECRET = "secret-0123456789-of-the-rollout"
#: A result is a few names and numbers, and a sentence.
MOST_XCOM_BYTES = 4000

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(1200)]


class Rollout:
    """One endpoint with a model in service, traffic on it, and a run that rolls another model out there."""

    def __init__(self, airflow: LocalAirflow, aws: LocalAws, *, dag: str = DAG, instances: int = 1) -> None:
        self._api, self.bench, self._dag, self._run = airflow.api, RolloutBench(aws), dag, ""
        self.bench.serve(self.bench.package("blue", labels=3))
        if instances > 1:
            self.bench.scale(instances=instances)
        self.before = self.bench.describe()
        self.traffic = Traffic(aws, self.bench.name, per_second=10, threads=1)

    def start(self, form: dict[str, Any], **behaviour: Any) -> None:
        package = self.bench.package("green", labels=3, **behaviour)
        place = {"endpoint": self.bench.name, "package": package, "state": f"s3://{self.bench.name}/state"}
        self._run = self._api.trigger(self._dag, {**place, **form})

    @property
    def task_state(self) -> str:
        return self._api.task_state(self._dag, self._run, TASK)

    def wait(self, expected: str) -> None:
        assert self._api.wait_for_run(self._dag, self._run, limit_s=300) == expected, self.log()

    def mark_failed(self) -> None:
        self._api.set_task_state(self._dag, self._run, TASK, "failed")

    def log(self) -> str:
        tries = range(1, self._api.tasks(self._dag, self._run)[TASK]["try_number"] + 1)
        return "\n".join(self._api.log(self._dag, self._run, TASK, number) for number in tries)

    def result(self, key: str = "return_value") -> Any:
        return self._api.xcom(self._dag, self._run, TASK, key)

    def report(self) -> str:
        with urllib.request.urlopen(self._api.links(self._dag, self._run, TASK)["Report"]) as answer:
            return str(answer.read().decode())

    def state(self) -> RolloutState:
        return self.bench.record(self.bench.only_config()).state

    def pairs(self) -> int:
        """Return how many requests the shadow was seen to answer so far."""
        shadow = self.state().shadow if self.bench.configs() else None
        return shadow.answers.pairs if shadow else 0

    def is_at_rest_without_shadow(self) -> bool:
        answer = self.bench.describe()
        return answer["EndpointStatus"] == "InService" and not answer.get("ShadowProductionVariants")

    def serves_as_before(self) -> bool:
        """Tell whether the endpoint is at rest on what it served, and was never moved elsewhere."""
        return self.bench.live_config() == self.before["EndpointConfigName"] and "green" not in self.traffic.answers


@pytest.fixture(scope="module")
def rollouts(airflow: LocalAirflow, local_aws: LocalAws) -> Iterator[LocalAirflow]:
    """Airflow with the DAG, and a connection whose secret can be told from other words."""
    secret = {"connection_id": "rollout_aws", "login": "local", "password": SECRET}
    airflow.api.call("POST", "/connections", {**aws_connection(local_aws), **secret})
    airflow.api.wait_for_dags({DAG, ON_WORKER}, limit_s=60)
    for dag_id in (DAG, ON_WORKER):
        airflow.api.unpause(dag_id)
    yield airflow
    airflow.api.call("DELETE", "/connections/rollout_aws")


def test_four_rollouts_at_once_outlive_their_triggerer_and_end_as_their_models_deserve(
    rollouts: LocalAirflow, local_aws: LocalAws
) -> None:
    good, other, rolling, failing = (Rollout(rollouts, local_aws, instances=n) for n in (1, 1, 3, 1))
    shadow = {"shadow_seconds": 6}
    types = {"strategy": "rolling", "instances": 3, "wait_seconds": 60, "instance_type": "ml.c5.large"}
    with ExitStack() as sending:
        for rollout in (good, other, rolling, failing):
            sending.enter_context(rollout.traffic)
        good.start(shadow)
        other.start(shadow, flip_every=3)
        rolling.start(types)
        failing.start({"samples": failing.bench.samples("1", "2", "3", "4")}, fail_every=3)
        wait_until(lambda: good.pairs() > 0, limit_s=300, what="the shadow answers")
        rollouts.kill_component("triggerer")
        rollouts.start_component("triggerer")
        good.wait("success")
        other.wait("failed")
        rolling.wait("success")
        failing.wait("failed")

    assert good.bench.live_config() == good.result()["endpoint_config_name"]
    assert (good.result("outcome"), good.result("not_told")) == ("promoted", "")
    assert len(json.dumps(good.result())) < MOST_XCOM_BYTES
    assert "removing_shadow (unshadow): the shadow has passed: " in good.log()
    assert set(good.traffic.answers) == {"blue", "green"}

    assert other.serves_as_before()
    assert (other.state().step, other.state().cause) == (Step.ROLLED_BACK, Cause.SHADOW)
    assert "as a shadow the new model is worse than the one in service, and no user has seen it" in other.log()
    assert "the shadow answered" in other.report()

    assert rolling.bench.live_config() == rolling.result()["endpoint_config_name"]
    assert rolling.bench.instances() == 3
    assert "is as it was: 1 to 4 instances by tracking, morning" in rolling.log()

    assert failing.bench.describe()["LastModifiedTime"] == failing.before["LastModifiedTime"]
    assert failing.state().cause is Cause.REHEARSAL
    assert "sample request 3 failed: the model answered 500: this model is bad" in failing.log()

    for rollout in (good, other, rolling, failing):
        assert not {"ModelError", "ServiceUnavailable"} & set(rollout.traffic.answers)
        assert SECRET not in rollout.log() + rollout.report()
        rollout.bench.assert_tidy()


def test_marked_failed_under_its_shadow_the_task_takes_it_away_and_nothing_is_left(
    rollouts: LocalAirflow, local_aws: LocalAws
) -> None:
    rollout = Rollout(rollouts, local_aws)
    with rollout.traffic:
        rollout.start({"shadow_seconds": 600})
        wait_until(lambda: rollout.pairs() > 0, limit_s=300, what="the shadow answers")
        assert rollout.task_state == "deferred"
        assert rollouts.api.call("GET", "/pools/default_pool")["running_slots"] == 0
        rollout.mark_failed()
        rollout.wait("failed")
        wait_until(lambda: rollout.state().step is Step.ROLLED_BACK, limit_s=60, what="the shadow is gone")
        wait_until(lambda: "lock.json" not in set(rollout.bench.keys()), limit_s=30, what="the lock is gone")
    assert rollout.serves_as_before()
    assert rollout.state().cause is Cause.KILLED
    assert "the task was killed while the rollout was under way" in rollout.log()
    assert rollout.task_state in ENDED
    rollout.bench.assert_tidy()


def test_marked_failed_on_its_worker_the_task_takes_the_shadow_away_in_the_seconds_it_has(
    rollouts: LocalAirflow, local_aws: LocalAws
) -> None:
    """Airflow kills the process 5 s after SIGTERM; alarms and lock may be left for the next rollout, no shadow is."""
    rollout = Rollout(rollouts, local_aws, dag=ON_WORKER)
    with rollout.traffic:
        rollout.start({"shadow_seconds": 600})
        wait_until(lambda: rollout.pairs() > 0, limit_s=300, what="the shadow answers")
        assert rollout.task_state == "running"
        rollout.mark_failed()
        wait_until(rollout.is_at_rest_without_shadow, limit_s=60, what="the shadow is gone")
    assert rollout.serves_as_before()
    assert rollout.state().cause is Cause.KILLED
