"""Tells a deferred task's progress: a line in its log and an XCom, from the lines its job prints."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from airflow_dlaws._compat import push_xcom
from airflow_dlaws.jobs.progress import PROGRESS_XCOM, ProgressReports, document, sentence


class ProgressTeller:
    """The progress of one job, as one trigger tells it.

    :param every_s: seconds between two reports.
    :param log: of the trigger: what it says stands in the task's log.
    """

    def __init__(self, every_s: float, log: Any) -> None:
        self._reports, self._log, self._refused = ProgressReports(every_s), log, False

    async def tell(self, lines: Iterable[str], task_instance: Any, *, last: bool = False) -> None:
        """Take in new lines, and tell the progress if it is time to.

        That Airflow does not take the XCom is said once and fails nothing: the job is what the task waits for.
        """
        progress = self._reports.take(lines, datetime.now(UTC), last=last)
        if progress is None:
            return
        self._log.info("%s", sentence(progress))
        if task_instance is None or self._refused:
            return
        try:
            await push_xcom(task_instance, PROGRESS_XCOM, document(progress))
        except Exception as error:
            self._refused = True
            self._log.warning("The progress cannot be shown as an XCom, only here: %r", error)
