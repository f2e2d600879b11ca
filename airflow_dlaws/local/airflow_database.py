"""What Airflow's database on this machine needs so that it does what PostgreSQL and MySQL do."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

_ID = "id INTEGER NOT NULL,"
_UNIQUE_ID = "id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,"
_KEY = re.compile(r",\s*CONSTRAINT trigger_pkey PRIMARY KEY \(id\)")


def keep_trigger_ids_apart(database: Path) -> None:
    """Let SQLite give no trigger the id of a deleted one.

    It does otherwise, at once. A triggerer that has not ended the old trigger yet takes the new one for it: a task that
    was cleared, and deferred again within two seconds, was resumed or failed by what the old trigger saw, and its own
    never ran.

    :param database: migrated, and in nobody's use. One that is as it should be is left so.
    :raises RuntimeError: the table is not made as in Airflow 3.0 to 3.3.
    """
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        (table,) = connection.execute(
            "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'trigger'"
        ).fetchone()
        if _UNIQUE_ID in table:
            return
        made, keys = _KEY.subn("", table.replace(_ID, _UNIQUE_ID))
        if keys != 1 or _UNIQUE_ID not in made:
            raise RuntimeError(
                f"Airflow's table of triggers has not {_ID!r} and {_KEY.pattern!r}, as expected: {table}"
            )
        indexes = connection.execute(
            "SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'trigger' AND sql IS NOT NULL"
        ).fetchall()
        # The order that https://www.sqlite.org/lang_altertable.html gives, by which foreign keys stay what they are.
        for statement in (
            "PRAGMA foreign_keys = OFF",
            "BEGIN IMMEDIATE",
            made.replace("trigger", "new_trigger", 1),
            "INSERT INTO new_trigger SELECT * FROM trigger",
            "DROP TABLE trigger",
            "ALTER TABLE new_trigger RENAME TO trigger",
            *(sql for (sql,) in indexes),
            "COMMIT",
        ):
            connection.execute(statement)
