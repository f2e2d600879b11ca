"""Tells a deferred task's progress: log lines and an XCom, from its job's states and what the job prints."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow_dlaws._compat import push_xcom
from airflow_dlaws.jobs.progress import PROGRESS_XCOM, ProgressReports, document, sentence
from airflow_dlaws.jobs.story import JobStory
from airflow_dlaws.launchers.watch import Look


class ProgressTeller:
    """The progress of one job, as one trigger tells it.

    :param every_s: seconds between two reports.
    :param log: of the trigger: what it says stands in the task's log.
    """

    def __init__(self, every_s: float, log: Any) -> None:
        self._reports, self._story, self._log, self._refused = ProgressReports(every_s), JobStory(), log, False

    async def tell(self, look: Look, task_instance: Any) -> None:
        """Take in what was seen; tell a state that is new, and the progress if it is time to.

        That Airflow does not take the XCom is said once and fails nothing: the job is what the task waits for.
        """
        if news := self._story.take(look.status):
            self._log.info("%s", news)
        ended = look.status is not None and look.status.terminal
        progress = self._reports.take(look.lines, datetime.now(UTC), last=ended)
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
