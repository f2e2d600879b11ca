"""One page of SageMaker's list of jobs: a stretch of it, in the order of their creation.

Only the time of creation is asked for. AWS applies the other filters (name, status, last modification) after it has
cut a page, so that a filtered list is as long and partly empty (boto/boto3#2838, aws/aws-cli#7596, and the note on
`StatusEquals` in the API reference of ListTrainingJobs): they would save no call, and hide how far one has come.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow_dlaws.jobs.phase import JobPhase, is_terminal

#: Most rows of a page (MaxResults).
PAGE_ROWS = 100


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Which jobs: the oldest created after a time, or the newest created before one, or without a time the newest.

    AWS reads both times as whole seconds.

    :param token: go on behind an earlier page of the same stretch.
    """

    after: datetime | None = None
    before: datetime | None = None
    token: str | None = None

    def request(self) -> dict[str, Any]:
        """Return the members of the List request."""
        asked: dict[str, Any] = {"MaxResults": PAGE_ROWS, "SortBy": "CreationTime"}
        asked["SortOrder"] = "Ascending" if self.after else "Descending"
        for member, value in (
            ("CreationTimeAfter", self.after),
            ("CreationTimeBefore", self.before),
            ("NextToken", self.token),
        ):
            if value is not None:
                asked[member] = value
        return asked


@dataclass(frozen=True, kw_only=True)
class ListedJob:
    """A row of the list."""

    name: str
    phase: JobPhase
    created_at: datetime
    detail: str = ""

    @property
    def terminal(self) -> bool:
        """Whether the job will not change any more."""
        return is_terminal(self.phase)


@dataclass(frozen=True, kw_only=True)
class ListPage:
    """Rows in the order asked for; `token` is None behind the last page."""

    rows: tuple[ListedJob, ...]
    token: str | None = None


def read_page(
    answer: Mapping[str, Any], *, rows: str, name: str, status: str, phases: Mapping[str, JobPhase]
) -> ListPage:
    """Read the answer of List; `rows`, `name` and `status` are its members' names.

    A row whose status is not known here is left out, whoever's it is; a job of ours that is never seen is described.
    """
    return ListPage(
        rows=tuple(
            ListedJob(
                name=row[name],
                phase=phases[row[status]],
                created_at=row["CreationTime"],
                detail=row.get("SecondaryStatus", ""),
            )
            for row in answer[rows]
            if row[status] in phases
        ),
        token=answer.get("NextToken"),
    )
