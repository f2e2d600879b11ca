"""AWS clients of the command line: an Airflow connection's, or boto3's own credentials."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from airflow_dlaws.errors import SpecificationError


def add_aws(parser: argparse.ArgumentParser) -> None:
    """Add `--region` and `--conn`."""
    parser.add_argument("--region", help="AWS region; default: the environment's")
    parser.add_argument("--conn", metavar="CONN_ID", help="use an Airflow connection; default: boto3's credentials")


def clients_of(chosen: argparse.Namespace) -> Callable[[str], Any]:
    """Return what gives the client of a service.

    :raises SpecificationError: no region is known.
    """
    if chosen.conn:
        from airflow_dlaws.hooks.aws import AwsClients, AwsConnection

        return AwsClients(AwsConnection(aws_conn_id=chosen.conn, region_name=chosen.region)).client
    import boto3
    from botocore.config import Config

    session = boto3.Session(region_name=chosen.region)
    if session.region_name is None:
        raise SpecificationError("no AWS region is known: give --region or set AWS_DEFAULT_REGION")
    config = Config(retries={"mode": "adaptive", "max_attempts": 10})
    return lambda service: session.client(service, config=config)
