"""S3 and CloudWatch Logs in process, through moto."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws


@pytest.fixture(scope="module")
def aws() -> Iterator[Any]:
    """A function that gives the client of a service; the account has one bucket."""
    with mock_aws():
        clients: dict[str, Any] = {}

        def client(service: str) -> Any:
            return clients.setdefault(service, boto3.client(service, region_name="us-east-1"))

        client("s3").create_bucket(Bucket="bucket")
        yield client
