"""Fixtures for tests against the local AWS."""

from __future__ import annotations

import pytest
from trainer import Trainer

from airflow_dlaws.local.process import LocalAws


@pytest.fixture
def trainer(local_aws: LocalAws, bucket: str) -> Trainer:
    """Training jobs in a new bucket."""
    return Trainer(local_aws, bucket)
