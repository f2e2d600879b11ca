"""The rehearsal: a model answers sample requests on a throw-away endpoint before the endpoint is touched."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred
from airflow_answers import answering
from rollout_bench import ROLE, RolloutBench, RolloutTask, first_event, remade
from running_task import aws_environment, resumed

from airflow_dlaws.cli import main
from airflow_dlaws.hooks.aws import AwsClients
from airflow_dlaws.launchers.rehearsal import RehearsalPort
from airflow_dlaws.launchers.rollout_leftovers import settle
from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.rollout.order import RolloutNames, RolloutOrder
from airflow_dlaws.rollout.rehearsal import Rehearsal, RehearsalVerdict
from airflow_dlaws.rollout.result import RolloutOutcome
from airflow_dlaws.rollout.state import Cause, Step

IMAGES = Path(__file__).parent / "images"
QUICK = {"wait_seconds": 40, "poll_interval": 0.1, "timeout": 300, "on_no_traffic": "promote"}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with LocalAws(
        tmp_path_factory.mktemp("rehearsal-aws"), time_scale=0.02, images={"*/serve-test:*": IMAGES / "serve-test"}
    ) as started:
        yield started


@pytest.fixture
def bench(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> RolloutBench:
    aws_environment(monkeypatch, aws)
    return RolloutBench(aws)


@pytest.fixture
def served(bench: RolloutBench) -> RolloutBench:
    bench.serve(bench.package("blue"))
    return bench


def options(bench: RolloutBench, *lines: str, **changes: Any) -> dict[str, Any]:
    return {**QUICK, "sample_requests": bench.samples(*lines), **changes}


def test_a_model_that_answers_is_rolled_out_and_the_throw_away_endpoint_is_gone(served: RolloutBench) -> None:
    task, package = RolloutTask(), served.package("green")
    asked = options(served, "1,2", "3,4", "", "5,6", data_capture_s3_uri=f"s3://{served.name}/capture")
    result = served.go_on(served.begin(package, task, **asked), package, task, **asked)
    assert result.outcome is RolloutOutcome.PROMOTED
    rehearsal = served.record(result.endpoint_config_name).state.rehearsal
    assert rehearsal is not None
    assert rehearsal.verdict is RehearsalVerdict.PASSED
    assert rehearsal.reason.startswith("3 sample requests answered, the slowest in")
    assert served.s3.list_objects_v2(Bucket=served.name, Prefix="capture").get("KeyCount") == 0
    served.assert_tidy()


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ({"fail_every": 3}, r"sample request 3 failed: the model answered 500: this model is bad"),
        ({"exits": True}, r"does not come up: endpoint \S+ is Failed .*did not pass the ping"),
    ],
)
def test_a_model_that_fails_it_is_a_red_task_with_its_log_and_the_endpoint_is_not_touched(
    served: RolloutBench, behaviour: dict[str, Any], message: str
) -> None:
    before = served.describe()
    with pytest.raises(AirflowFailException, match=message) as failure:
        served.roll_out(served.package("bad", **behaviour), **options(served, "1", "2", "3", "4"))
    assert "The new containers printed last:" in str(failure.value)
    assert "serving bad from" in str(failure.value)
    assert served.describe()["LastModifiedTime"] == before["LastModifiedTime"]
    state = served.record(served.only_config()).state
    assert (state.step, state.cause, state.updated_at) == (Step.FAILED, Cause.REHEARSAL, None)
    served.assert_tidy()


@pytest.mark.parametrize(("fail_every", "then"), [(0, None), (1, "sample request 1 failed")])
def test_what_the_rehearsal_has_said_is_acted_upon_by_the_worker_that_hears_it(
    served: RolloutBench, fail_every: int, then: str | None
) -> None:
    task, package = RolloutTask(), served.package("green", fail_every=fail_every)
    asked = options(served, "1")
    deferred = served.begin(package, task, **asked)
    event = asyncio.run(first_event(remade(deferred.trigger)))
    with pytest.raises((TaskDeferred, AirflowFailException), match=then):
        resumed(served.operator(package, deferrable=True, **asked), deferred, event, task.context)
    expected = Step.FAILED if fail_every else Step.SHIFTING
    assert served.record(served.only_config()).state.step is expected
    if not fail_every:
        asyncio.run(remade(deferred.trigger).on_kill())
    served.assert_tidy()


def test_a_first_deployment_is_rehearsed_too_so_that_no_failed_endpoint_stands_in_the_way(bench: RolloutBench) -> None:
    with pytest.raises(AirflowFailException, match="does not come up"):
        bench.roll_out(bench.package("dead", exits=True), **options(bench, "1"))
    assert bench.sagemaker.list_endpoints(NameContains=bench.name)["Endpoints"] == []
    bench.assert_tidy()


def test_samples_that_are_not_there_cost_no_instance(served: RolloutBench) -> None:
    with pytest.raises(AirflowFailException, match="no object with one request on each line"):
        served.roll_out(served.package("green"), **options(served))
    assert served.others() == []
    served.assert_tidy()


def test_killed_while_the_throw_away_endpoint_comes_up_it_is_deleted(served: RolloutBench) -> None:
    asked = options(served, "1")
    deferred = served.begin(served.package("green"), RolloutTask(), **asked)
    assert len(served.others()) == 1
    asyncio.run(remade(deferred.trigger).on_kill())
    assert served.record(served.only_config()).state.step is Step.FAILED
    served.assert_tidy()


def test_a_retry_adopts_it_and_the_next_life_deletes_it(served: RolloutBench) -> None:
    package, asked = served.package("green"), options(served, "1")
    served.begin(package, RolloutTask(max_tries=1), **asked)
    (first,) = served.others()
    served.begin(package, RolloutTask(max_tries=1, try_number=2), **asked)
    assert {row.split()[0] for row in served.others()} <= {first.split()[0]}
    result = served.roll_out(served.package("newer"), RolloutTask(max_tries=2, try_number=3), **asked)
    assert result.outcome is RolloutOutcome.PROMOTED
    served.assert_tidy()


def test_a_retry_that_cannot_prepare_for_good_leaves_no_throw_away_endpoint(served: RolloutBench) -> None:
    package, asked = served.package("green"), options(served, "1")
    served.begin(package, RolloutTask(max_tries=1), **asked)
    assert len(served.others()) == 1
    served.aws.order_fault(kind="error", target="CreateModel", code="AccessDeniedException", message="no", times=1)
    with pytest.raises(AirflowFailException, match="AccessDenied"):
        served.roll_out(package, RolloutTask(max_tries=1, try_number=2), **asked)
    assert served.record(served.only_config()).state.step is Step.FAILED
    served.assert_tidy()


@pytest.mark.parametrize("call", ["CreateModel", "CreateEndpoint"])
def test_killed_in_the_worker_nothing_is_made_after_it_was_taken_away(
    served: RolloutBench, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    before, killed = served.describe(), []
    operator = served.operator(served.package("green"), **options(served, "1"))
    made = AwsClients.client

    def kill(**_: Any) -> None:
        if not killed:
            killed.append(call)
            operator.on_kill()  # as Airflow's signal handler does, in the middle of this call

    def client(self: AwsClients, service: str, **more: Any) -> Any:
        found = made(self, service, **more)
        found.meta.events.register(f"before-call.sagemaker.{call}", kill, unique_id="kill")
        return found

    monkeypatch.setattr(AwsClients, "client", client)
    with pytest.raises(SystemExit, match="killed while the rollout"):
        operator.execute(RolloutTask().context)
    assert killed == [call]
    assert served.describe()["LastModifiedTime"] == before["LastModifiedTime"]
    served.assert_tidy()


def test_what_is_left_of_several_throw_away_endpoints_is_told(served: RolloutBench) -> None:
    config, coming = served.live_config(), f"{served.name}-coming"
    served.begin(served.package("green"), RolloutTask(), **QUICK)
    names = (f"{served.name}-gone", coming)
    state = served.record(served.only_config()).state.but(rehearsal=Rehearsal(endpoints=names))
    served.sagemaker.create_endpoint(EndpointName=coming, EndpointConfigName=config)
    _, problems = settle(lambda _: served.sagemaker, state)
    assert f"throw-away endpoint {coming} is being created" in str(problems[0])


def test_a_model_too_slow_for_its_samples_fails_when_the_time_is_up(bench: RolloutBench) -> None:
    package = bench.package("slow", seconds=0.3)
    bench.serve(package)
    order = RolloutOrder(
        endpoint_name="flights",
        model_package_arn=package,
        role_arn=ROLE,
        instance_type="ml.m5.large",
        state_s3_uri=f"s3://{bench.name}/state",
        sample_requests=bench.samples(*map(str, range(100))),
        timeout_seconds=7200,
    )
    names = RolloutNames(model_name="m", config_name="c", owner="o", digest="d", rehearsal_name=bench.name)
    port = RehearsalPort(bench.aws.client, order, names, clock=bench.now)
    verdict, reason = port.go_on(until=bench.now() + 2)
    assert verdict is RehearsalVerdict.FAILED
    assert "this task's time is up: the slowest of those before took" in reason


def test_out_of_time_while_it_comes_up_the_last_try_stays_until_it_is_gone(served: RolloutBench) -> None:
    quick = {"wait_seconds": 1, "termination_wait_seconds": 0, "timeout": 4}

    def give_up() -> None:  # as AWS does after 24 minutes
        served.aws.order_fault(kind="ping", target=served.others()[0].split()[0], times=1)

    gives_up = threading.Timer(7, give_up)
    gives_up.start()
    with pytest.raises(AirflowException, match="is being created, which AWS lets nobody stop"):
        served.roll_out(served.package("mute", ping=500), **options(served, "1", **quick))
    assert gives_up.finished.is_set(), "the try has not stayed"
    served.assert_tidy()


def test_what_a_task_gone_for_good_has_left_is_found_and_deleted_and_no_other_endpoint(
    served: RolloutBench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering() as (url, answers):
        monkeypatch.setenv("AIRFLOW__API__BASE_URL", url)
        served.begin(served.package("green"), RolloutTask(), **options(served, "1"))
        (left,) = served.others()
        name = left.split()[0]
        served.wait_until("it is in service", lambda: served.others() == [f"{name} InService"])
        asked = ["--orphans", "--airflow-url", url, "--deployment", url, "--older-than", "0s", "--json"]
        path = "/api/v2/dags/dag/dagRuns/run-1/taskInstances/rollout"
        capsys.readouterr()
        answers.by_path[path] = (200, {"state": "deferred", "max_tries": 0})
        assert main(["jobs", "list", *asked]) == 0
        assert json.loads(capsys.readouterr().out)["jobs"] == []
        answers.by_path[path] = (200, {"state": "failed", "max_tries": 0})
        assert main(["jobs", "stop", "--yes", *asked]) == 0
    (row,) = json.loads(capsys.readouterr().out)["jobs"]
    assert (row["name"], row["kind"], row["machines"], row["done"]) == (name, "rehearsal", "1 x ml.m5.large", "stopped")
    assert served.others() == []
    assert served.describe()["EndpointStatus"] == "InService"
