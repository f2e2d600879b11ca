"""A rolling rollout: batches of instances change over, both fleets serve meanwhile, and no request is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow.sdk.exceptions import AirflowFailException
from rollout_bench import RolloutBench, Traffic
from running_task import aws_environment

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.rollout.result import RolloutOutcome
from airflow_dlaws.rollout.state import Cause, Step

IMAGES = Path(__file__).parent / "images"
ROLLING = {"strategy": "rolling", "maximum_batch_percent": 25, "initial_instance_count": 4, "wait_seconds": 3}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with LocalAws(
        tmp_path_factory.mktemp("rolling-aws"), time_scale=1.0, images={"*/serve-test:*": IMAGES / "serve-test"}
    ) as started:
        yield started


@pytest.fixture
def served(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> RolloutBench:
    aws_environment(monkeypatch, aws)
    bench = RolloutBench(aws)
    bench.serve(bench.package("blue"))
    return bench


@pytest.mark.slow
def test_a_good_model_takes_over_batch_by_batch_and_no_request_is_lost(served: RolloutBench) -> None:
    with Traffic(served.aws, served.name) as traffic:
        result = served.roll_out(served.package("green"), **ROLLING)
    assert result.outcome is RolloutOutcome.PROMOTED
    assert served.live_config() == result.endpoint_config_name
    assert set(traffic.answers) == {"blue", "green"}
    last = served.describe()["LastDeploymentConfig"]
    assert last["RollingUpdatePolicy"]["MaximumBatchSize"] == {"Type": "CAPACITY_PERCENT", "Value": 25}
    assert "BlueGreenUpdatePolicy" not in last
    state = served.record(result.endpoint_config_name).state
    # The description tells of the third batch, the last that is watched beside blue.
    assert state.traffic_since is not None
    assert state.last_wait_since is not None
    assert state.last_wait_since >= state.traffic_since + 2 * ROLLING["wait_seconds"]
    shares = [look.green_share for look in served.record(result.endpoint_config_name).looks if look.green_share]
    # Four batches: green's share was seen below a half and above it.
    assert any(share < 0.5 for share in shares)
    assert any(0.5 < share < 1 for share in shares)
    served.assert_tidy()


def test_a_bad_model_is_taken_back_batch_by_batch_and_the_task_says_why(served: RolloutBench) -> None:
    before = served.live_config()
    options = {**ROLLING, "wait_seconds": 60, "maximum_batch_percent": 50, "rollback_maximum_batch_percent": 25}
    with Traffic(served.aws, served.name) as traffic, pytest.raises(AirflowFailException, match="does harm"):
        served.roll_out(served.package("bad", fail_every=3), **{**options, "timeout": 600})
    assert served.live_config() == before
    state = served.record(served.only_config()).state
    assert (state.step, state.cause) == (Step.ROLLED_BACK, Cause.HARM)
    assert set(traffic.answers) == {"blue", "bad", "ModelError"}
    served.assert_tidy()


def test_an_update_that_aws_finished_too_early_is_undone_by_rolling_as_well(served: RolloutBench) -> None:
    before = served.live_config()
    with pytest.raises(AirflowFailException, match="too few requests"):
        served.roll_out(served.package("green"), **{**ROLLING, "wait_seconds": 1, "poll_interval": 6})
    assert served.live_config() == before
    assert served.describe()["LastDeploymentConfig"]["RollingUpdatePolicy"]["WaitIntervalInSeconds"] == 0
    served.assert_tidy()


def test_capacity_that_runs_out_in_a_later_batch_brings_the_old_model_back(served: RolloutBench) -> None:
    before = served.live_config()
    served.aws.order_fault(kind="capacity", target="UpdateEndpoint", every=2, times=1)
    try:
        with (
            Traffic(served.aws, served.name) as traffic,
            pytest.raises(AirflowFailException, match="by itself") as failed,
        ):
            served.roll_out(served.package("green"), **ROLLING)
    finally:
        served.aws.clear_faults()
    assert "InsufficientInstanceCapacity" in str(failed.value)
    assert served.live_config() == before
    assert set(traffic.answers) == {"blue", "green"}
    served.assert_tidy()


def test_one_instance_cannot_roll_and_that_is_said_when_the_dag_is_parsed(served: RolloutBench) -> None:
    with pytest.raises(SpecificationError, match="initial_instance_count"):
        served.operator("arn:aws:sagemaker:us-east-1:123456789012:model-package/flights/1", strategy="rolling")
