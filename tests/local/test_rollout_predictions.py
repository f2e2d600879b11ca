"""A model that answers well and fast, but always the same, is rolled back: on an endpoint with real traffic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow.sdk.exceptions import AirflowFailException
from rollout_bench import RolloutBench, RolloutTask, Traffic
from running_task import aws_environment

from airflow_dlaws.launchers.rollout_predictions import CapturedPredictions
from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.rollout.result import RolloutOutcome
from airflow_dlaws.rollout.state import Cause
from airflow_dlaws.storage import ObjectStore

IMAGES = Path(__file__).parent / "images"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with LocalAws(
        tmp_path_factory.mktemp("predictions-aws"), time_scale=1.0, images={"*/serve-test:*": IMAGES / "serve-test"}
    ) as started:
        yield started


@pytest.fixture
def bench(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> RolloutBench:
    aws_environment(monkeypatch, aws)
    return RolloutBench(aws)


def captured(bench: RolloutBench) -> int:
    """Return how many answers of the model in service can be read from what was captured."""
    place = bench.describe()["DataCaptureConfig"]["DestinationS3Uri"]
    reader = CapturedPredictions(ObjectStore(bench.s3), endpoint_name=bench.name, variant_name="AllTraffic")
    reference = reader.reference(place, bench.now())
    return sum(reference.counts) if reference else 0


@pytest.mark.slow
def test_a_retrained_model_may_differ_a_little_and_one_that_always_says_the_same_may_not(bench: RolloutBench) -> None:
    options = {"data_capture_s3_uri": f"s3://{bench.name}/capture", "wait_seconds": 30}
    bench.roll_out(bench.package("first", answers={"yes": 0.3, "no": 0.7}), **options)
    with Traffic(bench.aws, bench.name, per_second=60.0, threads=3):
        bench.wait_until("answers enough are captured", lambda: captured(bench) >= 250)
        good = bench.roll_out(bench.package("second", answers={"yes": 0.36, "no": 0.64}), **options)
        assert good.outcome is RolloutOutcome.PROMOTED
        state = bench.record(good.endpoint_config_name).state
        assert state.unjudged == ""
        assert state.evidence.predictions is not None
        assert state.evidence.predictions.green_answers > 100
        bench.wait_until("answers enough are captured", lambda: captured(bench) >= 250)
        task = RolloutTask("run-collapsed")
        with pytest.raises(AirflowFailException, match="green's predictions are others than blue's"):
            bench.roll_out(bench.package("collapsed", answers={"no": 1.0}), task, **options)
    record = next(row for row in map(bench.record, configs(bench)) if row.state.cause is Cause.HARM)
    assert record.state.previous_config == bench.live_config() == good.endpoint_config_name
    assert record.state.evidence.green_errors == 0
    assert "answers of green" in record.state.reason
    bench.assert_tidy()


def configs(bench: RolloutBench) -> list[str]:
    names = bench.keys()
    return sorted({name.partition(".")[0] for name in names} - {"lock"})
