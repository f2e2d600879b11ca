"""A number of the business: is a loss found, and is what is no loss left alone?"""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime

import pytest

from airflow_dlaws.errors import ServiceUnavailable, SpecificationError
from airflow_dlaws.jobs.wire import from_json, to_json
from airflow_dlaws.launchers.business_metric import BusinessReader, Window, business_function
from airflow_dlaws.operators.rollout import BlueGreenRolloutOperator
from airflow_dlaws.rollout.analysis import Minute, Verdict, judge
from airflow_dlaws.rollout.business import (
    BusinessMetric,
    BusinessSums,
    BusinessWindow,
    judge_business,
    read_metric,
)
from airflow_dlaws.rollout.plan import RolloutPlan, plan_from_text

BAR = -math.log(0.05 / 11)
ASKED: list[Window] = []


def orders(endpoint_name: str, window: Window) -> dict[str, tuple[float, int]]:
    """What a user's function looks like."""
    ASKED.append(window)
    return {"green": (3.0, 30), "blue": (27.0, 270)}


def broken(endpoint_name: str, window: Window) -> dict[str, tuple[float, int]]:
    raise RuntimeError("the warehouse is closed")


def windows(random_: random.Random, green: float, blue: float, *, units: int, minutes: int) -> list[BusinessWindow]:
    def draw(count: int, rate: float) -> BusinessSums:
        return BusinessSums(total=float(sum(random_.random() < rate for _ in range(count))), units=count)

    return [BusinessWindow(start=60 * n, green=draw(units, green), blue=draw(9 * units, blue)) for n in range(minutes)]


def found(metric: BusinessMetric, seen: list[BusinessWindow]) -> int | None:
    """Look after each window."""
    looks = range(1, len(seen) + 1)
    return next((n for n in looks if judge_business(metric, seen[:n]).log_evidence >= BAR), None)


@pytest.mark.parametrize("better", [True, False], ids=["orders", "complaints"])
def test_a_loss_below_the_worthwhile_is_left_alone_and_a_large_one_is_found(better: bool) -> None:
    metric = BusinessMetric(function="shop.orders", higher_is_better=better, smallest_loss=0.1)
    random_ = random.Random(11)
    edge, harm = (0.18, 0.08) if better else (0.22, 0.4)
    assert not any(found(metric, windows(random_, edge, 0.2, units=40, minutes=15)) for _ in range(30))
    hits = [found(metric, windows(random_, harm, 0.2, units=40, minutes=30)) for _ in range(6)]
    assert all(hits)


def test_too_few_units_give_no_verdict_and_a_loss_is_named() -> None:
    metric = BusinessMetric(function="shop.orders")
    plan, served = RolloutPlan(business_metric=metric), Minute(start=0, green_requests=600, blue_requests=5400)
    few = judge_business(metric, windows(random.Random(1), 0.2, 0.2, units=9, minutes=10))
    verdict = judge(plan, [served], began=0, business=few)
    assert verdict.verdict is Verdict.INCONCLUSIVE
    assert "100 units of green" in verdict.reason
    bad = judge_business(metric, windows(random.Random(1), 0.05, 0.3, units=60, minutes=10))
    verdict = judge(plan, [served], began=0, business=bad)
    assert verdict.verdict is Verdict.HARM
    assert "worse for the business than blue by more than 10%" in verdict.reason


def test_a_window_is_asked_for_again_until_it_is_settled() -> None:
    metric = BusinessMetric(function=f"{__name__}.orders")
    reader = BusinessReader(metric, None, endpoint_name="shop")
    ASKED.clear()
    first = reader.read((), green="g", blue="b", since=600, until=750)
    second = reader.read(first, green="g", blue="b", since=600, until=810)
    assert [window.start for window in second] == [600, 660, 720, 780]
    assert [window.start.timestamp() for window in ASKED] == [600, 660, 720, 660, 720, 780]
    assert ASKED[0] == Window(
        green_config="g", blue_config="b",
        start=datetime(1970, 1, 1, 0, 10, tzinfo=UTC), end=datetime(1970, 1, 1, 0, 11, tzinfo=UTC),
    )  # fmt: skip


