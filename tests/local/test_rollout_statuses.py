"""Every status that DescribeEndpoint can show, and every way an update can go wrong, ordered at the local AWS.

Each case says what AWS does and how the rollout must end: the error that Airflow sees (a permanent one is not tried
again), the message, and the configuration that serves in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from rollout_bench import RolloutBench, RolloutTask
from running_task import aws_environment

from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.operators.rollout import BlueGreenRolloutOperator
from airflow_dlaws.rollout.state import Cause, Step

IMAGES = Path(__file__).parent / "images"
QUICK = {"wait_seconds": 40, "poll_interval": 0.1, "timeout": 300, "on_no_traffic": "promote"}

Arrange = Callable[[RolloutBench, BlueGreenRolloutOperator], None]


@dataclass(frozen=True, kw_only=True)
class Case:
    """What AWS does, and how the rollout ends."""

    arrange: Arrange
    #: None where the rollout is promoted.
    error: type[Exception] | None = None
    message: str = ""
    step: Step = Step.PROMOTED
    cause: Cause = Cause.NONE
    #: Which configuration serves in the end: "new", "old", or "" where none does, or nobody can say.
    serves: str = "new"
    first: bool = False


def fault(kind: str, **order: Any) -> Arrange:
    """Order a fault of the endpoint before the rollout begins."""

    def arrange(bench: RolloutBench, _: BlueGreenRolloutOperator) -> None:
        bench.aws.order_fault(**{"kind": kind, "target": bench.name, "times": 1, **order})

    return arrange


def once_updating(kind: str, **order: Any) -> Arrange:
    """Order a fault as soon as AWS has taken the update."""

    def arrange(bench: RolloutBench, operator: BlueGreenRolloutOperator) -> None:
        def strike(**_: Any) -> None:
            bench.aws.order_fault(**{"kind": kind, "target": bench.name, "times": 1, **order})

        operator.aws.client("sagemaker").meta.events.register("after-call.sagemaker.UpdateEndpoint", strike)

    return arrange


def together(*parts: Arrange) -> Arrange:
    def arrange(bench: RolloutBench, operator: BlueGreenRolloutOperator) -> None:
        for part in parts:
            part(bench, operator)

    return arrange


def somebody_scales_first(bench: RolloutBench, operator: BlueGreenRolloutOperator) -> None:
    """Somebody else's change comes between our last look and our update: AWS refuses ours as busy."""
    others: list[int] = [2]

    def scale(**_: Any) -> None:
        if others:
            count = others.pop()
            wanted = {"VariantName": "AllTraffic", "DesiredInstanceCount": count}
            bench.sagemaker.update_endpoint_weights_and_capacities(
                EndpointName=bench.name, DesiredWeightsAndCapacities=[wanted]
            )

    operator.aws.client("sagemaker").meta.events.register("before-call.sagemaker.UpdateEndpoint", scale)


def alarm_is_on(bench: RolloutBench, operator: BlueGreenRolloutOperator) -> None:
    def ring(**_: Any) -> None:
        for name in bench.alarms():
            bench.cloudwatch.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="it rang before")

    operator.aws.client("cloudwatch").meta.events.register("after-call.cloudwatch.PutMetricAlarm", ring)


def deleted_before(bench: RolloutBench, _: BlueGreenRolloutOperator) -> None:
    bench.sagemaker.delete_endpoint(EndpointName=bench.name)


def somebody_deploys(bench: RolloutBench, operator: BlueGreenRolloutOperator) -> None:
    """Somebody else's update is under way when the rollout begins."""
    third = f"{bench.name}-third"
    config = bench.sagemaker.describe_endpoint_config(EndpointConfigName=bench.live_config())
    bench.sagemaker.create_endpoint_config(EndpointConfigName=third, ProductionVariants=config["ProductionVariants"])
    bench.sagemaker.update_endpoint(EndpointName=bench.name, EndpointConfigName=third)


def nothing(bench: RolloutBench, operator: BlueGreenRolloutOperator) -> None:
    """All is well."""


RED: dict[str, Any] = {"error": AirflowFailException}
BACK: dict[str, Any] = {**RED, "step": Step.ROLLED_BACK, "cause": Cause.BY_AWS, "serves": "old"}
PERSON: dict[str, Any] = {**RED, "step": Step.FAILED, "serves": ""}

