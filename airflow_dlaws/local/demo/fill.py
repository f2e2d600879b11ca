"""Fill a local AWS with the demo's data: `python -m airflow_dlaws.local.demo.fill --bucket dlaws`.

It makes the bucket, with versions, and uploads the first months of flights, as many as retrain_on_drift needs.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from airflow_dlaws.local.clients import make_client
from airflow_dlaws.local.demo import flights


def fill(s3: Any, bucket: str, months: dict[str, Path]) -> dict[str, str]:
    """Make the bucket and upload the months; return their locations."""
    s3.create_bucket(Bucket=bucket)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return flights.upload(s3, bucket, months)


def main() -> None:
    """Read the command line and fill."""
    parser = argparse.ArgumentParser(description="Put flights of 2013 into a bucket of the local AWS.")
    parser.add_argument("--endpoint-url", default="http://127.0.0.1:4566", help="of the local AWS (%(default)s)")
    parser.add_argument("--bucket", required=True)
    parser.add_argument("--months", type=int, default=3, help="how many, from January on (%(default)s)")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir(), "dlaws-flights"))
    chosen = parser.parse_args()
    months = dict(list(flights.monthly_files(chosen.cache).items())[: chosen.months])
    for location in fill(make_client(chosen.endpoint_url, "s3"), chosen.bucket, months).values():
        print(location)


if __name__ == "__main__":
    main()
