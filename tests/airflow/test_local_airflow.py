"""The Airflow that the demo and the tests run in: what would stop it, and how it tells that it has stopped."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from contextlib import closing

import pytest

from airflow_dlaws.local.airflow_api import wait_until
from airflow_dlaws.local.airflow_stack import LocalAirflow

pytestmark = [pytest.mark.airflow, pytest.mark.slow]
#: Longer than the five seconds that Python's sqlite3 waits for a lock, and half as long again.
LOCKED_S = 8


def test_a_database_that_is_locked_for_seconds_ends_no_component(airflow: LocalAirflow) -> None:
    run_id = airflow.api.trigger("train_deferred", {"seconds": 1})
    database = airflow.home / "airflow.db"
    with closing(sqlite3.connect(database, timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(LOCKED_S)
        connection.execute("ROLLBACK")
    assert airflow.api.wait_for_run("train_deferred", run_id, limit_s=180) == "success"
    assert airflow.ended() == []


def test_a_component_that_ends_by_itself_ends_the_waiting_and_is_named(airflow: LocalAirflow) -> None:
    os.kill(min(airflow.members("triggerer")), signal.SIGKILL)
    wait_until(lambda: airflow.ended() == ["triggerer"], limit_s=10, what="the triggerer has ended")
    with pytest.raises(RuntimeError, match=r"airflow triggerer has ended; the last it printed:\n.+"):
        airflow.api.wait_for_run("train_deferred", "any", limit_s=180)
    airflow.start_component("triggerer")
    airflow.wait_healthy(time.monotonic() + 60)


def test_no_trigger_gets_the_id_of_a_deleted_one(airflow: LocalAirflow) -> None:
    """The triggerer would take the new one for the old one, which it has not ended yet."""
    insert = "INSERT INTO trigger (classpath, kwargs, created_date) VALUES ('x.Y', '{}', '2026-11-30') RETURNING id"
    with closing(sqlite3.connect(airflow.home / "airflow.db", timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        (former,) = connection.execute(insert).fetchone()
        connection.execute("DELETE FROM trigger WHERE id = ?", (former,))
        (later,) = connection.execute(insert).fetchone()
        connection.execute("ROLLBACK")
    assert later > former
