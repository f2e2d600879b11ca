"""A model that answers well but slowly is rolled back, on an endpoint of the local AWS with real traffic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow.sdk.exceptions import AirflowFailException
from rollout_bench import RolloutBench, Traffic
from running_task import aws_environment

from airflow_dlaws.launchers.rollout_metrics import RolloutMetrics
from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.rollout.state import Cause

IMAGES = Path(__file__).parent / "images"
#: Blue answers in about 20 ms, green in 60.
BLUE, GREEN = {"seconds": 0.02}, {"seconds": 0.06}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with LocalAws(
        tmp_path_factory.mktemp("latency-aws"), time_scale=1.0, images={"*/serve-test:*": IMAGES / "serve-test"}
    ) as started:
        yield started


@pytest.fixture
def bench(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> RolloutBench:
    aws_environment(monkeypatch, aws)
    made = RolloutBench(aws)
    made.serve(made.package("blue", **BLUE))
    return made


def answered(bench: RolloutBench) -> int:
    """Return how many answers CloudWatch has timed in the hour."""
    metrics = RolloutMetrics(bench.cloudwatch, endpoint_name=bench.name, variant_name="AllTraffic")
    reference = metrics.past(bench.live_config(), now=bench.now()).latency
    return reference.answers if reference else 0


@pytest.mark.slow
def test_a_slower_model_is_rolled_back_though_it_fails_no_request(bench: RolloutBench) -> None:
    with Traffic(bench.aws, bench.name, per_second=60.0, threads=3) as traffic:
        bench.wait_until("there are answers enough to know blue's latency", lambda: answered(bench) >= 220)
        with pytest.raises(AirflowFailException, match="slower than blue by a factor"):
            bench.roll_out(bench.package("green", **GREEN), wait_seconds=20, latency_warm_up_seconds=0)
    record = bench.record(bench.only_config())
    assert record.state.cause is Cause.HARM
    assert record.state.latency is not None
    assert "requests a minute on green" in record.state.forecast
    evidence = record.state.evidence
    assert (evidence.green_errors, evidence.blue_errors) == (0, 0)
    assert evidence.green_slow / evidence.green_timed > 0.5
    assert set(traffic.answers) == {"blue", "green"}
    bench.assert_tidy()
