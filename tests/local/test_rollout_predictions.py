"""Predictions and business: a model that always answers the same, or loses orders, is rolled back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from captured_traffic import captured as captured_request
from captured_traffic import lines
from rollout_bench import ROLE, RolloutBench, RolloutTask, Traffic
from running_task import aws_environment

from airflow_dlaws.jobs.wire import from_json, to_json
from airflow_dlaws.launchers.business_metric import BusinessReader
from airflow_dlaws.launchers.rollout_measures import RolloutMeasures
from airflow_dlaws.launchers.rollout_metrics import RolloutMetrics
from airflow_dlaws.launchers.rollout_predictions import CapturedPredictions, CaptureProgress
from airflow_dlaws.launchers.rollout_watch import dimensions
from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.rollout.analysis import Verdict
from airflow_dlaws.rollout.business import BusinessMetric, BusinessSums, BusinessWindow
from airflow_dlaws.rollout.order import RolloutNames, RolloutOrder
from airflow_dlaws.rollout.plan import RolloutPlan
from airflow_dlaws.rollout.predictions import PredictionReference
from airflow_dlaws.rollout.result import RolloutOutcome
from airflow_dlaws.rollout.state import Cause, RolloutState
from airflow_dlaws.storage import ObjectStore

IMAGES = Path(__file__).parent / "images"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    # Captures come every four seconds, and a bake of half a minute takes twelve.
    with LocalAws(
        tmp_path_factory.mktemp("predictions-aws"), time_scale=0.4, images={"*/serve-test:*": IMAGES / "serve-test"}
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


def measures(bench: RolloutBench, metric: BusinessMetric) -> tuple[RolloutMeasures, RolloutState]:
    """Return what measures a rollout whose update was asked for five minutes ago, and its state."""
    order = RolloutOrder(
        endpoint_name=bench.name,
        model_package_arn="arn:aws:sagemaker:us-east-1:123456789012:model-package/flights/2",
        role_arn=ROLE,
        instance_type="ml.m5.large",
        state_s3_uri=f"s3://{bench.name}/state",
        plan=RolloutPlan(business_metric=metric),
        timeout_seconds=7200.0,
    )
    names = RolloutNames(model_name="m", config_name="green", owner="o", digest="d")
    state = RolloutState(
        endpoint_name=bench.name, requested_config="green", previous_config="blue", model_name="m",
        model_package_arn=order.model_package_arn, variant_name="AllTraffic", started_at=0.0, deadline=1e12,
        updated_at=bench.now() - 300,
    )  # fmt: skip
    return RolloutMeasures(bench.aws.client, order, names), state


def test_a_loss_for_the_business_is_harm_and_a_function_that_raises_is_none(bench: RolloutBench) -> None:
    reader, state = measures(bench, BusinessMetric(function="rollout_bench.lost_orders"))
    reader.check()
    measured = reader.evidence(state, bench.now())
    assert (measured.evidence.verdict, measured.problem) == (Verdict.HARM, "")
    assert "worse for the business" in measured.evidence.reason
    # What was read is noted: another process that cannot read goes on with it, and harm stays proven.
    reader, _ = measures(bench, BusinessMetric(function="rollout_bench.closed_warehouse"))
    assert reader.evidence(state, bench.now()).evidence.verdict is Verdict.HARM
    reader, _ = measures(RolloutBench(bench.aws), BusinessMetric(function="rollout_bench.closed_warehouse"))
    measured = reader.evidence(state, bench.now())
    assert measured.evidence.verdict is Verdict.INCONCLUSIVE
    assert "the warehouse is closed" in measured.problem


@pytest.mark.slow
def test_a_model_that_answers_well_and_sells_nothing_is_rolled_back(bench: RolloutBench) -> None:
    bench.serve(bench.package("blue"))
    before, metric = bench.live_config(), {"function": "rollout_bench.visits_that_order", "min_units": 30}
    with (
        Traffic(bench.aws, bench.name) as traffic,
        pytest.raises(AirflowFailException, match="worse for the business than blue by more than 10%") as failed,
    ):
        # What blue sells is learnt from its first window: the verdict falls in the second minute.
        bench.roll_out(bench.package("green"), wait_seconds=200, timeout=400, business_metric=metric)
    assert "visits_that_order: 0 a unit among" in str(failed.value)
    assert bench.live_config() == before
    state = bench.record(configs(bench)[0]).state
    assert (state.cause, state.evidence.green_errors, state.evidence.blue_errors) == (Cause.HARM, 0, 0)
    assert set(traffic.answers) == {"blue", "green"}
    bench.assert_tidy()


def test_a_metric_of_cloudwatch_is_read_for_both_fleets(bench: RolloutBench) -> None:
    start = int(bench.now()) // 60 * 60 - 120
    for config, values in (("green", [1.0, 0.0]), ("blue", [1.0, 1.0, 0.0])):
        names = [{"Name": "Endpoint", "Value": bench.name}, {"Name": "Config", "Value": config}]
        rows = [
            {"MetricName": "Ordered", "Dimensions": names, "Value": value, "Timestamp": start + 30} for value in values
        ]
        bench.cloudwatch.put_metric_data(Namespace="Shop", MetricData=rows)
    metric = BusinessMetric(
        namespace="Shop", metric="Ordered", dimensions={"Endpoint": "{endpoint}", "Config": "{config}"}
    )
    reader = BusinessReader(metric, bench.cloudwatch, endpoint_name=bench.name)
    windows = reader.read((), green="green", blue="blue", since=start, until=bench.now())
    assert windows[0] == BusinessWindow(
        start=start, green=BusinessSums(total=1.0, units=2), blue=BusinessSums(total=2.0, units=3)
    )
    assert {window.green.units for window in windows[1:]} == {0}


def test_a_minute_whose_errors_have_come_for_one_fleet_alone_is_left_for_the_next_look(bench: RolloutBench) -> None:
    start = int(bench.now()) // 60 * 60
    came = [("green", "Invocations"), ("green", "Invocation5XXErrors"), ("blue", "Invocations")]
    for config, metric in came:
        names = {"EndpointName": bench.name, "VariantName": "AllTraffic", "EndpointConfigName": config}
        row = {"MetricName": metric, "Dimensions": dimensions(**names), "Value": 1.0, "Timestamp": start}
        bench.cloudwatch.put_metric_data(Namespace="AWS/SageMaker", MetricData=[row])
    metrics = RolloutMetrics(bench.cloudwatch, endpoint_name=bench.name, variant_name="AllTraffic")
    window = {"green": "green", "blue": "blue", "since": start}
    assert metrics.minutes(**window, until=start + 59) == ()
    (late,) = metrics.minutes(**window, until=start + 240)
    assert (late.green_errors, late.blue_requests, late.blue_errors) == (1, 1, 0)


def test_a_request_that_is_delivered_again_in_another_file_counts_once(bench: RolloutBench) -> None:
    reader = CapturedPredictions(ObjectStore(bench.s3), endpoint_name=bench.name, variant_name="AllTraffic")
    now = datetime(2026, 3, 1, 11, 30, tzinfo=UTC).timestamp()
    places = {fleet: f"s3://{bench.name}/capture/{fleet}" for fleet in ("green", "blue")}
    halves = PredictionReference(cuts=(0.5,), counts=(100, 100, 0))

    def deliver(fleet: str, name: str, requests: list[dict[str, Any]]) -> None:
        key = f"capture/{fleet}/{bench.name}/AllTraffic/2026/03/01/11/{name}.jsonl"
        bench.s3.put_object(Bucket=bench.name, Key=key, Body=lines(*requests))

    def look(progress: CaptureProgress) -> tuple[CaptureProgress, int, int]:
        """Look as another process does, which knows what was noted."""
        found = reader.read(from_json(CaptureProgress, to_json(progress)), halves, places, since=now - 1800, until=now)
        rows = found.tally.minutes
        return found, sum(sum(row.green) for row in rows), sum(sum(row.blue) for row in rows)

    def requests(count: int) -> list[dict[str, Any]]:
        return [captured_request("1,2,A", "0.9", time=f"2026-03-01T11:{5 + n % 20:02}:00Z") for n in range(count)]

    green, blue = requests(30), requests(150)
    del green[0]["eventMetadata"]["eventId"]  # it is known by its place and its content
    deliver("green", "a", green[:20])
    deliver("green", "b", green[:20])
    deliver("blue", "a", blue)
    progress, *counts = look(CaptureProgress())
    assert counts == [20, 150]
    deliver("green", "c", green[:20])
    deliver("green", "d", green[20:])
    deliver("blue", "b", blue[:50])
    progress, *counts = look(progress)
    assert counts == [30, 150]
    # Blue's past is told by 200 different requests.
    assert reader.reference(places["blue"], now) is None
    deliver("blue", "c", requests(60))
    assert reader.reference(places["blue"], now) == PredictionReference(classes=("0.9",), counts=(210, 0))


def configs(bench: RolloutBench) -> list[str]:
    names = bench.keys()
    return sorted({name.partition(".")[0] for name in names} - {"lock"})
