"""Which model may follow which, and what a promotion clears away, on endpoints of the local AWS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow.sdk.exceptions import AirflowFailException
from botocore.exceptions import ClientError
from rollout_bench import RolloutBench
from running_task import aws_environment

from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.rollout.order import is_older

IMAGES = Path(__file__).parent / "images"
#: The local clock runs fifty times as fast.
QUICK = {"wait_seconds": 20, "termination_wait_seconds": 1, "poll_interval": 0.1, "on_no_traffic": "promote"}
GROUP = "arn:aws:sagemaker:us-east-1:123456789012:model-package/flights"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with LocalAws(
        tmp_path_factory.mktemp("cleanup-aws"), time_scale=0.02, images={"*/serve-test:*": IMAGES / "serve-test"}
    ) as started:
        yield started


@pytest.fixture
def bench(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> RolloutBench:
    aws_environment(monkeypatch, aws)
    return RolloutBench(aws)


def exists(bench: RolloutBench, config_name: str) -> bool:
    try:
        bench.sagemaker.describe_endpoint_config(EndpointConfigName=config_name)
    except ClientError:
        return False
    return True


@pytest.mark.parametrize(
    ("requested", "live", "older"),
    [
        (f"{GROUP}/3", f"{GROUP}/4", True),
        (f"{GROUP}/9", f"{GROUP}/10", True),
        (f"{GROUP}/4", f"{GROUP}/4", False),
        (f"{GROUP}/5", f"{GROUP}/4", False),
        (f"{GROUP}-other/3", f"{GROUP}/4", False),
        (f"{GROUP}/unversioned", f"{GROUP}/4", False),
    ],
)
def test_only_a_lower_version_of_the_same_group_is_older(requested: str, live: str, older: bool) -> None:
    assert is_older(requested, live) is older


@pytest.mark.slow
def test_a_model_older_than_the_one_in_service_is_refused_unless_asked_for(bench: RolloutBench) -> None:
    older, newer = bench.package("older"), bench.package("newer")
    bench.roll_out(newer, **QUICK)
    live = bench.live_config()
    with pytest.raises(AirflowFailException, match="allow_older=True"):
        bench.roll_out(older, **QUICK)
    assert bench.live_config() == live
    bench.assert_tidy()
    result = bench.roll_out(older, allow_older=True, **QUICK)
    assert bench.live_config() == result.endpoint_config_name != live


@pytest.mark.slow
def test_former_configurations_go_after_a_verified_promotion_and_the_way_back_stays(bench: RolloutBench) -> None:
    first, second, third = (
        bench.roll_out(bench.package(f"model-{n}"), keep_configurations=1, **QUICK) for n in range(3)
    )
    assert third.previous_endpoint_config_name == second.endpoint_config_name
    assert not exists(bench, first.endpoint_config_name)
    assert exists(bench, second.endpoint_config_name)
    assert bench.live_config() == third.endpoint_config_name
    models = {row["ModelName"] for row in bench.sagemaker.list_models()["Models"]}
    assert first.model_name not in models
    assert {second.model_name, third.model_name} <= models
