"""Where a sweep is remembered, in S3: its journal, and the leaderboard as data and as a page.

<output_s3_uri>/sweeps/<name>/journal.json  leaderboard.json  leaderboard.html
"""

from __future__ import annotations

import json

from airflow_dlaws.errors import ServiceUnavailable
from airflow_dlaws.jobs.wire import from_json, to_json
from airflow_dlaws.launchers.aws_errors import service_errors
from airflow_dlaws.storage import ObjectStore, S3Uri
from airflow_dlaws.sweeps.journal import SweepJournal
from airflow_dlaws.sweeps.leaderboard import leaderboard_of
from airflow_dlaws.sweeps.page import render


class SweepStore:
    """The files of one sweep; `folder` is `<output_s3_uri>/sweeps/<name>`."""

    def __init__(self, store: ObjectStore, folder: S3Uri) -> None:
        self._store = store
        self.journal_uri = folder / "journal.json"
        self.leaderboard_uri = folder / "leaderboard.json"
        self.page_uri = folder / "leaderboard.html"

    def begin(self, journal: SweepJournal) -> bool:
        """Write the first journal; return False where there is one."""
        with service_errors(f"write {self.journal_uri}"):
            return self._store.create(self.journal_uri, _bytes(journal))

    def exists(self) -> bool:
        """Tell whether the sweep was begun."""
        with service_errors(f"read {self.journal_uri}"):
            return self._store.exists(self.journal_uri)

    def load(self) -> tuple[SweepJournal, str]:
        """Return the journal and its entity tag, for :meth:`replace`."""
        with service_errors(f"read {self.journal_uri}"):
            body, etag = self._store.read_versioned(self.journal_uri)
        return from_json(SweepJournal, json.loads(body)), etag

    def replace(self, journal: SweepJournal, etag: str) -> bool:
        """Write the journal if nobody else has since it was read."""
        with service_errors(f"write {self.journal_uri}"):
            return self._store.replace(self.journal_uri, _bytes(journal), etag=etag)

    def publish(self, journal: SweepJournal, engine: str = "optuna") -> None:
        """Write the leaderboard, as data and as a page.

        :param engine: who has searched, "optuna" or "sagemaker".
        """
        board = leaderboard_of(journal, engine)
        with service_errors(f"write {self.page_uri}"):
            self._store.write_json(self.leaderboard_uri, to_json(board))
            self._store.write(self.page_uri, render(board).encode(), content_type="text/html; charset=utf-8")


def lost_race(uri: S3Uri) -> ServiceUnavailable:
    """Return the error of one whose journal others keep replacing."""
    return ServiceUnavailable(f"{uri} is being written by others: look again later")


def _bytes(journal: SweepJournal) -> bytes:
    return json.dumps(to_json(journal), separators=(",", ":"), allow_nan=False).encode()
