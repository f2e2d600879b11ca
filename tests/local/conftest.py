"""Fixtures for tests against the local AWS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from batch_bench import Batches
from drift_check_bench import Check
from drift_sensor_bench import Scene
from running_task import aws_environment
from serving import Clients, Serving, unique
from trainer import Trainer
from training_task import Training
from tuner import Tuner

import drift_table as tables
from airflow_dlaws.hooks import aws
from airflow_dlaws.local.process import LocalAws


@pytest.fixture(autouse=True)
def own_clients() -> Iterator[None]:
    """Triggers of one process share clients; the tests of one process talk to several local AWSs."""
    yield
    aws._SHARED.clear()


@pytest.fixture
def trainer(local_aws: LocalAws, bucket: str) -> Trainer:
    """Training jobs in a new bucket."""
    return Trainer(local_aws, bucket)


@pytest.fixture
def training(local_aws: LocalAws, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Training:
    """A training task of its own."""
    aws_environment(monkeypatch, local_aws)
    return Training(local_aws, bucket, tmp_path / "code")


@pytest.fixture
def tuner(local_aws: LocalAws, bucket: str) -> Tuner:
    """Tuning jobs in a new bucket."""
    return Tuner(local_aws, bucket)


@pytest.fixture(scope="session")
def serving_clients(local_aws: LocalAws) -> Clients:
    """Clients for the tests of endpoints."""
    return Clients(local_aws)


@pytest.fixture
def serving(local_aws: LocalAws, serving_clients: Clients) -> Iterator[Serving]:
    """Models and endpoints in a new bucket; its endpoints are deleted after the test."""
    bucket = unique("serving")
    serving_clients.s3.create_bucket(Bucket=bucket)
    helper = Serving(local_aws, serving_clients, bucket)
    yield helper
    helper.delete_endpoints()


@pytest.fixture
def batches(serving: Serving, serving_clients: Clients) -> Batches:
    """Transform and processing jobs in the bucket of `serving`."""
    return Batches(serving_clients, serving.bucket)


@pytest.fixture
def drift_check(local_aws: LocalAws, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Check:
    """A drift check in a new bucket, which has no data yet."""
    aws_environment(monkeypatch, local_aws)
    return Check(local_aws, bucket)


@pytest.fixture
def drifted_check(drift_check: Check) -> Check:
    """A drift check of two files that have drifted."""
    drift_check.put("data/part-0.csv", tables.as_csv(tables.rows(1000, 2, shift=6)))
    drift_check.put("data/part-1.csv", tables.as_csv(tables.rows(500, 3, shift=6)))
    return drift_check


@pytest.fixture
def healthy_check(drift_check: Check) -> Check:
    """A drift check of healthy data."""
    drift_check.put("data/part-0.csv", tables.as_csv(tables.rows(3000, 2)))
    return drift_check


@pytest.fixture
def drift_scene(local_aws: LocalAws, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A new bucket with a drift reference, where nothing is captured yet."""
    aws_environment(monkeypatch, local_aws)
    return Scene(local_aws.client("s3"), bucket)
