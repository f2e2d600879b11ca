"""The local AWS, running as a process of its own, for every test that asks for it."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

# Importing Airflow writes a configuration file: not into the home folder of whoever runs the tests.
os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="airflow-home-"))

from airflow_dlaws.local.leftovers import ServerRecord
from airflow_dlaws.local.process import LocalAws

#: The image `*/serve-test:*`: a serving container whose behaviour stands in its artifact.
SERVE_TEST = Path(__file__).parent / "local" / "images" / "serve-test"
#: The image `*/train-test:*`: its program `train` reports a loss for each epoch, as its hyperparameters say.
TRAIN_TEST = Path(__file__).parent / "local" / "images" / "train-test"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Hand the files with the most slow tests out first: one that began last would keep one worker busy alone."""
    if hasattr(config, "workerinput"):  # a worker of pytest-xdist
        slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
        items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def local_aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """One local AWS for the whole session; waits that AWS makes take a twentieth of their time."""
    images = {"*/serve-test:*": SERVE_TEST, "*/train-test:*": TRAIN_TEST}
    aws = LocalAws(tmp_path_factory.mktemp("local-aws"), time_scale=0.05, images=images)
    aws.start()
    yield aws
    record = ServerRecord.read(aws.state_dir)
    assert record is not None
    family = psutil.Process(record.pid).children(recursive=True)
    aws.stop()
    assert [process for process in family if process.is_running()] == []
    assert aws.children() == []


@pytest.fixture
def bucket(local_aws: LocalAws) -> str:
    """A new, empty bucket."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    local_aws.client("s3").create_bucket(Bucket=name)
    return name
