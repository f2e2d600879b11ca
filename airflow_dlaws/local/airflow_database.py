"""What Airflow's database on this machine needs so that it does what PostgreSQL and MySQL do."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

_ID, _KEY = "\tid INTEGER NOT NULL,", "\tCONSTRAINT trigger_pkey PRIMARY KEY (id), \n"
_UNIQUE_ID = "\tid INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,"


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
        if _ID not in table or _KEY not in table:
            raise RuntimeError(
                f"Airflow's table of triggers is not made as expected, with {_ID!r} and {_KEY!r}: {table}"
            )
        indexes = connection.execute(
            "SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'trigger' AND sql IS NOT NULL"
        ).fetchall()
        # The order that https://www.sqlite.org/lang_altertable.html gives, by which foreign keys stay what they are.
        made = table.replace(_ID, _UNIQUE_ID).replace(_KEY, "").replace("trigger", "new_trigger", 1)
        for statement in (
            "PRAGMA foreign_keys = OFF",
            "BEGIN IMMEDIATE",
            made,
            "INSERT INTO new_trigger SELECT * FROM trigger",
            "DROP TABLE trigger",
            "ALTER TABLE new_trigger RENAME TO trigger",
            *(sql for (sql,) in indexes),
            "COMMIT",
        ):
            connection.execute(statement)
