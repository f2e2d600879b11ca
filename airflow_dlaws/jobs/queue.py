"""Which AWS Batch queue a training job waits in, and how it stands among the others there."""

from __future__ import annotations

import re
from dataclasses import dataclass

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs import limits

_NAME = re.compile(r"(?:arn:[\w-]+:batch:[\w-]+:\d{12}:job-queue/)?[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
#: SubmitServiceJob's ranges. https://docs.aws.amazon.com/batch/latest/APIReference/API_SubmitServiceJob.html
_ATTEMPTS, _PRIORITIES = (1, 10), (0, 9999)


@dataclass(frozen=True, kw_only=True)
class BatchQueue:
    """A job queue of type SAGEMAKER_TRAINING.

    :param name: name or ARN of the queue.
    :param priority: among the jobs of a queue with a scheduling policy, 0 to 9,999; higher is sooner.
    :param share: share identifier, which a queue with a fair-share policy asks for and others refuse.
    :param quota_share: name of the quota share, likewise.
    :param attempts: how often Batch itself starts a job that failed, 1 to 10. Missing capacity does not count: Batch
        waits for it. The job's checkpoints are the same in every attempt.
    """

    name: str
    priority: int | None = None
    share: str | None = None
    quota_share: str | None = None
    attempts: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise SpecificationError(
                f"queue name={self.name!r} must be the name or the ARN of a job queue: 1 to 128 letters, numbers, "
                "hyphens and underscores"
            )
        limits.check_range("queue attempts", self.attempts, *_ATTEMPTS)
        if self.priority is not None:
            limits.check_range("queue priority", self.priority, *_PRIORITIES)
