"""Which months a run is about: arithmetic of months, gaps, and keys."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.data.months import by_month, choose_months, last_month_over, months_before
from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.storage import ObjectVersion

MONTHS = st.dates(min_value=date(1990, 1, 1)).map(lambda day: f"{day:%Y-%m}")


def objects(*keys: str) -> list[ObjectVersion]:
    return [ObjectVersion(uri=f"s3://bucket/{key}", etag="e", size=1) for key in keys]


@given(month=MONTHS, count=st.integers(1, 36))
def test_the_months_before_a_month_follow_each_other_up_to_it(month: str, count: int) -> None:
    months = (*months_before(month, count), month)
    assert len(months) == count + 1
    for earlier, later in pairwise(months):
        first = datetime.strptime(earlier, "%Y-%m").date()
        assert f"{first + timedelta(days=31):%Y-%m}" == later


@given(month=MONTHS, count=st.integers(1, 12), newer=st.integers(0, 12), exactly=st.booleans())
def test_no_month_is_read_after_the_one_that_was_over(month: str, count: int, newer: int, exactly: bool) -> None:
    present = {*months_before(month, count + newer), month}
    over = months_before(month, newer)[0] if newer else month
    chosen = choose_months(present, count=count, over=over, exactly=exactly)
    assert chosen.evaluation == over
    assert chosen.training == months_before(over, count)


@pytest.mark.parametrize(
    ("moment", "month"),
    [
        ("2013-03-01T00:00:00", "2013-02"),
        ("2013-02-28T23:59:59", "2013-01"),
        ("2013-03-02T06:00:00", "2013-02"),
        ("2013-01-31T12:00:00", "2012-12"),
    ],
)
def test_a_month_is_over_when_the_next_one_begins(moment: str, month: str) -> None:
    assert last_month_over(datetime.fromisoformat(moment).replace(tzinfo=UTC)) == month


def test_a_run_without_an_interval_takes_the_newest_month_and_one_with_an_interval_only_its_own() -> None:
    present = ["2013-01", "2013-02", "2013-03"]
    assert choose_months(present, count=2, over="2013-06", exactly=False).evaluation == "2013-03"
    with pytest.raises(SpecificationError, match="no data of 2013-04, 2013-05, 2013-06: this run is judged on 2013-06"):
        choose_months(present, count=2, over="2013-06", exactly=True)


@pytest.mark.parametrize("exactly", [True, False])
def test_a_gap_is_refused_and_not_filled_with_older_months(exactly: bool) -> None:
    present = ["2012-12", "2013-01", "2013-03"]
    with pytest.raises(SpecificationError, match=r"no data of 2013-02: .* 3 months from 2012-12 to 2013-03"):
        choose_months(present, count=2, over="2013-03", exactly=exactly)


def test_a_bucket_without_months_is_named_as_such() -> None:
    with pytest.raises(SpecificationError, match="there are none at all"):
        choose_months([], count=1, over="2013-03", exactly=False)


def test_all_objects_of_a_month_are_taken_in_order_and_markers_are_not() -> None:
    found = by_month(
        objects(
            "flights/month=2013-02/part-1.csv",
            "flights/month=2013-02/part-0.csv",
            "flights/month=2013-02/_SUCCESS",
            "flights/month=2013-02/.part-2.crc",
            "flights/month=2013-02/",
            "flights/month=2013-13/part-0.csv",
            "flights/lastmonth=2013-03/part-0.csv",
            "flights/month=2013-01/part-0.csv",
            "flights/README",
        ),
        "month",
    )
    assert list(found) == ["2013-01", "2013-02"]
    assert [each.uri[-10:] for each in found["2013-02"]] == ["part-0.csv", "part-1.csv"]


def test_days_are_sorted_into_their_months() -> None:
    found = by_month(objects("dt=2013-02-17/a.csv", "dt=2013-02-18/a.csv", "dt=2013-03-01/a.csv"), "dt")
    assert {month: len(rows) for month, rows in found.items()} == {"2013-02": 2, "2013-03": 1}