def test_the_first_window_begins_with_greens_traffic_so_that_both_fleets_serve_all_through_it() -> None:
    ASKED.clear()
    reader = BusinessReader(BusinessMetric(function=f"{__name__}.orders"), None, endpoint_name="shop")
    windows = reader.read((), green="g", blue="b", since=645.5, until=700)
    assert [window.start for window in windows] == [600, 660]
    assert [(window.start.timestamp(), window.end.timestamp()) for window in ASKED] == [(645.5, 660), (660, 720)]


def test_a_loss_for_all_that_begins_as_green_takes_over_is_none_of_greens() -> None:
    calm = [BusinessWindow(start=60 * n, green=sums(120, 600), blue=sums(1080, 5400)) for n in range(3)]
    # Nobody buys any more, from the moment at which green gets everything.
    outage = BusinessWindow(start=180, green=sums(60, 3300), blue=sums(540, 2700))
    assert judge_business(BusinessMetric(function="shop.orders"), [*calm, outage]).log_evidence < BAR
    # CloudWatch counts whole minutes: the first one of green's began without it.
    alone = BusinessWindow(start=0, green=sums(0, 0), blue=sums(1200, 6000))
    first = BusinessWindow(start=60, green=sums(6, 300), blue=sums(594, 5700))
    metric = BusinessMetric(namespace="Shop", metric="Ordered")
    assert judge_business(metric, [alone, first]).log_evidence < BAR


def sums(total: float, units: int) -> BusinessSums:
    return BusinessSums(total=total, units=units)


def test_units_that_stand_beside_nothing_of_blue_give_no_verdict() -> None:
    metric = BusinessMetric(function="shop.orders")
    plan, served = RolloutPlan(business_metric=metric), Minute(start=0, green_requests=600, blue_requests=5400)
    alone = [BusinessWindow(start=0, green=sums(0, 0), blue=sums(9, 30))]
    alone += [BusinessWindow(start=60 * n, green=sums(30, 100), blue=sums(0, 0)) for n in (1, 2, 3)]
    verdict = judge(plan, [served], began=0, business=judge_business(metric, alone))
    assert verdict.verdict is Verdict.INCONCLUSIVE
    assert "0 units of green stand beside units of blue" in verdict.reason


def test_what_the_function_raises_is_an_error_and_so_is_what_it_cannot_mean() -> None:
    with pytest.raises(ServiceUnavailable, match="warehouse is closed"):
        BusinessReader(BusinessMetric(function=f"{__name__}.broken"), None, endpoint_name="shop").read(
            (), green="g", blue="b", since=0, until=30
        )
    small = BusinessMetric(function=f"{__name__}.orders", largest=0.01)
    with pytest.raises(ServiceUnavailable, match="set largest"):
        BusinessReader(small, None, endpoint_name="shop").read((), green="g", blue="b", since=0, until=30)
    with pytest.raises(SpecificationError, match="cannot be imported"):
        business_function(BusinessMetric(function="no_such_module.orders"))


def test_a_function_is_named_by_its_path_when_the_dag_is_parsed() -> None:
    metric = read_metric({"function": "shop.metrics:orders", "smallest_loss": "0.05"})
    assert metric == BusinessMetric(function="shop.metrics:orders", smallest_loss=0.05)
    plan = plan_from_text({"business_metric": "shop.metrics.orders"})
    assert from_json(RolloutPlan, to_json(plan)) == plan
    with pytest.raises(SpecificationError, match="all_at_once leaves none"):
        plan_from_text({"business_metric": "shop.metrics.orders", "strategy": "all_at_once"})
    with pytest.raises(SpecificationError, match="dotted path"):
        BlueGreenRolloutOperator(
            task_id="t", endpoint_name="e", model_package_arn="{{ a }}", role_arn="{{ b }}",
            instance_type="ml.m5.large", state_s3_uri="s3://b/s", business_metric=orders,
        )  # fmt: skip
    for wrong in (
        {"function": "a.b", "metric": "m", "namespace": "n"},
        {"functoin": "a.b"},
        {"function": "not a path"},
    ):
        with pytest.raises(SpecificationError, match="business_metric"):
            read_metric(wrong)
