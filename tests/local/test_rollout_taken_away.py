"""A rollout that is marked or handed over in moments in which Airflow itself tells nobody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from airflow.sdk.exceptions import TaskDeferred
from rollout_bench import RolloutBench, RolloutTask, remade
from running_task import airflow_says, aws_environment

from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.plugins.on_kill import call_on_kill
from airflow_dlaws.rollout.result import RolloutOutcome
from airflow_dlaws.rollout.state import Cause, Step

#: Green bakes for a minute: the local clock runs twenty times as fast.
LONG = {"wait_seconds": 1200, "timeout": 6000, "on_no_traffic": "promote"}


@pytest.fixture
def served(local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> Iterator[RolloutBench]:
    """An endpoint with a good model in service."""
    aws_environment(monkeypatch, local_aws)
    bench = RolloutBench(local_aws)
    bench.serve(bench.package("blue"))
    yield bench
    local_aws.client("sagemaker").delete_endpoint(EndpointName=bench.name)


def test_a_triggerer_that_has_lost_a_trigger_to_another_one_leaves_the_rollout_alone(
    served: RolloutBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, task = served.live_config(), RolloutTask()
    deferred = served.begin(served.package("green"), task, **LONG)
    trigger = remade(deferred.trigger)
    trigger.task_instance = task
    airflow_says(monkeypatch, "deferred", task)
    asyncio.run(trigger.on_kill())  # Airflow 3.3.2 calls it for any trigger that is another triggerer's now
    assert served.record(served.only_config()).state.step is Step.SHIFTING
    airflow_says(monkeypatch, "failed", task)
    asyncio.run(trigger.on_kill())
    assert served.live_config() == before
    served.assert_tidy()


def test_a_task_that_was_marked_while_it_began_to_shift_goes_back(
    served: RolloutBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, task = served.live_config(), RolloutTask()
    airflow_says(monkeypatch, "failed", task)
    served.begin(
        served.package("green"), task, **LONG
    )  # Airflow refuses that, and calls nothing of the task's any more
    state = served.record(served.only_config()).state
    assert (state.step, state.cause) == (Step.ROLLED_BACK, Cause.KILLED)
    assert served.live_config() == before
    served.assert_tidy()


def test_a_rollout_whose_machine_is_lost_in_the_last_try_is_taken_back_by_what_its_task_has_noted(
    served: RolloutBench,
) -> None:
    """Airflow's scheduler tells the plugin; tests/airflow/test_dead_workers.py has it do so for jobs."""
    before, task = served.live_config(), RolloutTask()
    served.begin(served.package("green"), task, **LONG)
    noted = task.pushed["dlaws_on_kill"]
    call_on_kill(noted["classpath"], json.loads(json.dumps(noted["kwargs"])))
    state = served.record(served.only_config()).state
    assert (state.step, state.cause) == (Step.ROLLED_BACK, Cause.KILLED)
    assert served.live_config() == before
    served.assert_tidy()


def test_a_rollout_that_has_ended_well_stays_so_whatever_is_marked_later(served: RolloutBench) -> None:
    package, task = served.package("green"), RolloutTask()
    plan = {**LONG, "wait_seconds": 20}
    result = served.go_on(served.begin(package, task, **plan), package, task, **plan)
    noted = task.pushed["dlaws_on_kill"]
    call_on_kill(noted["classpath"], json.loads(json.dumps(noted["kwargs"])))
    assert served.live_config() == result.endpoint_config_name
    assert served.record(result.endpoint_config_name).state.step is Step.PROMOTED
    served.assert_tidy()


def test_a_worker_that_is_shut_down_while_a_deferred_task_leaves_it_takes_nothing_back(served: RolloutBench) -> None:
    package, task = served.package("green"), RolloutTask()
    plan = {**LONG, "wait_seconds": 20}
    operator = served.operator(package, deferrable=True, **plan)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(task.context)
    operator.on_kill()
    assert served.go_on(deferred.value, package, task, **plan).outcome is RolloutOutcome.PROMOTED


def test_a_rollout_ends_as_it_began_though_the_dag_file_was_edited_meanwhile(served: RolloutBench) -> None:
    package, task = served.package("green"), RolloutTask()
    plan = {**LONG, "wait_seconds": 20}
    deferred = served.begin(package, task, **plan)
    result = served.go_on(deferred, package, task, **plan, instance_type="ml.c5.large")
    assert result.outcome is RolloutOutcome.PROMOTED
    assert served.live_config() == result.endpoint_config_name == deferred.trigger.names["config_name"]
    served.assert_tidy()
