"""Faults strike when they are due, and only then."""

from __future__ import annotations

import pytest

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.local.faults import FaultOrder, FaultOrders


def test_a_throttle_strikes_every_third_call_of_its_operation() -> None:
    orders = FaultOrders()
    orders.order(FaultOrder(kind="throttle", target="DescribeTrainingJob", every=3))
    struck = [orders.take("throttle", "DescribeTrainingJob") is not None for _ in range(7)]
    assert struck == [False, False, True, False, False, True, False]
    assert orders.take("throttle", "ListTrainingJobs") is None


def test_an_order_for_two_times_is_used_up() -> None:
    orders = FaultOrders()
    orders.order(FaultOrder(kind="capacity", times=2))
    assert [orders.take("capacity", "CreateTrainingJob") is not None for _ in range(3)] == [True, True, False]


def test_cleared_orders_are_forgotten() -> None:
    orders = FaultOrders()
    orders.order(FaultOrder(kind="error"))
    orders.clear()
    assert orders.take("error", "CreateModel") is None


def test_a_fault_nobody_makes_cannot_be_ordered() -> None:
    with pytest.raises(SpecificationError, match="kind 'flood' is no fault; the faults are"):
        FaultOrder(kind="flood")
