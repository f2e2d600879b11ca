"""The local Airflow's database, made as Airflow's versions make it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from airflow_dlaws.local.airflow_database import keep_trigger_ids_apart

COLUMNS = """\tid INTEGER NOT NULL,
\tclasspath VARCHAR(1000) NOT NULL,
\tkwargs TEXT NOT NULL,
\ttriggerer_id INTEGER,"""
KEY = "\tCONSTRAINT trigger_pkey PRIMARY KEY (id)"
TEAM = "\tCONSTRAINT trigger_team_name_fkey FOREIGN KEY(team_name) REFERENCES team (name) ON DELETE SET NULL"
MADE = {
    "3.0": f"{COLUMNS}\n{KEY}",
    "3.2": f"{COLUMNS}\n\tqueue VARCHAR(256),\n{KEY}",
    "3.3": f"{COLUMNS}\n\tteam_name VARCHAR(50),\n{KEY}, \n{TEAM}",
}
INSERT = "INSERT INTO trigger (classpath, kwargs) VALUES (?, '{}') RETURNING id"


@pytest.mark.parametrize("version", MADE)
def test_no_trigger_gets_the_id_of_a_deleted_one_and_all_else_stays(tmp_path: Path, version: str) -> None:
    file = tmp_path / "airflow.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE team (name VARCHAR(50) PRIMARY KEY)")
        connection.execute(f'CREATE TABLE "trigger" (\n{MADE[version]}\n)')
        connection.execute("CREATE TABLE task_instance (trigger_id INTEGER REFERENCES trigger (id))")
        connection.execute("CREATE INDEX idx_triggerer ON trigger (triggerer_id)")
        (kept,) = connection.execute(INSERT, ("a.Kept",)).fetchone()
        connection.execute("INSERT INTO task_instance VALUES (?)", (kept,))
    for _ in range(2):
        keep_trigger_ids_apart(file)
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        assert connection.execute("SELECT classpath FROM trigger").fetchall() == [("a.Kept",)]
        assert "idx_triggerer" in [row[1] for row in connection.execute("PRAGMA index_list(trigger)")]
        (former,) = connection.execute(INSERT, ("a.Former",)).fetchone()
        connection.execute("DELETE FROM trigger WHERE id = ?", (former,))
        (later,) = connection.execute(INSERT, ("a.Later",)).fetchone()
        assert kept < former < later
        with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
            connection.execute("DELETE FROM trigger WHERE id = ?", (kept,))


def test_a_table_that_is_made_otherwise_is_told(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "airflow.db", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE trigger (id VARCHAR(36) PRIMARY KEY)")
    with pytest.raises(RuntimeError, match="table of triggers"):
        keep_trigger_ids_apart(tmp_path / "airflow.db")
