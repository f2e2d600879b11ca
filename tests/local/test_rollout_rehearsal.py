"""The rehearsal: a model answers sample requests on a throw-away endpoint before the endpoint is touched."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from rollout_bench import RolloutBench, RolloutTask, remade
from running_task import aws_environment

from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.rollout.rehearsal import RehearsalVerdict
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
