"""The arithmetic of cost: worked examples, and no cost without a price."""

from __future__ import annotations

import pytest

from airflow_dlaws.jobs.cost import Price, estimate, spot_saving, together


def test_the_saving_is_awss_own_formula() -> None:
    assert spot_saving(100, 500) == 0.8  # the example of DescribeTrainingJob's documentation
    assert spot_saving(500, 500) == 0.0
    assert spot_saving(0, 0) is None


def test_the_cost_is_instances_times_billed_hours_times_price_and_says_so() -> None:
    price = Price(usd_per_hour=1.5, source="price_per_hour")
    cost, basis = estimate(price, billable_seconds=1800, instances=4, instance_type="ml.g5.xlarge")
    assert cost == pytest.approx(3.0)
    assert basis.startswith("4 x 1800 s billed x 1.5 USD an hour of ml.g5.xlarge (price_per_hour)")


def test_without_a_price_there_is_no_cost_and_the_reason_instead() -> None:
    price = Price(usd_per_hour=None, source="AccessDenied")
    assert estimate(price, billable_seconds=1800, instances=4, instance_type="x") == (None, "no cost: AccessDenied")


def test_hosts_of_several_types_cost_the_sum_and_nothing_is_guessed_where_one_has_no_price() -> None:
    trainers, loaders, unknown = (2.0, "2 trainers"), (0.5, "1 loader"), (None, "no cost: AccessDenied")
    assert together([trainers, loaders]) == (2.5, "2 trainers plus 1 loader")
    assert together([trainers, unknown]) == unknown
