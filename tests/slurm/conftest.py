"""One Slurm for the session, reached through an Airflow connection of type SSH."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from slurm_cluster import SlurmCluster, missing_programs

from airflow_dlaws.hooks import aws
from airflow_dlaws.hooks.ssh import SshShell
from airflow_dlaws.local.process import LocalAws

CONNECTION = "slurm_head"


@pytest.fixture(scope="session")
def cluster(local_aws: LocalAws) -> Iterator[SlurmCluster]:
    """A controller, two nodes, and an sshd in front of them."""
    if missing := missing_programs():
        pytest.skip(missing)
    slurm = SlurmCluster(variables=local_aws.environment())
    try:
        slurm.start()
        os.environ["AIRFLOW_CONN_SLURM_HEAD"] = slurm.airflow_connection()
        yield slurm
    finally:
        os.environ.pop("AIRFLOW_CONN_SLURM_HEAD", None)
        killed = slurm.stop()
    assert not killed


@pytest.fixture(scope="session")
def shell(cluster: SlurmCluster) -> SshShell:
    """The shell that launchers use, over the one connection."""
    return SshShell(CONNECTION)


@pytest.fixture(autouse=True)
def own_clients() -> Iterator[None]:
    """Triggers of one process share clients; the tests of one process talk to several local AWSs."""
    yield
    aws._SHARED.clear()
