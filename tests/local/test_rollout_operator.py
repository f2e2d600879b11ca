"""BlueGreenRolloutOperator on endpoints of the local AWS: real servers, real traffic, real alarms."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException, TaskDeferred
from botocore.exceptions import EndpointConnectionError
from rollout_bench import RolloutBench, RolloutTask, Traffic, first_event, remade
from running_task import aws_environment, resumed

from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.operators.rollout import BlueGreenRolloutOperator
from airflow_dlaws.rollout.plan import RolloutPlan
from airflow_dlaws.rollout.result import RolloutOutcome
from airflow_dlaws.rollout.state import Cause, Step

IMAGES = Path(__file__).parent / "images"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """A local AWS whose waits are real: the plans of these tests wait for seconds."""
    with LocalAws(
        tmp_path_factory.mktemp("rollout-aws"), time_scale=1.0, images={"*/serve-test:*": IMAGES / "serve-test"}
    ) as started:
        yield started


@pytest.fixture
def bench(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> Iterator[RolloutBench]:
    """A new endpoint name, with its bucket and its model package group."""
    aws_environment(monkeypatch, aws)
    made = RolloutBench(aws)
    yield made
    aws.clear_faults()


@pytest.fixture
def served(bench: RolloutBench) -> RolloutBench:
    """The same, with a good model in service that somebody else deployed."""
    bench.serve(bench.package("blue"))
    return bench


def test_the_first_deployment_creates_the_endpoint(bench: RolloutBench) -> None:
    task = RolloutTask()
    result = bench.roll_out(
        bench.package("blue"), task, data_capture_s3_uri=f"s3://{bench.name}/capture", capture_percent=40
    )
    assert result.outcome is RolloutOutcome.PROMOTED
    assert result.previous_endpoint_config_name == ""
    assert bench.live_config() == result.endpoint_config_name
    capture = bench.describe()["DataCaptureConfig"]
    assert (capture["EnableCapture"], capture["CurrentSamplingPercentage"]) == (True, 40)
    assert bench.s3.get_object(Bucket=bench.name, Key=result.report_uri.split("/", 3)[3])
    assert f"{result.endpoint_config_name}.html?" in task.pushed["_link_ReportLink"]
    bench.assert_tidy()


@pytest.mark.slow
def test_a_good_model_is_promoted_and_no_request_is_lost(served: RolloutBench) -> None:
    with Traffic(served.aws, served.name) as traffic:
        result = served.roll_out(served.package("green"))
    assert result.outcome is RolloutOutcome.PROMOTED
    assert served.live_config() == result.endpoint_config_name
    assert set(traffic.answers) == {"blue", "green"}
    assert (result.green_errors, result.blue_errors) == (0, 0)
    assert result.green_requests >= 5
    report = served.report(result.endpoint_config_name)
    assert report.result == result
    looks = report.record.looks
    assert any(look.green_share and 0.2 < look.green_share < 0.8 for look in looks)
    served.assert_tidy()


def test_a_bad_model_is_rolled_back_and_the_task_says_why(served: RolloutBench) -> None:
    before = served.live_config()
    with Traffic(served.aws, served.name) as traffic, pytest.raises(AirflowFailException) as failure:
        served.roll_out(served.package("bad", fail_every=3), wait_seconds=60)
    assert served.live_config() == before
    record = served.record(served.only_config())
    assert (record.state.step, record.state.cause) == (Step.ROLLED_BACK, Cause.HARM)
    green = record.state.evidence
    assert f"green had failed {green.green_errors} of {green.green_requests} requests" in str(failure.value)
    assert "-verdict was on" in str(failure.value)
    assert before in str(failure.value)
    assert ".html" in str(failure.value)
    assert set(traffic.answers) == {"blue", "bad", "ModelError"}
    served.assert_tidy()


def test_without_traffic_nothing_is_promoted(served: RolloutBench) -> None:
    before = served.live_config()
    with pytest.raises(AirflowFailException, match="too few requests") as failure:
        served.roll_out(served.package("green"))
    assert "min_requests" in str(failure.value)
    assert served.live_config() == before
    served.assert_tidy()


def test_what_aws_promoted_before_we_could_say_no_is_undone_by_us(served: RolloutBench) -> None:
    before = served.live_config()
    with pytest.raises(AirflowFailException, match="too few requests"):
        served.roll_out(served.package("green"), wait_seconds=1, termination_wait_seconds=0, poll_interval=4)
    assert served.live_config() == before
    record = served.record(served.only_config())
    assert Step.RESTORING in [look.step for look in record.looks]
    assert record.state.step is Step.INCONCLUSIVE
    served.assert_tidy()


def test_without_traffic_a_model_is_promoted_only_where_that_was_asked_for(served: RolloutBench) -> None:
    result = served.roll_out(served.package("green"), on_no_traffic="promote", wait_seconds=1)
    assert result.outcome is RolloutOutcome.PROMOTED
    assert served.live_config() == result.endpoint_config_name


def test_a_model_that_never_starts_is_a_red_task_and_the_old_one_serves_on(served: RolloutBench) -> None:
    before = served.live_config()
    with pytest.raises(AirflowFailException, match="AWS rolled back by itself") as failed:
        served.roll_out(served.package("dead", exits=True))
    assert "The new containers printed last:" in str(failed.value)
    assert served.live_config() == before
    served.assert_tidy()


@pytest.mark.slow
def test_deferred_the_task_ends_the_same(served: RolloutBench) -> None:
    package, task = served.package("green"), RolloutTask()
    with Traffic(served.aws, served.name):
        result = served.go_on(served.begin(package, task), package, task)
    assert result.outcome is RolloutOutcome.PROMOTED
    assert served.live_config() == result.endpoint_config_name
    served.assert_tidy()


def test_deferred_a_bad_model_is_stopped_by_the_trigger_alone(served: RolloutBench) -> None:
    before, package, task = served.live_config(), served.package("bad", fail_every=3), RolloutTask()
    with Traffic(served.aws, served.name), pytest.raises(AirflowFailException, match="does harm"):
        served.go_on(served.begin(package, task, wait_seconds=60), package, task, wait_seconds=60)
    assert served.live_config() == before
    served.assert_tidy()


def test_a_retry_takes_up_the_rollout_that_a_killed_worker_left(served: RolloutBench) -> None:
    package = served.package("green")
    with Traffic(served.aws, served.name):
        deferred = served.begin(package, RolloutTask(max_tries=1))
        config = deferred.trigger.names["config_name"]
        asked_at = served.record(config).state.updated_at
        served.wait_until("the canary bakes", lambda: served.describe().get("PendingDeploymentSummary"))
        result = served.roll_out(package, RolloutTask(max_tries=1, try_number=2))
    assert result.outcome is RolloutOutcome.PROMOTED
    assert result.endpoint_config_name == config
    assert served.record(config).state.updated_at == asked_at
    served.assert_tidy()


def test_a_clear_renews_the_names(served: RolloutBench) -> None:
    package = served.package("green")
    first = served.roll_out(package, RolloutTask(max_tries=0), on_no_traffic="promote", wait_seconds=1)
    again = served.roll_out(package, RolloutTask(max_tries=0, try_number=2), on_no_traffic="promote")
    cleared = served.roll_out(package, RolloutTask(max_tries=1), on_no_traffic="promote", wait_seconds=1)
    assert again == first
    assert cleared.endpoint_config_name != first.endpoint_config_name
    assert served.live_config() == cleared.endpoint_config_name


def test_a_second_rollout_on_the_endpoint_is_refused_while_one_is_under_way(served: RolloutBench) -> None:
    package = served.package("green")
    with Traffic(served.aws, served.name):
        deferred = served.begin(package, RolloutTask("run-1"))
        alarms = served.alarms()
        with pytest.raises(AirflowFailException, match="one rollout at a time") as refusal:
            served.roll_out(served.package("other"), RolloutTask("run-2"), on_busy="fail")
        assert "dag/run-1/rollout" in str(refusal.value)
        assert len(alarms) == 2
        assert served.alarms() == alarms
        result = served.go_on(deferred, package, RolloutTask("run-1"))
    assert result.outcome is RolloutOutcome.PROMOTED
    served.assert_tidy()


@pytest.mark.slow
def test_a_second_rollout_supersedes_the_first_and_waits_until_it_has_gone_back(served: RolloutBench) -> None:
    first, second = served.package("green"), served.package("other")
    before = served.live_config()
    with Traffic(served.aws, served.name):
        deferred = served.begin(first, RolloutTask("run-1"))
        waiting = served.begin(second, RolloutTask("run-2"), on_busy="supersede")
        assert waiting.method_name == "take_turn"
        with pytest.raises(AirflowFailException, match="dag/run-2/rollout asked to abort this rollout: superseded"):
            served.go_on(deferred, first, RolloutTask("run-1"))
        assert served.live_config() == before
        event = asyncio.run(first_event(remade(waiting.trigger)))
        operator = served.operator(second)
        result = resumed(operator, waiting, event, RolloutTask("run-2").context)
    assert result["outcome"] == "promoted"
    assert served.live_config() == result["endpoint_config_name"]
    served.assert_tidy()


def test_a_task_that_is_cleared_while_it_hears_of_trouble_rolls_out_anew(served: RolloutBench) -> None:
    package, cleared = served.package("green"), RolloutTask(max_tries=1)
    with Traffic(served.aws, served.name):
        deferred = served.begin(package, RolloutTask())
        operator = served.operator(package, deferrable=True)
        with pytest.raises(TaskDeferred) as again:
            resumed(operator, deferred, {"error": "told to the former life"}, cleared.context)
        assert served.go_on(again.value, package, cleared).outcome is RolloutOutcome.PROMOTED
    served.assert_tidy()


def test_a_wait_for_another_rollout_ends(served: RolloutBench) -> None:
    package = served.package("green")
    deferred = served.begin(package, RolloutTask("run-1"))
    task = RolloutTask("run-2")
    with pytest.raises(AirflowFailException, match="one rollout at a time"):
        served.operator(served.package("other")).take_turn(task.context, wait_until=served.now() + 0.5)
    asyncio.run(remade(deferred.trigger).on_kill())


def test_a_package_that_nobody_has_approved_is_refused_if_asked_and_the_word_stands_in_the_result(
    served: RolloutBench,
) -> None:
    package = served.package("green")
    served.sagemaker.update_model_package(ModelPackageArn=package, ModelApprovalStatus="PendingManualApproval")
    before = served.live_config()
    with pytest.raises(AirflowFailException, match=r"is not approved \(PendingManualApproval\)"):
        served.roll_out(package, require_approval=True)
    assert served.live_config() == before
    served.assert_tidy()
    served.sagemaker.update_model_package(
        ModelPackageArn=package, ModelApprovalStatus="Approved", ApprovalDescription="looks fine"
    )
    with Traffic(served.aws, served.name):
        result = served.roll_out(package, require_approval=True)
    assert result.approval.startswith("Approved by arn:aws:sts::")
    assert result.approval.endswith(": looks fine")


def test_killed_while_deferred_the_rollout_goes_back(served: RolloutBench) -> None:
    before, package = served.live_config(), served.package("green")
    with Traffic(served.aws, served.name):
        deferred = served.begin(package, RolloutTask("run-1"), wait_seconds=60)
        served.wait_until("green is there", lambda: served.describe().get("PendingDeploymentSummary"))
        asyncio.run(remade(deferred.trigger).on_kill())
    assert served.live_config() == before
    state = served.record(deferred.trigger.names["config_name"]).state
    assert (state.step, state.cause) == (Step.ROLLED_BACK, Cause.KILLED)
    served.assert_tidy()
    with pytest.raises(AirflowFailException, match="the task was killed"):
        served.roll_out(package, RolloutTask("run-1"))


def test_killed_in_the_worker_the_rollout_goes_back(served: RolloutBench) -> None:
    before, errors = served.live_config(), []
    operator = served.operator(served.package("green"), wait_seconds=60)

    def execute() -> None:
        try:
            operator.execute(RolloutTask().context)
        except Exception as error:
            errors.append(error)

    worker = threading.Thread(target=execute)
    worker.start()
    served.wait_until("green is there", lambda: served.describe().get("PendingDeploymentSummary"))
    operator.on_kill()
    worker.join(30)
    assert served.live_config() == before
    assert len(errors) == 1
    served.assert_tidy()


def test_a_worker_that_is_killed_late_leaves_the_rollout_to_the_retry_that_has_taken_it_up(
    served: RolloutBench,
) -> None:
    package = served.package("green")
    former = served.operator(package, deferrable=True)
    with pytest.raises(TaskDeferred):
        former.execute(RolloutTask("run-1", max_tries=1).context)
    retry = RolloutTask("run-1", max_tries=1, try_number=2)
    with Traffic(served.aws, served.name):
        deferred = served.begin(package, retry)
        former.on_kill()
        result = served.go_on(deferred, package, retry)
    assert result.outcome is RolloutOutcome.PROMOTED
    served.assert_tidy()


@pytest.mark.slow
def test_a_cleared_task_stops_what_its_former_life_left_behind(served: RolloutBench) -> None:
    before = served.live_config()
    with Traffic(served.aws, served.name):
        served.begin(served.package("abandoned"), RolloutTask(max_tries=0), wait_seconds=60)
        served.wait_until("green is there", lambda: served.describe().get("PendingDeploymentSummary"))
        result = served.roll_out(served.package("green"), RolloutTask(max_tries=1, try_number=2))
    assert result.outcome is RolloutOutcome.PROMOTED
    assert result.previous_endpoint_config_name == before
    served.assert_tidy()


def test_a_failed_rollback_calls_for_a_person(served: RolloutBench) -> None:
    served.aws.order_fault(kind="rollback", target=served.name, times=1)
    with Traffic(served.aws, served.name), pytest.raises(AirflowFailException, match="UpdateRollbackFailed") as failure:
        served.roll_out(served.package("bad", fail_every=2), wait_seconds=60)
    assert "aws sagemaker update-endpoint" in str(failure.value)
    served.assert_tidy()


def test_maintenance_by_aws_is_waited_for(served: RolloutBench) -> None:
    served.aws.order_fault(kind="endpoint_status", target=served.name, code="SystemUpdating", seconds=2, times=1)
    result = served.roll_out(served.package("green"), on_no_traffic="promote", wait_seconds=1)
    assert result.outcome is RolloutOutcome.PROMOTED


def test_metrics_that_cannot_be_read_take_the_rollout_back(served: RolloutBench) -> None:
    before = served.live_config()
    operator = HastyOperator(**served.arguments(served.package("green"), wait_seconds=30))

    def refuse_while_it_moves(**_: object) -> None:
        if served.describe()["EndpointStatus"] != "InService":
            raise EndpointConnectionError(endpoint_url="monitoring")

    events = operator.aws.client("cloudwatch").meta.events
    events.register("before-call.cloudwatch.GetMetricData", refuse_while_it_moves)
    with Traffic(served.aws, served.name), pytest.raises(AirflowFailException, match="could not be measured"):
        operator.execute(RolloutTask().context)
    assert served.live_config() == before
    served.assert_tidy()


def test_a_rollout_that_could_not_be_measured_is_not_begun(served: RolloutBench) -> None:
    before, operator = served.live_config(), served.operator(served.package("green"))

    def refuse(**_: object) -> None:
        raise EndpointConnectionError(endpoint_url="monitoring")

    operator.aws.client("cloudwatch").meta.events.register("before-call.cloudwatch.GetMetricData", refuse)
    with pytest.raises(AirflowException, match="cannot read the metrics"):
        operator.execute(RolloutTask().context)
    assert served.live_config() == before


class HastyOperator(BlueGreenRolloutOperator):
    """Gives up after a second without metrics, where others wait for minutes."""

    def _plan(self) -> RolloutPlan:
        return dataclasses.replace(super()._plan(), blind_seconds=1.0)


def test_an_update_that_aws_refuses_leaves_nothing_behind(served: RolloutBench) -> None:
    before = served.live_config()
    served.aws.order_fault(
        kind="error", target="UpdateEndpoint", code="ValidationException", message="no such thing", times=1
    )
    with pytest.raises(AirflowFailException, match="no such thing"):
        served.roll_out(served.package("green"))
    assert served.live_config() == before
    served.assert_tidy()


def test_what_aws_would_refuse_or_not_shift_is_refused_and_leaves_nothing_behind(served: RolloutBench) -> None:
    missing = served.package("green").rpartition("/")[0] + "/99"
    with pytest.raises(AirflowFailException, match=missing):
        served.roll_out(missing)
    served.assert_tidy()
    with pytest.raises(AirflowFailException, match="AllTraffic"):
        served.roll_out(served.package("green"), variant_name="Other")
    served.assert_tidy()


def test_an_endpoint_that_others_share_by_variants_is_refused(bench: RolloutBench) -> None:
    bench.serve(bench.package("blue"), variants=("AllTraffic", "Other"))
    with pytest.raises(AirflowFailException, match=r"AllTraffic.*Other"):
        bench.roll_out(bench.package("green"))
    bench.assert_tidy()


def test_a_backfill_does_not_deploy_unless_told_to(served: RolloutBench) -> None:
    before, package = served.live_config(), served.package("green")
    with pytest.raises(AirflowSkipException, match="allow_backfill"):
        served.roll_out(package, RolloutTask(run_type="backfill"))
    assert served.live_config() == before
    asked = {"allow_backfill": True, "on_no_traffic": "promote", "wait_seconds": 1}
    assert served.roll_out(package, RolloutTask(run_type="backfill"), **asked).outcome is RolloutOutcome.PROMOTED
