"""Kinds of SageMaker jobs that are watched together: the service lists them, and their logs lie in one group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from airflow_dlaws.jobs.phase import SAGEMAKER_PHASES
from airflow_dlaws.launchers.aws_errors import service_errors
from airflow_dlaws.launchers.job_list import ListPage, Stretch, read_page
from airflow_dlaws.launchers.job_log import read_logs, recent_streams
from airflow_dlaws.launchers.protocol import LogTask, SharedLogPage, Watchable
from airflow_dlaws.launchers.sagemaker_jobs import SageMakerJobs


class ListedJobs(SageMakerJobs):
    """The jobs of one kind, one by one and all together."""

    def list_page(self, stretch: Stretch) -> ListPage:
        """Return one page of all jobs of this kind in the account."""
        kind = self.kind
        method = getattr(self._client("sagemaker"), kind.list_method)
        with service_errors(f"list the {kind.noun}s"):
            answer = method(**stretch.request())
        status = kind.name_field.removesuffix("Name") + "Status"
        return read_page(answer, rows=kind.summaries, name=kind.name_field, status=status, phases=SAGEMAKER_PHASES)

    def read_logs(self, tasks: Sequence[LogTask], now_ms: int) -> SharedLogPage:
        """Read the logs of several jobs at once."""
        return read_logs(self._client("logs"), group=self.kind.log_group, tasks=tasks, now_ms=now_ms)

    def recent_streams(self, token: str | None = None) -> tuple[tuple[str, ...], str | None]:
        """Return the names of the log streams written to last, and the token of the next page."""
        return recent_streams(self._client("logs"), group=self.kind.log_group, token=token)


def _proof_of_conformance(client: Callable[[str], Any]) -> Watchable:
    """Have mypy check the protocol."""
    return ListedJobs(client)
