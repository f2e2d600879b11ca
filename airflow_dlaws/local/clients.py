"""boto3 clients of the local AWS. Nothing checks its credentials, and no real account can be reached."""

from __future__ import annotations

import functools
import threading
from typing import Any

import boto3
from botocore.config import Config

REGION = "us-east-1"
CREDENTIALS = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
#: Making clients is the one thing in boto3 that threads may not do at the same time.
_LOCK = threading.Lock()


def make_client(endpoint_url: str, service: str, region: str = REGION) -> Any:
    """Return a client of the local AWS at `endpoint_url`."""
    config = Config(retries={"mode": "standard", "max_attempts": 3}, s3={"addressing_style": "path"})
    with _LOCK:
        return _session().client(service, endpoint_url=endpoint_url, region_name=region, config=config, **CREDENTIALS)


@functools.cache
def _session() -> Any:
    """Return the one session: it has read botocore's files, which is most of what a client costs."""
    return boto3.session.Session()