CASES = {
    "Creating, InService": Case(arrange=nothing, first=True),
    "Creating, Failed: no capacity": Case(
        arrange=fault("capacity", target="CreateEndpoint"),
        **PERSON,
        first=True,
        message=r"is Failed \(.*InsufficientInstanceCapacity.*\).*delete-endpoint",
    ),
    "Creating, Failed: the ping never passes": Case(
        arrange=fault("ping"),
        **PERSON,
        first=True,
        message=r"is Failed \(.*did not pass the ping health check.*\).*delete-endpoint",
    ),
    "InService, Updating, InService on the new one": Case(arrange=nothing),
    "Updating: an alarm is on already": Case(
        arrange=alarm_is_on,
        error=AirflowException,
        message="is in ALARM already.*it rang before.*Try again",
        step=Step.STARTING,
        serves="old",
    ),
    "Updating, InService on the old one: no capacity": Case(
        arrange=fault("capacity", target="UpdateEndpoint"),
        **BACK,
        message=r"AWS rolled back .*InsufficientInstanceCapacity",
    ),
    "Updating, InService on the old one: the ping never passes": Case(
        arrange=fault("ping"), **BACK, message="AWS rolled back .*did not pass the ping health check"
    ),
    "Updating, InService on the old one, and no reason given": Case(
        arrange=together(fault("silent_rollback"), fault("capacity", target="UpdateEndpoint")),
        **BACK,
        message="AWS rolled back to .* and gives no reason; none of this rollout's alarms is on",
    ),
    "Updating, UpdateRollbackFailed": Case(
        arrange=together(fault("rollback"), fault("capacity", target="UpdateEndpoint")),
        **PERSON,
        message="is UpdateRollbackFailed .*both configurations may be serving; ask for the old one",
    ),
    "Updating, OutOfService": Case(
        arrange=once_updating("endpoint_status", code="OutOfService"),
        **PERSON,
        message="is OutOfService .*bring back the last good configuration",
    ),
    "Updating, Failed": Case(
        arrange=once_updating("endpoint_status", code="Failed"), **PERSON, message="is Failed .*only be deleted"
    ),
    "Updating by somebody else": Case(arrange=somebody_deploys),
    "the update is refused because the endpoint is busy": Case(arrange=somebody_scales_first),
    "the update is refused for good": Case(
        arrange=fault("error", target="UpdateEndpoint", code="ValidationException", message="no such thing"),
        **{**PERSON, "serves": "old"},
        message="no such thing",
    ),
    "SystemUpdating": Case(arrange=fault("endpoint_status", code="SystemUpdating", seconds=50)),
    "RollingBack": Case(arrange=fault("endpoint_status", code="RollingBack", seconds=50)),
    "Deleting": Case(arrange=deleted_before),
    "OutOfService": Case(arrange=fault("endpoint_status", code="OutOfService"), **PERSON, message="is OutOfService"),
    "Failed": Case(arrange=fault("endpoint_status", code="Failed"), **PERSON, message="is Failed"),
    "UpdateRollbackFailed": Case(
        arrange=fault("endpoint_status", code="UpdateRollbackFailed"), **PERSON, message="is UpdateRollbackFailed"
    ),
}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with LocalAws(
        tmp_path_factory.mktemp("statuses-aws"), time_scale=0.02, images={"*/serve-test:*": IMAGES / "serve-test"}
    ) as started:
        yield started


@pytest.fixture
def bench(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> Iterator[RolloutBench]:
    aws_environment(monkeypatch, aws)
    yield RolloutBench(aws)
    aws.clear_faults()


@pytest.mark.parametrize("name", list(CASES))
def test_each_ends_in_the_right_outcome_with_the_right_message(bench: RolloutBench, name: str) -> None:
    case = CASES[name]
    if not case.first:
        bench.serve(bench.package("blue"))
    operator = bench.operator(bench.package("green"), **QUICK)
    case.arrange(bench, operator)
    if case.error is None:
        operator.execute(RolloutTask().context)
    else:
        with pytest.raises(case.error, match=case.message) as raised:
            operator.execute(RolloutTask(max_tries=1).context)
        assert isinstance(raised.value, AirflowFailException) is (case.error is AirflowFailException)
    bench.assert_tidy()
    bench.aws.clear_faults()
    config = bench.only_config() if case.step is not Step.STARTING else ""
    if config:
        state = bench.record(config).state
        assert (state.step, state.cause) == (case.step, case.cause)
    if case.serves:
        assert (bench.live_config() == config) is (case.serves == "new")
